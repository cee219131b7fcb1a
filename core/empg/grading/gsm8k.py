"""GSM8K: the number after the last `####`, or the last number of the response.

The gold answer of both rules is a number, or a worked solution that ends in `#### <number>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from empg.grading.base import AnswerGrader
from empg.grading.numerals import last_number, whole_number_text

SEARCHED_CHARS = 300
_MARKED = re.compile(r"#### (-?[0-9.,]+)")


def gold_number(gold: str) -> str | None:
    """The number of a gold answer, without thousands separators; None when it has none."""
    return whole_number_text(gold.rpartition("####")[2])


@dataclass(frozen=True)
class Gsm8kStrict(AnswerGrader):
    """The last `#### <number>` of the last 300 characters must be the gold answer, digit for digit.

    There is exactly one space after `####`; then come an optional minus sign, digits, full stops and commas, of which
    only the commas are dropped. So `####18` and `#### $18` hold no answer, and `#### 18.00` and `#### 18.` are wrong
    where the gold answer is 18. These are the rules of verl and of lm-eval's strict match.
    """

    def find(self, text: str) -> str | None:
        found = _MARKED.findall(text[-SEARCHED_CHARS:])
        return found[-1].replace(",", "") or None if found else None

    def gold_answer(self, gold: str) -> str | None:
        return gold_number(gold)

    def matches(self, answer: str, gold_answer: str) -> bool:
        return answer == gold_answer


@dataclass(frozen=True)
class Gsm8kFlexible(AnswerGrader):
    """The last number of the response, wherever it stands, must have the value of the gold answer.

    `$1,800.00.` is 1800 here. verl's rule of this name compares digit for digit and keeps commas: there it is wrong.
    """

    def find(self, text: str) -> str | None:
        return last_number(text)

    def gold_answer(self, gold: str) -> str | None:
        return gold_number(gold)

    def matches(self, answer: str, gold_answer: str) -> bool:
        return Decimal(answer) == Decimal(gold_answer)
