"""The pool of grading processes: limits, lost workers, order and totals, and what a worker gets from its parent."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Hashable, Iterator
from pathlib import Path

import pytest
from grading_processes import eventually, running, workers

from empg.api.task import GraderSpec
from empg.grading import GradePool, process
from empg.grading.process import WorkerLost
from empg.verdict import Grade, Verdict

TIMEOUT = 0.6


def function(name: str = "act", workers: int = 1, memory_mib: int = 512) -> GraderSpec:
    return GraderSpec(
        name="function",
        function=f"grading_functions:{name}",
        timeout_seconds=TIMEOUT,
        workers=workers,
        memory_mib=memory_mib,
    )


def collect(pool: GradePool, seconds: float = 60) -> dict[Hashable, Grade]:
    """All pending grades; every key must come back once."""
    found: dict[Hashable, Grade] = {}
    deadline = time.monotonic() + seconds
    while pool.pending:
        assert time.monotonic() < deadline, f"{pool.pending} answers were not graded"
        for key, grade in pool.poll(0.2):
            assert key not in found
            found[key] = grade
    return found


def one(pool: GradePool, text: str, gold: str = "") -> Grade:
    pool.submit("one", text, gold)
    return collect(pool)["one"]


@pytest.fixture(scope="module")
def pool() -> Iterator[GradePool]:
    with GradePool(function(), "dataset") as pool:
        yield pool


def test_grades_come_back_whole(pool: GradePool) -> None:
    assert one(pool, "reward", "0.25") == Grade(Verdict.CORRECT, 0.25, {"function": 0.25})
    assert one(pool, "none") == Grade(Verdict.UNPARSEABLE, 0.0, {"function": 0.0})


def test_overrun_is_a_timeout_and_the_pool_goes_on(pool: GradePool) -> None:
    start = time.monotonic()
    grade = one(pool, "sleep", "60")
    assert (grade.verdict, grade.detail) == (Verdict.TIMEOUT, "time")
    assert math.isnan(grade.reward)
    assert TIMEOUT <= time.monotonic() - start < 15
    assert one(pool, "reward", "1").verdict == Verdict.CORRECT


@pytest.mark.parametrize("text", ["hoard", "hide memory error"])
def test_memory_limit_is_a_timeout_and_the_pool_goes_on(pool: GradePool, text: str) -> None:
    grade = one(pool, text)
    assert (grade.verdict, grade.detail) == (Verdict.TIMEOUT, "memory")
    assert math.isnan(grade.reward)
    assert one(pool, "reward", "1").verdict == Verdict.CORRECT


@pytest.mark.parametrize(
    ("text", "gold", "detail"),
    [
        ("kill", "SIGKILL", "the worker was killed by SIGKILL"),
        ("kill", "SIGSEGV", "the worker was killed by SIGSEGV"),
        ("exit", "3", "the worker ended with exit code 3"),
        ("raise", "18", "KeyError: '18'"),
        ("reward", "nan", "ValueError: grading_functions:act returned nan; a reward must be finite"),
        ("text", "", "TypeError: grading_functions:act returned str; it must return float or None"),
    ],
)
def test_failed_grader_is_an_error_and_the_pool_goes_on(pool: GradePool, text: str, gold: str, detail: str) -> None:
    grade = one(pool, text, gold)
    assert (grade.verdict, grade.detail) == (Verdict.ERROR, detail)
    assert math.isnan(grade.reward)
    assert one(pool, "reward", "1").verdict == Verdict.CORRECT


def test_worker_killed_from_outside_amid_an_answer(tmp_path: Path) -> None:
    spec = function().model_copy(update={"timeout_seconds": 30.0})
    with GradePool(spec, "dataset") as pool:
        pool.submit("victim", "announce", str(tmp_path / "pid"))
        pool.submit("next", "reward", "1")
        eventually((tmp_path / "pid").exists)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        grades = collect(pool)
    assert (grades["victim"].verdict, grades["victim"].detail) == (Verdict.ERROR, "the worker was killed by SIGKILL")
    assert grades["next"].verdict == Verdict.CORRECT


def test_kill_reaches_processes_that_a_function_has_started(pool: GradePool, tmp_path: Path) -> None:
    assert one(pool, "spawn", str(tmp_path / "pid")).verdict == Verdict.TIMEOUT
    started = int((tmp_path / "pid").read_text())
    eventually(lambda: not running(started))


def test_clock_starts_with_the_grading_not_in_the_queue(pool: GradePool) -> None:
    for index in range(6):
        pool.submit(index, "sleep", str(TIMEOUT / 2))  # the last waits for five times its limit
    assert {grade.verdict for grade in collect(pool).values()} == {Verdict.CORRECT}


def test_order_and_totals_under_load() -> None:
    kinds = {
        0: ("reward", "1", Verdict.CORRECT),
        1: ("reward", "0", Verdict.WRONG),
        2: ("none", "", Verdict.UNPARSEABLE),
        3: ("raise", "18", Verdict.ERROR),
    }
    expected: dict[Hashable, Verdict] = {}
    with GradePool(function(workers=3), "dataset") as pool:
        for index in range(600):
            text, gold, verdict = ("kill", "SIGKILL", Verdict.ERROR) if index % 200 == 50 else kinds[index % 4]
            pool.submit(index, text, gold)
            expected[index] = verdict
        assert pool.pending == 600
        assert {key: grade.verdict for key, grade in collect(pool).items()} == expected
        assert pool.pending == 0


def test_one_worker_keeps_the_order(pool: GradePool) -> None:
    for index in range(50):
        pool.submit(index, "reward", str(index))
    grades = collect(pool)
    assert list(grades) == list(range(50))
    assert [grade.reward for grade in grades.values()] == list(range(50))


def test_poll_waits_no_longer_than_asked(pool: GradePool) -> None:
    start = time.monotonic()
    assert pool.poll(10) == []  # nothing is pending
    assert time.monotonic() - start < 1
    pool.submit("slow", "sleep", str(TIMEOUT * 0.8))
    start = time.monotonic()
    assert pool.poll() == []
    assert time.monotonic() - start < 0.2
    start = time.monotonic()
    assert pool.poll(0.1) == []
    assert 0.1 <= time.monotonic() - start < 0.4
    collect(pool)


def test_overrun_is_cut_short_without_a_poll(tmp_path: Path) -> None:
    with GradePool(function(), "dataset") as pool:
        pool.submit("hangs", "announce", str(tmp_path / "pid"))
        eventually((tmp_path / "pid").exists)
        hung = int((tmp_path / "pid").read_text())
        eventually(lambda: not running(hung))
        assert collect(pool)["hangs"].verdict == Verdict.TIMEOUT


def test_workers_load_neither_engines_nor_other_graders() -> None:
    with GradePool(function("heavy_modules"), "dataset") as pool:
        assert one(pool, "").reward == 0


def test_workers_get_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    monkeypatch.setenv("VLLM_USE_V1", "1")
    monkeypatch.setenv("GRADER_SETTING", "kept")
    with GradePool(function("environment"), "dataset") as pool:
        assert one(pool, "CUDA_VISIBLE_DEVICES", "").verdict == Verdict.CORRECT
        assert one(pool, "OMP_NUM_THREADS", "1").verdict == Verdict.CORRECT
        assert one(pool, "OMP_PROC_BIND", "").verdict == Verdict.CORRECT
        assert one(pool, "VLLM_USE_V1", "").verdict == Verdict.CORRECT
        assert one(pool, "GRADER_SETTING", "kept").verdict == Verdict.CORRECT


def test_what_a_function_prints_stays_off_standard_output(pool: GradePool, capfd: pytest.CaptureFixture[str]) -> None:
    assert one(pool, "print", "chatter").verdict == Verdict.CORRECT
    assert capfd.readouterr().out == ""


def test_close_ends_workers_amid_an_answer(tmp_path: Path) -> None:
    others = workers(os.getpid())
    with GradePool(function(workers=2).model_copy(update={"timeout_seconds": 600.0}), "dataset") as pool:
        for index in range(4):
            pool.submit(index, "announce", str(tmp_path / f"pid{index}"))
        eventually(lambda: len(list(tmp_path.glob("pid?"))) == 2)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    assert workers(os.getpid()) == others
    assert pool.pending == 4
    with pytest.raises(AssertionError, match="closed pool"):
        pool.submit("late", "reward", "1")


def test_function_that_is_none_is_refused() -> None:
    spec = GraderSpec(name="function", function="grading_functions:no_such")
    with GradePool(spec, "dataset") as pool:
        pool.submit("x", "", "")
        with pytest.raises(ValueError, match="grading_functions:no_such can't be imported"):
            collect(pool)
        with pytest.raises(ValueError, match="grading_functions:no_such can't be imported"):
            pool.poll()


def test_worker_that_does_not_start_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grading_broken.py").write_text("raise SystemExit(9)")
    monkeypatch.syspath_prepend(tmp_path)
    with GradePool(GraderSpec(name="function", function="grading_broken:f", workers=1), "dataset") as pool:
        pool.submit("x", "", "")
        with pytest.raises(WorkerLost, match="while it loaded the grader, the worker ended with exit code 9"):
            collect(pool)


def test_pool_without_a_grader_is_refused() -> None:
    with pytest.raises(ValueError, match=r"task\.grader\.name is required"):
        GradePool(GraderSpec(), "dataset")


def test_killed_program_leaves_no_worker(tmp_path: Path) -> None:
    program = (
        "import sys, time; from empg.grading import GradePool; from empg.api.task import GraderSpec\n"
        "spec = GraderSpec(name='function', function='grading_functions:act', timeout_seconds=600, workers=2)\n"
        "pool = GradePool(spec, 'dataset')\n"
        f"pool.submit('hangs', 'announce', {str(tmp_path / 'pid')!r})\n"
        "time.sleep(600)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as parent:
        eventually(lambda: (tmp_path / "pid").exists() and len(workers(parent.pid)) == 2)
        orphans = workers(parent.pid)
        parent.kill()
    assert int((tmp_path / "pid").read_text()) in orphans
    eventually(lambda: not any(running(pid) for pid in orphans), seconds=5)


def test_a_worker_that_does_not_end_when_it_is_killed_costs_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in a system call that can't be interrupted: here there is no time for its end at all."""
    monkeypatch.setattr(process, "EXIT_SECONDS", 0.0)
    with GradePool(function(), "dataset") as pool:
        assert one(pool, "sleep", "60").verdict == Verdict.TIMEOUT
        assert one(pool, "reward", "0.25").reward == 0.25
