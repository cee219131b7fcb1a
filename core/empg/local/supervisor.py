"""The loop of `empg run`: keep learner and samplers running, take live edits, end when the run ends.

`sampler.rollStrategy` is a cluster's: here samplers load policies in place, and where they share the learner's GPU they
sleep while it trains, which is the same as `Alternate` without starting anybody anew.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from empg.api.run import EMPGRun, RunSpec
from empg.exit_codes import RETRY
from empg.local.child import Child, program, stop
from empg.local.prepare import refused_edit, write_manifest
from empg.local.resources import Shares, share_out
from empg.local.restarts import End, Leave, RestartBudget, Role, after_exit
from empg.rundir import keys
from empg.rundir.metrics import newest_iteration
from empg.rundir.progress import read_progress, write_progress
from empg.store.base import Store, StoreError

POLL_SECONDS = 0.2
GRACE_SECONDS = 15.0


@dataclass
class Supervisor:
    """Children of one local run and what became of them."""

    root: Path
    store: Store
    run: EMPGRun
    reload: Callable[[], EMPGRun | None]
    """Reads the user's manifest again when it changed; None when it did not."""
    base_dir: Path
    """Directory that relative paths of the manifest are relative to."""
    say: Callable[[str], None]
    """Tells the user something, once."""
    restarts: int
    stopping: threading.Event = field(default_factory=threading.Event)
    children: list[Child] = field(default_factory=list)
    _started: RunSpec = field(init=False)
    """The spec that the shares of the children come from: as it was at the start, but for `sampler.replicas`."""
    _sleep: bool = field(init=False)
    """Whether the children were told to take turns on a GPU."""

    def __post_init__(self) -> None:
        """ValueError when the spec asks for GPUs that are not there."""
        self._started = self.run.spec
        self._sleep = self._shares(self._started.sampler.replicas).gpu_is_shared

    def supervise(self, refresh: Callable[[bool], None]) -> int:
        """Run to the end; `refresh(at_once)` draws the progress. Returns the exit code of the run.

        SIGINT and SIGTERM stop the children in order; the run goes on when it is started again.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stopping.set())
        shares = self._shares(self._started.sampler.replicas)
        if self._sleep and (last := read_progress(self.store)) is not None:
            # Of a learner that is gone; samplers on its GPU wait until the next one has started.
            write_progress(self.store, last.model_copy(update={"phase": "starting"}))
        self.children = [self._learner(shares), *(self._sampler(shares, i) for i in range(len(shares.samplers)))]
        try:
            while not self.stopping.is_set():
                end = self.tend()
                refresh(False)
                if end is not None:
                    if end.code:
                        self.say(end.reason)
                    return end.code
                self.take_edit()
                self.stopping.wait(POLL_SECONDS)
            self.say("stopping; the same command goes on from here")
            return RETRY
        finally:
            stop(self.children, GRACE_SECONDS)
            refresh(True)

    def tend(self) -> End | None:
        """Start what is due, and decide about what has ended."""
        now = time.monotonic()
        for child in list(self.children):
            code = child.exited()
            if child.retired and child.process is None:
                self.children.remove(child)
                continue
            if code is not None:
                decision = after_exit(child.role, child.name, code, child.budget, newest_iteration(self.store))
                if isinstance(decision, End):
                    if decision.code:
                        self.say(f"last lines of {child.log}:\n{child.last_lines()}")
                    return decision
                if isinstance(decision, Leave):
                    child.finished = True
                else:
                    self.say(f"{child.name} ended ({describe(code)}); starting it again")
                    child.start_at = now + decision.delay
            if child.process is None and not child.finished and now >= child.start_at:
                try:
                    child.start()
                except OSError as error:  # as on a full volume, where its log is
                    delay = child.budget.charge(newest_iteration(self.store))
                    if delay is None:
                        return End(RETRY, f"{child.name} can't be started: {error}; the same command goes on from here")
                    self.say(f"{child.name} can't be started: {error}; trying again in {delay:g} s")
                    child.start_at = now + delay
        return None

    def take_edit(self) -> None:
        """Hand a changed manifest on, unless it is invalid or touches an immutable field."""
        try:
            new = self.reload()
        except (ValueError, OSError) as error:
            self.say(f"edit not taken:\n{error}")
            return
        if new is None or new == self.run:
            return
        refusal = refused_edit(self.run, new)
        if refusal:
            self.say(f"edit not taken: {refusal}")
            return
        replicas = new.spec.sampler.replicas
        try:
            shares = self._shares(replicas)
            if shares.gpu_is_shared and not self._sleep:
                raise ValueError(
                    f"spec.sampler.replicas: {replicas} need the learner's GPU too; stop the run, and start it again"
                )
            write_manifest(self.store, new)
        except StoreError as error:
            self.say(f"edit not taken: {error}; save the manifest again then")
            return
        except ValueError as error:
            self.say(f"edit not taken: {error}")
            return
        self.run = new
        self.say("edit taken; live fields change at the next unplanned iteration, the others at the next start")
        if replicas != self._started.sampler.replicas:
            self._started = _with_replicas(self._started, replicas)
            self._resize(shares)

    def _shares(self, replicas: int) -> Shares:
        """The shares with so many samplers. ValueError where there is no room for them."""
        return share_out(_with_replicas(self._started, replicas), cores(), gpus())

    def _resize(self, shares: Shares) -> None:
        """Start the samplers that are missing, and ask those to stop that are too many.

        Where engines compute on the cores, those that stay start anew with their new share of these.
        """
        samplers = [child for child in self.children if child.role == "sampler"]
        self.say(f"samplers: {sum(not child.retired for child in samplers)} -> {len(shares.samplers)}")
        found = {child.name for child in samplers}
        wanted = [self._sampler(shares, index) for index in range(len(shares.samplers))]
        environments = {child.name: child.environment for child in wanted}
        for child in samplers:
            child.retired = child.name not in environments
            environment = environments.get(child.name, child.environment)
            if child.retired or (child.environment != environment and not gpus()):
                child.terminate()
            child.environment = environment
        self.children += [child for child in wanted if child.name not in found]

    def _learner(self, shares: Shares) -> Child:
        command = program("empg_trainer.main", str(self.root), "--base-dir", str(self.base_dir))
        if self._sleep:
            command.append("--samplers-sleep")
        return self._child("learner", "learner", command, shares.learner.environment(bool(gpus())))

    def _sampler(self, shares: Shares, index: int) -> Child:
        name = f"sampler-{index}"
        manifest = str(self.root / keys.MANIFEST)  # what is wrong in it can be corrected there
        command = program("empg_sampler.main", str(self.root), "--id", name, "--spec", manifest)
        port = self.run.spec.sampler.metrics_port
        if port:
            command += ["--metrics-port", str(port + index)]
        if self._sleep:
            command.append("--sleep-while-learning")
        return self._child(name, "sampler", command, shares.samplers[index].environment(bool(gpus())))

    def _child(self, name: str, role: Role, command: list[str], environment: dict[str, str]) -> Child:
        return Child(
            name=name,
            role=role,
            command=command,
            environment=environment,
            log=self.root / "logs" / f"{name}.log",
            budget=RestartBudget(self.restarts),
        )


def _with_replicas(spec: RunSpec, replicas: int) -> RunSpec:
    return spec.model_copy(update={"sampler": spec.sampler.model_copy(update={"replicas": replicas})})


def describe(code: int) -> str:
    """An exit code in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def gpus(devices: Path = Path("/dev")) -> tuple[int, ...]:
    """Indices of the NVIDIA GPUs of this machine, as CUDA_VISIBLE_DEVICES limits them; no CUDA library is loaded.

    ValueError when that names them otherwise than by index.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        # In a container the files keep the host's numbers; CUDA counts those that are there.
        return tuple(range(sum(1 for _ in devices.glob("nvidia[0-9]*"))))
    names = [name.strip() for name in visible.split(",")]
    # As CUDA reads it: what follows -1 is not visible.
    shown = list(itertools.takewhile(lambda name: name not in ("", "-1"), names))
    if named := [name for name in shown if not name.isdecimal()]:
        raise ValueError(f"CUDA_VISIBLE_DEVICES names {named[0]}; name GPUs by index, as in CUDA_VISIBLE_DEVICES=0,1")
    return tuple(map(int, shown))
