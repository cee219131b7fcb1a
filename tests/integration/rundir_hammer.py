"""Samplers, learners and a reader on one run directory, and a killer among them.

    python rundir_hammer.py RUN_DIR KILLS

Prints what happened as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rundir_roles import LEASE, RUN, STOP, Sampler, answers, learner, reader, the_plan

from empg.rundir.final import read_final
from empg.rundir.identity import Identity, prepare
from empg.store.posix import PosixStore
from empg.trajectory import from_parquet, to_parquet


class Killer:
    """Starts processes by fork, so that starting one costs little, and ends them in various ways."""

    def __init__(self, store: PosixStore) -> None:
        self.store = store
        self.random = random.Random(0)
        self.names: dict[int, str] = {}
        self.stopped: dict[int, float] = {}
        self.happened: Counter[str] = Counter()
        self.born = 0

    def start(self, name: str, body: Callable[[], int]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(body())
            except BaseException:  # noqa: BLE001 - whatever it is, the child must end here.
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
        self.names[pid] = name
        return pid

    def sampler(self, name: str | None = None) -> None:
        if name is None:
            self.born += 1
            name = f"fast-{self.born}"
        self.start(name, lambda: Sampler(self.store, name, steps=2, wicked=True).run())

    def slow_sampler(self, name: str) -> None:
        self.start(name, lambda: Sampler(self.store, name, steps=int(2.5 * LEASE / 0.05), wicked=False).run())

    def learner(self) -> None:
        self.start("learner", lambda: learner(self.store))

    def alive(self, prefix: str) -> list[int]:
        return [pid for pid, name in self.names.items() if name.startswith(prefix) and pid not in self.stopped]

    def end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.happened["killed"] += 1
        self.reap(pid, os.waitpid(pid, 0)[1])

    def reap(self, pid: int, status: int) -> None:
        name, code = self.names.pop(pid), os.waitstatus_to_exitcode(status)
        kind = name.split("-")[0]
        self.happened[f"{kind} ended with {code}"] += 1
        if kind == "learner" and not self.alive("learner") and read_final(self.store) is None:
            self.learner()

    def reap_all(self) -> None:
        while self.names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self.reap(pid, status)

    def wake(self, after: float) -> None:
        for pid, since in list(self.stopped.items()):
            if time.monotonic() - since >= after:
                os.kill(pid, signal.SIGCONT)
                del self.stopped[pid]

    def disturb(self) -> None:
        event = self.random.random()
        fast, learners = self.alive("fast"), self.alive("learner")
        if event < 0.85 and fast:
            pid = self.random.choice(fast)
            name = self.names[pid]
            self.end(pid)
            self.sampler(name if self.random.random() < 0.5 else None)
        elif event < 0.91 and learners:
            self.end(self.random.choice(learners))
        elif event < 0.93:
            self.learner()  # A second one takes over.
        elif event < 0.95 and learners:
            self.stop(self.random.choice(learners))
            self.learner()
        elif fast:
            self.stop(self.random.choice(fast))

    def stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.stopped[pid] = time.monotonic()
        self.happened["stopped"] += 1

    def run(self, kills: int, seconds: float) -> dict[str, int]:
        deadline = time.monotonic() + seconds
        self.start("reader", lambda: reader(self.store))
        self.learner()
        for number in range(2):
            self.slow_sampler(f"slow-{number}")
        for _ in range(8):
            self.sampler()
        while self.happened["killed"] < kills and time.monotonic() < deadline:
            time.sleep(self.random.uniform(0.02, 0.2))
            self.reap_all()
            self.wake(1.5 * LEASE)
            self.disturb()
        self.store.create(STOP, b"")
        self.wake(0)
        while self.names and time.monotonic() < deadline:
            self.reap_all()
            time.sleep(0.02)
        for pid in list(self.names):
            self.happened[f"{self.names.pop(pid)} was left over"] += 1
            os.kill(pid, signal.SIGKILL)
        return dict(self.happened)


def main() -> None:
    store = PosixStore(Path(sys.argv[1]))
    prepare(store, Identity(uid=RUN, name="hammer", spec_digest=""))
    # The first use imports pandas; do that once, and not in every child.
    from_parquet(to_parquet(answers(the_plan(0), "00-0000")))
    print(json.dumps(Killer(store).run(int(sys.argv[2]), seconds=150)))


if __name__ == "__main__":
    main()
