"""A sampler on a volume without room: nothing is lost, and it goes on when there is room."""

import signal
import subprocess
from pathlib import Path

import pytest
from sampler_runs import a_plan, launcher, new_run, until

from empg.exit_codes import RETRY
from empg.rundir.claims import survey
from empg.rundir.heartbeat import Liveness
from empg.rundir.plans import create_plan
from empg.store.base import StorageFull
from empg.store.posix import PosixStore

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path: Path):
    volume = tmp_path / "run"
    volume.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(volume)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield volume
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)


def fill(store: PosixStore) -> list[str]:
    """Leave no room at all; the keys that take it."""
    taken = []
    for size in (1 << 18, 1 << 14, 1 << 12):
        while True:
            try:
                store.put(f"ballast/{len(taken)}", b"x" * size)
            except StorageFull:
                break
            taken.append(f"ballast/{len(taken)}")
    return taken


def test_units_are_claimed_and_committed_when_there_is_room(root: Path) -> None:
    store, plan = new_run(root), a_plan(2)
    create_plan(store, plan)
    ballast = fill(store)
    with launcher() as launch:
        sampler = launch(store, "a")
        until(lambda: "no unit is claimed until there is room" in sampler.log.read_text(), sampler)
        assert store.list("rollout/000000/claims") == []
        for key in ballast:
            store.delete(key)

        def committed() -> bool:
            found = survey(store, [plan], Liveness(60)).values()
            return all(status.state == "committed" and status.attempt == 0 for status in found)

        until(committed, sampler)
        assert sampler.stop(signal.SIGTERM, 30)[0] == RETRY
