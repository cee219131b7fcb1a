"""What every grader is: a rule from a response and a gold answer to a `Grade`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from empg.api.task import GraderName
from empg.verdict import Grade, Verdict


@dataclass(frozen=True)
class Grader(ABC):
    """One rule. It runs unguarded in the calling process; `GradePool` runs it under limits of time and memory."""

    name: GraderName

    @abstractmethod
    def gold_ok(self, gold: str) -> bool:
        """Whether answers can be compared with this gold answer. A prompt without such a gold answer is dropped."""

    @abstractmethod
    def grade(self, text: str, gold: str) -> Grade:
        """Grade a whole response."""

    def warm_up(self) -> None:  # noqa: B027 - most rules have nothing to load
        """Do what the first answer would otherwise pay for, such as imports. `ValueError` when the rule can't run."""

    def graded(self, verdict: Verdict, reward: float, detail: str = "") -> Grade:
        """A grade whose only part is this grader's."""
        return Grade(verdict, reward, {self.name: reward}, detail)


@dataclass(frozen=True)
class AnswerGrader(Grader):
    """A rule that first finds an answer in the response: reward 1 when it matches the gold answer, else 0."""

    max_answer_chars: int
    """An answer longer than this counts as not found; a gold answer longer than this could never be matched."""

    @abstractmethod
    def find(self, text: str) -> str | None:
        """The answer as it is compared; None when the text has none. Takes time linear in any text."""

    @abstractmethod
    def gold_answer(self, gold: str) -> str | None:
        """The gold answer as it is compared; None when it can't be."""

    @abstractmethod
    def matches(self, answer: str, gold_answer: str) -> bool:
        """Whether the two are the same answer."""

    def gold_ok(self, gold: str) -> bool:
        return self._usable(self.gold_answer(gold))

    def grade(self, text: str, gold: str) -> Grade:
        gold_answer = self.gold_answer(gold)
        if gold_answer is None or not self._usable(gold_answer):
            return self.graded(
                Verdict.ERROR, math.nan, f"{self.name} can't compare with the gold answer {gold[:100]!r}"
            )
        answer = self.find(text)
        if answer is None or not self._usable(answer):
            return self.graded(Verdict.UNPARSEABLE, 0.0)
        if self.matches(answer, gold_answer):
            return self.graded(Verdict.CORRECT, 1.0)
        return self.graded(Verdict.WRONG, 0.0)

    def _usable(self, answer: str | None) -> bool:
        return answer is not None and len(answer) <= self.max_answer_chars
