"""The outcome of grading one answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """What the grader found. Only `correct` and `wrong` judge the answer; the others are counted apart."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSEABLE = "unparseable"
    """No answer was found in the text: a real outcome, reward 0."""
    TIMEOUT = "timeout"
    """The grader ran out of time or memory: not an outcome of the answer, left out of training."""
    ERROR = "error"
    """The grader itself failed: likewise left out of training."""

    @property
    def trains(self) -> bool:
        """Whether a trajectory with this verdict may be trained on."""
        return self not in (Verdict.TIMEOUT, Verdict.ERROR)


@dataclass(frozen=True)
class Grade:
    """Verdict, reward and its named parts. The reward of a verdict that does not train is NaN, never 0."""

    verdict: Verdict
    reward: float
    parts: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    """For `timeout` and `error`: what happened."""
