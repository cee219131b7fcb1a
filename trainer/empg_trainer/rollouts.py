"""The E-step as the learner sees it: wait for the units of an iteration, seal them, filter what they hold.

Everything here runs on rank 0.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from empg.api.guards import GuardsSpec
from empg.rundir.claims import survey
from empg.rundir.heartbeat import Liveness, read_records
from empg.rundir.plan import Plan
from empg.rundir.seal import Seal, SealedUnit, create_seal, read_seal, read_sealed
from empg.rundir.units import CorruptUnit, read_unit, reject
from empg.store.base import Store
from empg.trajectory import Trajectory
from empg.verdict import Verdict
from empg_trainer.stop import Diverged, Stop, Waiting

logger = logging.getLogger(__name__)

POLL_SECONDS = (0.02, 1.0)
"""Shortest pause between two looks at the units, and longest."""
POLL_SHARE = 0.05
"""Pause as a share of the time since something new was found, which bounds what waiting adds to an iteration."""


@dataclass(frozen=True)
class Rollout:
    """The sealed data of one iteration."""

    seal: Seal
    rows: list[Trajectory]
    """In plan order."""


class UnitWatch:
    """Reads and checks the units of one iteration or evaluation as they arrive."""

    def __init__(self, store: Store, plans: Sequence[Plan], liveness: Liveness) -> None:
        self.plans = plans
        self.total = sum(len(plan.units) for plan in plans)
        self._store = store
        self._liveness = liveness
        self._plan_of = {unit.name: plan for plan in plans for unit in plan.units}
        self._accepted: dict[str, tuple[SealedUnit, list[Trajectory]]] = {}
        self._void: tuple[str, ...] = ()
        self.open = self.total
        """Units that nobody is at work on, as of the last look."""

    @property
    def settled(self) -> int:
        """Units that are accepted or void."""
        return len(self._accepted) + len(self._void)

    @property
    def complete(self) -> bool:
        """Whether no unit can change any more."""
        return self.settled == self.total

    def look(self) -> None:
        """Take what is new; a commit that can't be used is rejected, which opens its unit again."""
        self._liveness.observe(read_records(self._store))
        void = []
        self.open = 0
        for name, status in survey(self._store, self.plans, self._liveness).items():
            if name in self._accepted:
                continue
            if status.state == "void":
                void.append(name)
            self.open += status.state == "open"
            if status.state != "committed":
                continue
            plan = self._plan_of[name]
            try:
                rows, digest = read_unit(self._store, plan, name, status.attempt)
            except CorruptUnit as error:
                logger.warning("rejected %s: %s", error.key, error.reason)
                reject(self._store, plan, name, status.attempt, error.reason)
                self.open += 1
                continue
            sealed = SealedUnit(unit=name, attempt=status.attempt, digest=digest, rows=len(rows))
            self._accepted[name] = (sealed, rows)
        self._void = tuple(void)

    def close(self, missing: bool = False) -> Rollout:
        """Seal what was accepted; all other units are void. If a seal exists already, its data is what counts.

        `missing`: it is an evaluation that met its deadline.
        """
        first = self.plans[0]
        names = [unit.name for plan in self.plans for unit in plan.units]
        seal = Seal(
            run=first.run,
            kind=first.kind,
            iteration=first.iteration,
            units=tuple(self._accepted[name][0] for name in names if name in self._accepted),
            void=tuple(name for name in names if name not in self._accepted),
            missing=missing,
        )
        found = create_seal(self._store, seal)
        if found != seal:
            return Rollout(found, read_sealed(self._store, self.plans, found))
        return Rollout(seal, [row for name in names if name in self._accepted for row in self._accepted[name][1]])


def sealed_rollout(store: Store, plans: Sequence[Plan]) -> Rollout | None:
    """The data of an iteration that is sealed already, None if it is open."""
    seal = read_seal(store, plans[0].kind, plans[0].iteration)
    return None if seal is None else Rollout(seal, read_sealed(store, plans, seal))


def wait_for_units(watch: UnitWatch, deadline_seconds: float, tick: Callable[[UnitWatch], None]) -> None:
    """Return when every unit is accepted or void. `tick` is called after every look.

    Raises:
        Stop: the deadline passed (exit code 75).
    """
    started = news = time.monotonic()
    while True:
        before = watch.settled
        watch.look()
        tick(watch)
        if watch.complete:
            return
        if time.monotonic() - started > deadline_seconds:
            raise Stop(
                f"iteration {watch.plans[0].iteration}: {watch.total - watch.settled} of {watch.total} units are not "
                f"there after {deadline_seconds:g} s (learner.deadlineSeconds); are samplers running?"
            )
        now = time.monotonic()
        news = now if watch.settled > before else news
        time.sleep(min(max(POLL_SHARE * (now - news), POLL_SECONDS[0]), POLL_SECONDS[1]))


def wait_unless_open(
    watches: Sequence[UnitWatch], lease_seconds: float, beat: Callable[[], None], leave: Callable[[], None]
) -> None:
    """Return when every unit is accepted or void. Where one is open instead, `leave` is called and Waiting raised.

    Samplers under `Alternate` are gone now: what one of them still holds is open, or void, once its lease is over.
    """
    started = time.monotonic()
    while True:
        for watch in watches:
            watch.look()
        missing = sum(watch.total - watch.settled for watch in watches)
        if not missing:
            return
        if any(watch.open for watch in watches) or time.monotonic() - started > 2 * lease_seconds:
            leave()
            raise Waiting(f"{missing} of {sum(watch.total for watch in watches)} units are the samplers' to make first")
        beat()
        time.sleep(POLL_SECONDS[1] / 4)


def training_rows(rollout: Rollout, guards: GuardsSpec) -> list[Trajectory]:
    """The trajectories to train on: those whose verdict judges the answer.

    Raises:
        Diverged: too many units are void, or too many answers could not be graded or parsed; says which guard.
    """
    iteration, total = rollout.seal.iteration, len(rollout.seal.units) + len(rollout.seal.void)
    verdicts = Counter(row.verdict for row in rollout.rows)
    errors = verdicts[Verdict.TIMEOUT] + verdicts[Verdict.ERROR]
    answers = max(1, len(rollout.rows))
    for name, count, of, bound in (
        ("maxVoidShare", len(rollout.seal.void), total, guards.max_void_share),
        ("maxErrorShare", errors, answers, guards.max_error_share),
        ("maxUnparseableShare", verdicts[Verdict.UNPARSEABLE], answers, guards.max_unparseable_share),
    ):
        if count > bound * of:
            raise Diverged(f"iteration {iteration}: {count} of {of} is more than guards.{name} ({bound:g}) allows")
    return [row for row in rollout.rows if row.verdict.trains]
