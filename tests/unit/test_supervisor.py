"""What the supervisor of a local run does with its children. They are real processes, and short-lived ones."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from empg.api.run import EMPGRun
from empg.local.child import Child
from empg.local.restarts import End, RestartBudget, Role
from empg.local.supervisor import Supervisor
from empg.rundir.metrics import write_metrics
from empg.store.posix import PosixStore

RUN = EMPGRun.model_validate(
    {
        "apiVersion": "empg.dev/v1alpha1",
        "kind": "EMPGRun",
        "metadata": {"name": "small"},
        "spec": {"model": {"name": "x"}, "task": {"name": "arithmetic"}, "em": {"iterations": 9}},
    }
)


def a_supervisor(root: Path, said: list[str], *children: Child) -> Supervisor:
    return Supervisor(
        root=root,
        store=PosixStore(root),
        run=RUN,
        reload=lambda: None,
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
