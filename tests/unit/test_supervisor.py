"""What the supervisor of a local run does with its children. They are real processes, and short-lived ones."""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from empg.api.run import EMPGRun
from empg.local.child import Child, stop
from empg.local.restarts import End, RestartBudget, Role
from empg.local.supervisor import Supervisor, cores
from empg.rundir.metrics import write_metrics
from empg.rundir.progress import Progress, read_progress, write_progress
from empg.store.posix import PosixStore

RUN = EMPGRun.model_validate(
    {
        "apiVersion": "empg.dev/v1alpha1",
        "kind": "EMPGRun",
        "metadata": {"name": "small"},
        "spec": {"model": {"name": "x"}, "task": {"name": "arithmetic"}, "em": {"iterations": 9}},
    }
)


def a_run(replicas: int) -> EMPGRun:
    manifest = RUN.manifest()
    manifest["spec"]["sampler"] = {"replicas": replicas}
    return EMPGRun.model_validate(manifest)


def a_supervisor(root: Path, said: list[str], *children: Child, edits: Sequence[EMPGRun] = ()) -> Supervisor:
    left = list(edits)
    return Supervisor(
        root=root,
        store=PosixStore(root),
        run=RUN,
        reload=lambda: left.pop(0) if left else None,
        base_dir=root,
        say=said.append,
        restarts=1,
        children=list(children),
    )


def a_child(root: Path, role: Role, code: str, restarts: int = 1) -> Child:
    command = [sys.executable, "-c", code]
    return Child(role, role, command, {}, root / "logs" / f"{role}.log", RestartBudget(restarts))


def tend(supervisor: Supervisor, until: Callable[[], object] = lambda: False) -> End | None:
    """Tend the children until the run ends or `until` holds."""
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline, "it did not happen"
        if (end := supervisor.tend()) is not None:
            return end
        time.sleep(0.01)
    return None


@pytest.mark.parametrize(("gpus", "phase"), [("0", "starting"), ("0,1", "sampling"), ("", "sampling")])
def test_samplers_on_the_learner_s_gpu_wait_for_the_one_that_starts_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: str, phase: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    supervisor = a_supervisor(tmp_path, [])
    write_progress(supervisor.store, Progress(attempt=1, iteration=2, iterations=9, phase="sampling"))
    supervisor.stopping.set()
    supervisor.supervise(lambda _: None)
    said = read_progress(supervisor.store)
    assert said is not None
    assert (said.phase, said.iteration) == (phase, 2)


def test_failures_count_until_an_iteration_is_finished(tmp_path: Path) -> None:
    said: list[str] = []
    learner = a_child(tmp_path, "learner", "raise SystemExit(3)")
    supervisor = a_supervisor(tmp_path, said, learner)
    tend(supervisor, lambda: len(learner.codes) == 1)
    write_metrics(supervisor.store, 0, {"reward_mean": 0.5})
    end = tend(supervisor)
    assert end is not None
    assert end.code == 3
    assert "without a finished iteration" in end.reason
    assert learner.codes == [3, 3, 3]


def test_a_child_is_started_when_there_is_room_for_its_log(tmp_path: Path) -> None:
    said: list[str] = []
    learner = a_child(tmp_path, "learner", "")
    learner.log = Path("/dev/full")
    supervisor = a_supervisor(tmp_path, said, learner)
    tend(supervisor, lambda: said)
    assert said == ["learner can't be started: [Errno 28] No space left on device; trying again in 0.5 s"]
    learner.log = tmp_path / "learner.log"
    assert tend(supervisor) == End(0, "the run is complete")


def test_a_volume_that_stays_full_ends_the_run_to_be_gone_on_with(tmp_path: Path) -> None:
    said: list[str] = []
    learner = a_child(tmp_path, "learner", "")
    learner.log = Path("/dev/full")
    end = tend(a_supervisor(tmp_path, said, learner))
    assert end is not None
    assert end.code == 75
    assert "No space left on device" in end.reason
    assert learner.codes == []


def test_an_edit_of_replicas_starts_and_stops_samplers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said: list[str] = []
    # Real ones, which wait for a first spec.
    supervisor = a_supervisor(tmp_path, said, edits=[a_run(0), a_run(2), a_run(1)])

    def names() -> list[str]:
        return [child.name for child in supervisor.children if child.process is not None]

    def threads() -> list[int]:
        return [int(child.environment["OMP_NUM_THREADS"]) for child in supervisor.children]

    try:
        supervisor.take_edit()
        supervisor.take_edit()
        tend(supervisor, lambda: names() == ["sampler-0", "sampler-1"])
        assert threads() == [max(1, cores() // 2)] * 2
        # What a user corrects in the manifest counts at the next start, though an iteration has the old spec.
        manifests = [child.command[child.command.index("--spec") + 1] for child in supervisor.children]
        assert manifests == [str(supervisor.root / "manifest.json")] * 2
        stays, goes = supervisor.children
        supervisor.take_edit()
        again = cores() > 1
        tend(
            supervisor,
            lambda: names() == ["sampler-0"] and supervisor.children == [stays] and len(stays.codes) == again,
        )
        assert threads() == [cores()]
        assert goes.codes[0] in (75, -signal.SIGTERM)
    finally:
        stop(supervisor.children, 5.0)
    assert [line for line in said if line.startswith("samplers")] == [
        "samplers: 0 -> 0",
        "samplers: 0 -> 2",
        "samplers: 2 -> 1",
    ]


def test_an_edit_that_asks_for_more_gpus_than_there_are_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    said: list[str] = []
    supervisor = a_supervisor(tmp_path, said, edits=[a_run(2)])
    supervisor.take_edit()
    assert said == [
        "edit not taken: spec.sampler.replicas is 2, but 1 GPUs hold 1 engines of spec.sampler.tensorParallel 1; "
        "lower it or name more spec.sampler.devices"
    ]
    assert (supervisor.run, supervisor.children) == (RUN, [])
