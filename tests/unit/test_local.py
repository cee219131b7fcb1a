"""The local supervisor's pure decisions, and its children."""

import io
import signal
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from empg.api.run import RunSpec
from empg.exit_codes import DIVERGED, OK, RETRY, SPEC
from empg.local.child import Child, stop
from empg.local.progress import COLUMNS, iterations_table
from empg.local.resources import share_out
from empg.local.restarts import End, Leave, RestartBudget, Start, after_exit
from empg.local.watch import clock


def spec(**sections: object) -> RunSpec:
    document = {"model": {"name": "x"}, "task": {"name": "arithmetic"}, "em": {"iterations": 1}}
    for name, value in sections.items():
        document[name] = {**document.get(name, {}), **value}  # type: ignore[dict-item]
    return RunSpec.model_validate(document)


@pytest.mark.parametrize(
    ("role", "code", "expected"),
    [
        ("learner", OK, End(OK, "the run is complete")),
        ("sampler", OK, Leave()),
        ("sampler", SPEC, End(SPEC, "it can't use the manifest")),
        ("learner", DIVERGED, End(DIVERGED, "it stopped the run: training diverged")),
        ("learner", RETRY, Start(0.0)),
        ("learner", -9, Start(0.5)),
        ("sampler", 1, Start(0.5)),
    ],
)
def test_what_follows_an_exit(role: str, code: int, expected: object) -> None:
    assert after_exit(role, "it", code, RestartBudget(), -1) == expected  # type: ignore[arg-type]


def test_delays_double_and_the_budget_ends_the_run_with_the_last_code() -> None:
    budget = RestartBudget(budget=3)
    delays = [after_exit("sampler", "it", 1, budget, -1) for _ in range(3)]
    assert delays == [Start(0.5), Start(1.0), Start(2.0)]
    reason = "it ended 4 times without a finished iteration between, last with signal 11"
    assert after_exit("sampler", "it", -11, budget, -1) == End(139, reason)


def test_failures_are_forgiven_when_an_iteration_is_finished() -> None:
    budget = RestartBudget(budget=1)
    for newest in (3, 4, 7):
        assert after_exit("learner", "it", 1, budget, newest) == Start(0.5)
    assert isinstance(after_exit("learner", "it", 1, budget, 7), End)


def test_a_learner_that_gives_up_again_and_again_ends_the_run() -> None:
    budget = RestartBudget(budget=2)
    ends = [after_exit("learner", "it", RETRY, budget, 5) for _ in range(3)]
    assert ends[:2] == [Start(0.0)] * 2
    assert isinstance(ends[2], End)
    assert ends[2].code == RETRY


def test_a_sampler_may_start_anew_as_often_as_it_likes() -> None:
    budget = RestartBudget(budget=0)
    codes = (RETRY, -signal.SIGTERM, RETRY)
    assert [after_exit("sampler", "it", code, budget, -1) for code in codes] == [Start(0.0)] * 3
    assert isinstance(after_exit("sampler", "it", 1, budget, -1), End)


def test_the_longest_delay_holds_however_many_failures_are_allowed() -> None:
    budget = RestartBudget(budget=5000)
    delays = [budget.charge(-1) for _ in range(3000)]
    assert delays[6:] == [30.0] * 2994


def test_cores_are_shared_in_turns_or_split() -> None:
    turns = share_out(spec(), 8, ())
    assert (turns.learner.threads, turns.samplers[0].threads) == (8, 8)
    together = share_out(spec(em={"iterations": 1, "maxStaleness": 1}, sampler={"replicas": 2}), 8, ())
    assert (together.learner.threads, [s.threads for s in together.samplers]) == (4, [2, 2])
    ranks = share_out(spec(learner={"processes": 2}), 2, ())
    assert ranks.learner.threads == 1


def test_gpus_go_to_the_learner_first_and_the_rest_to_samplers() -> None:
    shares = share_out(spec(sampler={"replicas": 3}, learner={"processes": 1}), 8, (0, 1, 2, 3))
    assert shares.learner.devices == (0,)
    assert [s.devices for s in shares.samplers] == [(1,), (2,), (3,)]
    assert not shares.gpu_is_shared
    wide = share_out(spec(sampler={"replicas": 1, "tensorParallel": 2, "devices": [2, 3]}), 8, (0, 1, 2, 3))
    assert wide.samplers[0].devices == (2, 3)


def test_one_gpu_is_shared_in_turns() -> None:
    shares = share_out(spec(), 8, (0,))
    assert shares.samplers[0].devices == shares.learner.devices == (0,)
    assert shares.gpu_is_shared
    assert shares.learner.environment(True) == {
        "OMP_NUM_THREADS": "8",
        "OMP_WAIT_POLICY": "PASSIVE",
        "CUDA_VISIBLE_DEVICES": "0",
    }


@pytest.mark.parametrize(
    ("sections", "gpus", "said"),
    [
        ({"sampler": {"replicas": 4}}, (0, 1), "spec.sampler.replicas is 4"),
        ({"learner": {"devices": [5]}}, (0,), "spec.learner.devices names GPU 5"),
        ({"learner": {"processes": 3}}, (0, 1), "3 GPUs are needed"),
        ({"sampler": {"devices": [0]}}, (), "this machine shows none"),
    ],
)
def test_gpus_that_are_not_there_are_named(sections: dict[str, object], gpus: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        share_out(spec(**sections), 8, gpus)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3725, "1:02:05")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def child(tmp_path: Path, code: str) -> Child:
    return Child(
        "it", "sampler", [sys.executable, "-c", code], {"X": "7"}, tmp_path / "logs" / "it.log", RestartBudget()
    )


def test_a_child_logs_and_reports_its_exit_code_once(tmp_path: Path) -> None:
    it = child(tmp_path, "import os, sys; print('says', os.environ['X']); sys.exit(75)")
    it.start()
    assert it.process is not None
    it.process.wait(30)
    assert it.exited() == 75
    assert it.exited() is None
    assert it.last_lines().endswith("says 7")


TREE = """
import pathlib, signal, subprocess, sys, time
place, stubborn = pathlib.Path(sys.argv[1]), sys.argv[2:] == ["stubborn"]
code = "for line in sys.stdin: print('worked', flush=True)"
helper = subprocess.Popen([sys.executable, "-c", f"import sys\\n{code}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

def work():
    helper.stdin.write(b"work\\n")
    helper.stdin.flush()
    return helper.stdout.readline() == b"worked\\n"

def leave(*_):
    if not stubborn:
        raise SystemExit(75 if work() else 1)

assert work()
signal.signal(signal.SIGTERM, leave)
(place / "helper.new").write_text(str(helper.pid))
(place / "helper.new").rename(place / "helper")
while True:
    time.sleep(60)
"""
"""A program that ends in order only with the help of a process that it started, or that does not end when asked."""


def tree(place: Path, *arguments: str) -> tuple[Child, int]:
    """The running program, and its helper's process id."""
    it = child(place, TREE)
    it.command = [*it.command, str(place), *arguments]
    it.start()
    deadline = time.monotonic() + 30
    while not (place / "helper").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return it, int((place / "helper").read_text())


def test_stop_asks_the_program_alone(tmp_path: Path) -> None:
    it, _ = tree(tmp_path)
    stop([it], grace_seconds=30)
    assert it.codes == [75]


def test_stop_kills_the_program_and_what_it_started_after_the_grace_period(tmp_path: Path) -> None:
    it, helper = tree(tmp_path, "stubborn")
    stop([it], grace_seconds=0.2)
    assert it.codes == [-signal.SIGKILL]
    deadline = time.monotonic() + 30
    while lives(helper) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not lives(helper)


def lives(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    row = dict.fromkeys((key for _, key, _ in COLUMNS), 12345.678) | {"iteration": 9999, "kl_behaviour": -1.5e-08}
    row |= dict.fromkeys(("reward_mean", "accuracy", "entropy", "seconds_sampling", "seconds_learning"), 0.123)
    row |= {"grad_norm": 10.5, "response_length_mean": 4096.0, "staleness_max": 3}
    console = Console(width=80, file=io.StringIO())
    console.print(iterations_table([row], {9999: 0.5}))
    assert isinstance(console.file, io.StringIO)
    head, line = console.file.getvalue().splitlines()
    assert head.split() == [heading for heading, _, _ in COLUMNS] + ["eval"]
    assert line.split()[0] == "9999"
    assert line.split()[-1] == "0.500"
    assert "…" not in head + line
