"""A user's own Python function as the grader."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

from empg.grading.base import Grader
from empg.verdict import Grade, Verdict


@dataclass(frozen=True)
class Function(Grader):
    """Calls `f(text, gold)`, imported from `path` (`package.module:name`) when it is first needed.

    A finite number is the reward, and the answer is correct when it is above zero; None says that the text holds no
    answer. Whatever the function raises is passed on; another result is a `TypeError`, one that is not finite a
    `ValueError`.
    """

    path: str

    def gold_ok(self, gold: str) -> bool:
        """Always: what a gold answer is, only the function knows."""
        return True

    def grade(self, text: str, gold: str) -> Grade:
        reward = self._function(text, gold)
        if reward is None:
            return self.graded(Verdict.UNPARSEABLE, 0.0)
        if not isinstance(reward, Real):
            raise TypeError(f"{self.path} returned {type(reward).__name__}; it must return float or None")
        if not math.isfinite(reward):
            raise ValueError(f"{self.path} returned {reward}; a reward must be finite")
        return self.graded(Verdict.CORRECT if float(reward) > 0 else Verdict.WRONG, float(reward))

    def warm_up(self) -> None:
        """Import the function."""
        assert callable(self._function)

    @cached_property
    def _function(self) -> Callable[[str, str], Any]:
        module, _, name = self.path.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"task.grader.function: {self.path} can't be imported ({error}); is its directory on PYTHONPATH?"
            ) from error
        if not callable(function):
            raise ValueError(f"task.grader.function: {self.path} is no function")
        return function
