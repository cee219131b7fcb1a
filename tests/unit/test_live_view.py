"""The live table of `empg run`, drawn on a terminal that is a string."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text
from rundir_samples import a_plan, new_run

from empg.local.progress import LiveView
from empg.local.watch import Watch
from empg.rundir.evaluations import EvaluationResult, write_result
from empg.rundir.metrics import write_metrics
from empg.rundir.plans import create_plan
from empg.rundir.progress import Phase, Progress, write_progress
from empg.store.posix import PosixStore


def shown(store: PosixStore, *said: str) -> str:
    """What stands on the terminal when the view is left."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40)
    with LiveView(Watch(store), console, title="EMPGRun small") as view:
        for message in said:
            view.say(message)
    assert isinstance(console.file, io.StringIO)
    return Text.from_ansi(console.file.getvalue()).plain


def at(store: PosixStore, phase: Phase, iteration: int, units: tuple[int, int] = (0, 0)) -> None:
    done, total = units
    write_progress(
        store,
        Progress(attempt=1, iteration=iteration, iterations=5, phase=phase, units_done=done, units_total=total),
    )


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    return new_run(tmp_path)


def test_before_the_learner_has_said_anything_the_engines_load(store: PosixStore) -> None:
    text = shown(store)
    assert "EMPGRun small" in text
    assert "starting: the engines load" in text


def test_phase_units_and_time_left_are_shown(store: PosixStore) -> None:
    for iteration, seconds in enumerate((50.0, 70.0, 60.0)):
        write_metrics(store, iteration, {"seconds_total": seconds})
    at(store, "sampling", 3, (7, 16))
    assert "iteration 3/5 · sampling 7/16 units · 2:00 left" in map(str.strip, shown(store).splitlines())
    at(store, "learning", 3)
    assert "iteration 3/5 · learning · 2:00 left" in map(str.strip, shown(store).splitlines())


def test_figures_stand_below_their_headings(store: PosixStore) -> None:
    figures = {"reward_mean": 0.625, "accuracy": 0.375, "kl_behaviour": 2.5e-3, "tokens_per_second": 1234.4}
    write_metrics(store, 0, {})
    write_metrics(store, 1, figures)
    create_plan(store, a_plan(kind="eval", iteration=1, min_policy=1, max_policy=1))
    write_result(store, EvaluationResult(policy=1, greedy=0.875, prompts=4))
    at(store, "publishing", 1)
    text = shown(store)
    lines = text.splitlines()
    number = max(number for number, line in enumerate(lines) if line.split()[:2] == ["iter", "reward"])
    head, row = lines[number], lines[number + 2]
    assert row.split()[0] == "1"
    for heading, cell in (
        ("reward", "0.625"),
        ("acc", "0.375"),
        ("KL", "2.5e-03"),
        ("tok/s", "1234"),
        ("eval", "0.875"),
    ):
        end = head.index(f" {heading}") + len(heading) + 1
        assert row[:end].endswith(f" {cell}"), (heading, head, row)
    assert "held-out greedy accuracy by policy  1: 0.875" in text


def test_messages_stay_above_the_table(store: PosixStore) -> None:
    write_metrics(store, 0, {})
    at(store, "learning", 1)
    text = shown(store, "sampler-0 ended (exit code 1); starting it again")
    assert text.index("starting it again") < text.rindex("iter")
