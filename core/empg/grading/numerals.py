"""Decimal numbers in running text."""

from __future__ import annotations

import re

_NUMERAL = re.compile(
    r"""
    (?P<sign>(?<![\w)])[-−])?      # after a digit, letter or parenthesis it is a subtraction or a range
    [$€£]?
    (?P<digits>
        [0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?
      | [0-9]+(?:\.[0-9]+)?
      | (?<![0-9.])\.[0-9]+
    )
    (?P<exponent>[eE][-+]?[0-9]{1,3}(?![0-9]))?
    """,
    re.VERBOSE,
)


def last_number(text: str) -> str | None:
    """The last number of the text, as `float` and `Decimal` read it; None when there is none.

    Thousands separators and a currency sign are dropped, as is a full stop after the number; `−` is a minus sign.
    """
    match = None
    for match in _NUMERAL.finditer(text):  # noqa: B007 - keeps the last one
        pass
    return _plain(match)


def first_number(text: str) -> str | None:
    """The first number of the text; see `last_number`."""
    return _plain(_NUMERAL.search(text))


def whole_number_text(text: str) -> str | None:
    """The number that the text consists of; None when it is anything else. See `last_number`."""
    return _plain(_NUMERAL.fullmatch(text.strip()))


def _plain(match: re.Match[str] | None) -> str | None:
    if match is None:
        return None
    sign = "-" if match["sign"] else ""
    return f"{sign}{match['digits'].replace(',', '')}{match['exponent'] or ''}"
