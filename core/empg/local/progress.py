"""What the user sees of a run: numbers read from the run directory, told as a live table or as plain lines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from empg.rundir.metrics import read_metrics
from empg.rundir.progress import Progress, read_progress
from empg.store.base import Store

Row = dict[str, Any]

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("iter", "iteration", "d"),
    ("reward", "reward_mean", ".3f"),
    ("accuracy", "accuracy", ".3f"),
    ("entropy", "entropy", ".3f"),
    ("KL", "kl_behaviour", ".1e"),
    ("grad", "grad_norm", ".2f"),
    ("length", "response_length_mean", ".0f"),
    ("tokens/s", "tokens_per_second", ",.0f"),
    ("sample s", "seconds_sampling", ".2f"),
    ("learn s", "seconds_learning", ".2f"),
    ("stale", "staleness_max", ".0f"),
    ("eval", "eval_greedy", ".3f"),
)
"""Heading, key of the metrics record, format."""


def cell(row: Row, key: str, form: str) -> str:
    """One number as text; empty when the record has none."""
    value = row.get(key)
    return "" if value is None else format(value, form)


def iterations_table(rows: Sequence[Row]) -> Table:
    """The table of iterations of `empg show` and of the live view."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(cell(row, key, form) for _, key, form in COLUMNS))
    return table


def seconds_left(rows: Sequence[Row], progress: Progress | None) -> float | None:
    """Estimate of the seconds to the last iteration, from the median of the last 20; None before the first."""
    recent = [row["seconds_total"] for row in rows[-20:] if row.get("seconds_total") is not None]
    if not recent or progress is None:
        return None
    return statistics.median(recent) * max(0, progress.iterations - len(rows))


def clock(seconds: float) -> str:
    """Seconds as `1:23` or `2:03:04`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class View(Protocol):
    """Tells the user about a run."""

    def refresh(self) -> None:
        """Show what is new in the run directory."""

    def say(self, message: str) -> None:
        """Show a message that stays."""


@dataclass
class PlainView:
    """One line per event, for logs and pipes."""

    store: Store
    evaluations: Callable[[], dict[int, float]]
    shown: int = 0
    phase: str = ""
    told: set[int] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def refresh(self) -> None:
        progress = read_progress(self.store)
        if progress is not None and progress.phase != self.phase and progress.phase in ("starting", "evaluating"):
            self.say(progress.phase)
        self.phase = progress.phase if progress else ""
        for policy, accuracy in self.evaluations().items():
            if policy not in self.told:
                self.told.add(policy)
                self.say(f"policy {policy}: held-out greedy accuracy {accuracy:.3f}")
        rows = read_metrics(self.store)
        for row in rows[self.shown :]:
            numbers = " ".join(
                f"{heading.replace(' ', '_')}={cell(row, key, form)}" for heading, key, form in COLUMNS[1:-1]
            )
            left = seconds_left(rows, progress)
            self.say(f"iteration {row['iteration']}: {numbers}" + (f" left={clock(left)}" if left is not None else ""))
        self.shown = len(rows)

    def say(self, message: str) -> None:
        print(f"[{clock(time.monotonic() - self.started)}] {message}", flush=True)


@dataclass
class LiveView:
    """A table that is redrawn in place."""

    store: Store
    evaluations: Callable[[], dict[int, float]]
    console: Console
    title: str
    live: Live = field(init=False)
    started: float = field(default_factory=time.monotonic)
    drawn_at: float = 0.0

    def __post_init__(self) -> None:
        self.live = Live(console=self.console, refresh_per_second=4, transient=False)

    def __enter__(self) -> LiveView:
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.drawn_at = 0.0
        self.refresh()
        self.live.__exit__(None, None, None)

    def refresh(self) -> None:
        if time.monotonic() - self.drawn_at < 0.5:
            return
        self.drawn_at = time.monotonic()
        progress, rows = read_progress(self.store), read_metrics(self.store)
        head = Text(self.title, style="bold")
        head.append(f"  {clock(time.monotonic() - self.started)}", style="dim")
        parts: list[Any] = [head]
        if progress is None:
            parts.append(Text("starting: the engines load", style="dim"))
        else:
            parts.append(ProgressBar(total=progress.iterations, completed=len(rows), width=60))
            status = f"iteration {progress.iteration}/{progress.iterations} · {progress.phase}"
            if progress.phase == "sampling" and progress.units_total:
                status += f" {progress.units_done}/{progress.units_total} units"
            left = seconds_left(rows, progress)
            parts.append(Text(status + (f" · {clock(left)} left" if left is not None else ""), style="dim"))
        evaluations = self.evaluations()
        if evaluations:
            history = "  ".join(f"{policy}: {accuracy:.3f}" for policy, accuracy in list(evaluations.items())[-8:])
            parts.append(Text(f"held-out greedy accuracy by policy  {history}", style="green"))
        if rows:
            parts.append(iterations_table(rows[-8:]))
        self.live.update(Group(*parts))

    def say(self, message: str) -> None:
        self.console.print(Text(message))
