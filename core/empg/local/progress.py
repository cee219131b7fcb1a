"""What the user sees of a run: numbers read from the run directory, told as a live table or as plain lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from empg.local.watch import Row, Watch

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("iter", "iteration", "d"),
    ("reward", "reward_mean", ".3f"),
    ("acc", "accuracy", ".3f"),
    ("entropy", "entropy", ".3f"),
    ("KL", "kl_behaviour", ".1e"),
    ("grad", "grad_norm", ".2f"),
    ("len", "response_length_mean", ".0f"),
    ("tok/s", "tokens_per_second", ".0f"),
    ("E-s", "seconds_sampling", ".2f"),
    ("M-s", "seconds_learning", ".2f"),
    ("stale", "staleness_max", ".0f"),
)
"""Heading, key of the metrics record, format. E-s and M-s: seconds of the E- and M-step. 80 characters hold a row."""


def cell(row: Row, key: str, form: str) -> str:
    """One number as text; empty when the record has none."""
    value = row.get(key)
    return "" if value is None else format(value, form)


def iterations_table(rows: Sequence[Row], accuracies: Mapping[int, float]) -> Table:
    """The table of iterations of `empg show` and of the live view; `eval` is of the policy that sampled."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("eval", justify="right", no_wrap=True)
    for row in rows:
        accuracy = accuracies.get(row["iteration"])
        cells = [cell(row, key, form) for _, key, form in COLUMNS]
        table.add_row(*cells, "" if accuracy is None else f"{accuracy:.3f}")
    return table


class View(Protocol):
    """Tells the user about a run."""

    def refresh(self, at_once: bool = False) -> None:
        """Show what is new; only every now and then unless `at_once`."""

    def say(self, message: str) -> None:
        """Show a message that stays."""


@dataclass
class PlainView:
    """One line per event, for logs and pipes."""

    watch: Watch
    shown: int = 0
    phase: str = ""
    told: set[int] = field(default_factory=set)

    def refresh(self, at_once: bool = False) -> None:
        """Print a line for each new iteration and evaluation."""
        watch = self.watch
        if not watch.look(at_once):
            return
        phase = watch.progress.phase if watch.progress else ""
        if phase != self.phase and phase in ("starting", "evaluating"):
            self.say(phase)
        self.phase = phase
        for row in watch.rows[self.shown :]:
            numbers = " ".join(f"{heading}={cell(row, key, form)}" for heading, key, form in COLUMNS[1:])
            self.say(f"iteration {row['iteration']}: {numbers} left={watch.left}")
        self.shown = len(watch.rows)
        for policy, accuracy in watch.accuracies.items():
            if policy not in self.told:
                self.told.add(policy)
                self.say(f"policy {policy}: held-out greedy accuracy {accuracy:.3f}")

    def say(self, message: str) -> None:
        """Print a line with the time since the start."""
        print(f"[{self.watch.elapsed}] {message}", flush=True)


class LiveView:
    """A table that is redrawn in place while the view is entered."""

    def __init__(self, watch: Watch, console: Console, title: str) -> None:
        self.watch = watch
        self.console = console
        self.title = title
        self.live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh(at_once=True)
        self.live.__exit__(None, None, None)

    def refresh(self, at_once: bool = False) -> None:
        """Draw the state of the run."""
        if self.watch.look(at_once):
            self.live.update(Group(*self._parts()), refresh=True)

    def say(self, message: str) -> None:
        """Print a message above the table."""
        self.console.print(Text(message))

    def _parts(self) -> Iterator[RenderableType]:
        watch, progress = self.watch, self.watch.progress
        yield Text.assemble((self.title, "bold"), (f"  {watch.elapsed}", "dim"))
        if progress is None:
            yield Text("starting: the engines load", style="dim")
            return
        # A bar by itself ends no line.
        yield Padding(ProgressBar(total=progress.iterations, completed=len(watch.rows), width=60), 0)
        status = f"iteration {progress.iteration}/{progress.iterations} · {progress.phase}"
        if progress.phase == "sampling" and progress.units_total:
            status += f" {progress.units_done}/{progress.units_total} units"
        yield Text(status + (f" · {watch.left} left" if watch.left else ""), style="dim")
        if watch.accuracies:
            history = "  ".join(f"{policy}: {value:.3f}" for policy, value in list(watch.accuracies.items())[-8:])
            yield Text(f"held-out greedy accuracy by policy  {history}", style="green")
        if watch.rows:
            yield iterations_table(watch.rows[-8:], watch.accuracies)
