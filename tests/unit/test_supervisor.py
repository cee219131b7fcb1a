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
