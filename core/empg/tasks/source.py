"""A task: training prompts by index, and held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from empg.rundir.plan import PlannedPrompt
from empg.tasks.problem import Encode, Problem


class PromptSource(Protocol):
    """Training prompts by index. The same index always gives the same prompt."""

    @property
    def size(self) -> int | None:
        """Number of prompts; None: without end."""

    def prompt(self, index: int) -> PlannedPrompt:
        """The prompt at `index`, 0 ≤ index < size."""


@dataclass(frozen=True)
class FiniteSource:
    """Training prompts held as text; token ids are made when a prompt is planned, which keeps large sets small."""

    problems: tuple[Problem, ...]
    encode: Encode

    @property
    def size(self) -> int:
        """Number of prompts."""
        return len(self.problems)

    def prompt(self, index: int) -> PlannedPrompt:
        """The prompt at `index`."""
        return self.problems[index].planned(self.encode)


@dataclass(frozen=True)
class Task:
    """Training prompts, held-out prompts, and what was left out of both."""

    train: PromptSource
    heldout: tuple[PlannedPrompt, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> rows dropped when the task was loaded."""
