"""Kubernetes' quantities (`500m`, `2Gi`, `1e3`) as exact numbers."""

from __future__ import annotations

import re
from fractions import Fraction

_BINARY = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)}
_DECIMAL = {letter: 1000**power for power, letter in enumerate(("", "k", "M", "G", "T", "P", "E"))}
_SMALL = {"m": Fraction(1, 10**3), "u": Fraction(1, 10**6), "n": Fraction(1, 10**9)}
_SUFFIXES: dict[str, Fraction] = {
    **{suffix: Fraction(factor) for suffix, factor in {**_BINARY, **_DECIMAL}.items()},
    **_SMALL,
}
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,3})|([KMGTPE]i|[kMGTPEmun])?)")


def quantity(value: str | int | float) -> Fraction:
    """The number that a quantity stands for. ValueError if it is none."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is no quantity; write a number with a suffix such as m, k, Mi or Gi")
    number, exponent, suffix = match.groups()
    return Fraction(number) * (Fraction(10) ** int(exponent) if exponent else _SUFFIXES[suffix or ""])
