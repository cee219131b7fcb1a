"""Moments are whole seconds of UTC, and texts that are none are no moments."""

import pytest

from empg_operator.plan.times import elapsed, moment, soonest, stamp


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1970-01-01T00:00:00Z"), (1.999, "1970-01-01T00:00:01Z"), (1.8e9, "2027-01-15T08:00:00Z")],
)
def test_stamps_round_down_and_come_back(seconds: float, text: str) -> None:
    assert stamp(seconds) == text
    assert moment(text) == int(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("yesterday", None),
        ("1970-01-01T00:00:10", 10.0),
        ("1970-01-01T01:00:10+01:00", 10.0),
        ("1970-01-01T00:00:10.5Z", 10.5),
    ],
)
def test_other_texts(text: str | None, seconds: float | None) -> None:
    assert moment(text) == seconds


def test_a_clock_that_was_set_back_has_not_run() -> None:
    assert elapsed(stamp(100), 90.0) == 0
    assert elapsed(stamp(100), 130.0) == 30
    assert elapsed(None, 130.0) == 0


def test_the_soonest_of_what_there_is() -> None:
    assert soonest(None, 3.0, 2.0) == 2
    assert soonest(None) is None
