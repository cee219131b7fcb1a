"""Conditions keep the time of their last change of status."""

import pytest

from empg_operator.conditions import MESSAGE_CHARACTERS, Statement, cut, is_true, set_conditions

READY = Statement("Ready", "False", "Starting", "wait")


def test_the_time_changes_with_the_status_alone() -> None:
    first = set_conditions((), [READY], 1, "t1")
    reason = set_conditions(first, [Statement("Ready", "False", "Crashed", "see the events")], 2, "t2")
    status = set_conditions(reason, [Statement("Ready", "True", "Running", "")], 3, "t3")
    assert [
        (each[0].reason, each[0].last_transition_time, each[0].observed_generation) for each in (first, reason)
    ] == [
        ("Starting", "t1", 1),
        ("Crashed", "t1", 2),
    ]
    assert (status[0].status, status[0].last_transition_time) == ("True", "t3")


def test_conditions_that_nobody_speaks_of_stay() -> None:
    before = set_conditions((), [READY, Statement("Failed", "False", "Running", "")], 1, "t1")
    after = set_conditions(before, [Statement("Accepted", "True", "Accepted", "")], 2, "t2")
    assert [each.type for each in after] == ["Accepted", "Failed", "Ready"]
    assert after[1:] == before


@pytest.mark.parametrize(("length", "kept"), [(0, 0), (MESSAGE_CHARACTERS, 500), (MESSAGE_CHARACTERS + 1, 500)])
def test_messages_are_cut(length: int, kept: int) -> None:
    text = cut("x" * length)
    assert len(text) == kept
    assert text.endswith("…") == (length > MESSAGE_CHARACTERS)


def test_only_true_conditions_are_found() -> None:
    conditions = set_conditions((), [READY, Statement("Failed", "True", "Diverged", "")], 1, "t")
    assert is_true(conditions, "Ready") is None
    assert is_true(conditions, "Complete") is None
    found = is_true(conditions, "Failed")
    assert found is not None
    assert found.reason == "Diverged"
