"""Conditions keep the time of their last change of status."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empg_operator.conditions import MESSAGE_CHARACTERS, TOGETHER_BYTES, Statement, cut, is_true, set_conditions

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


@given(st.lists(st.text(max_size=700), min_size=1, max_size=7))
def test_all_messages_have_room_together(messages: list[str]) -> None:
    said = [Statement(f"Type{number}", "False", "Reason", message) for number, message in enumerate(messages)]
    made = set_conditions((), said, 1, "t")
    sizes = [len(condition.message.encode()) for condition in made]
    assert sum(sizes) <= TOGETHER_BYTES
    for condition, each in zip(made, said, strict=True):
        if (whole := cut(each.message)) != condition.message:
            assert whole.startswith(condition.message.removesuffix("…"))
            assert len(condition.message.encode()) > max(sizes) - 4, "none gives way but the longest"


def test_what_gave_way_stays_as_it_is() -> None:
    """Once an odd byte was given to those that are said again, the next passes have nothing to write."""
    said = [Statement(kind, "False", "Reason", kind * 500) for kind in ("A", "B", "C")]
    first = set_conditions((), [*said, Statement("Ready", "False", "Reason", "R" * 250)], 1, "t")
    assert [len(each.message.encode()) for each in first] == [316, 316, 316, 250]
    second = set_conditions(first, said[1:], 1, "t")
    assert [len(each.message.encode()) for each in second] == [316, 317, 317, 250]
    assert set_conditions(second, said[1:], 1, "t") == second
