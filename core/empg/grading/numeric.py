"""Numbers within a tolerance."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from empg.grading.base import AnswerGrader
from empg.grading.numerals import first_number, last_number, whole_number_text

_ANSWER = re.compile("answer", re.IGNORECASE)


@dataclass(frozen=True)
class Numeric(AnswerGrader):
    """A decimal number must be within `tolerance` of the gold answer, absolutely or relative to the gold answer.

    The number is the first after the last `answer` (in any case) of the response. A response without that word answers
    with its last number, unless `marked`; one that ends before the number has none.
    """

    tolerance: float
    marked: bool
    """Only a number after `answer` counts, so that a cut-off working is not taken for the answer."""

    def find(self, text: str) -> str | None:
        mark = None
        for mark in _ANSWER.finditer(text):  # noqa: B007 - keeps the last one
            pass
        if mark is not None:
            return first_number(text[mark.end() :])
        return None if self.marked else last_number(text)

    def gold_answer(self, gold: str) -> str | None:
        number = whole_number_text(gold)
        return number if number is not None and math.isfinite(float(number)) else None

    def matches(self, answer: str, gold_answer: str) -> bool:
        gold = float(gold_answer)
        return abs(float(answer) - gold) <= self.tolerance * max(1.0, abs(gold))
