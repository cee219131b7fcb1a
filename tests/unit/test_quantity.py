"""Kubernetes' quantities are exact numbers."""

from __future__ import annotations

from fractions import Fraction

import pytest

from empg_operator.quantity import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("3", 3),
        (3, 3),
        (0.1, Fraction(1, 10)),
        ("+1.5", Fraction(3, 2)),
        ("-2", -2),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("500m", Fraction(1, 2)),
        ("1u", Fraction(1, 10**6)),
        ("1n", Fraction(1, 10**9)),
        ("2k", 2000),
        ("2Ki", 2048),
        ("1M", 10**6),
        ("1.5Gi", 3 * 2**29),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12e-1", Fraction(6, 5)),
    ],
)
def test_a_quantity_is_a_number(text: str | int | float, number: Fraction | int) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1gi", "K", "1ki", "1e", "1e3Gi", "--1", "1.2.3", "١", "NaN"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity; write a number with a suffix"):
        quantity(text)
