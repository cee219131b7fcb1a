"""Exact match of the whole response."""

from __future__ import annotations

from dataclasses import dataclass

from empg.grading.base import AnswerGrader


@dataclass(frozen=True)
class Exact(AnswerGrader):
    """The response must be the gold answer, white space around both aside. An empty response holds no answer."""

    def find(self, text: str) -> str | None:
        return text.strip() or None

    def gold_answer(self, gold: str) -> str | None:
        return gold.strip() or None

    def matches(self, answer: str, gold_answer: str) -> bool:
        return answer == gold_answer
