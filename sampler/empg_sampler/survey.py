"""What a sampler sees of the run directory: open units, published policies, other samplers at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from empg.rundir import keys
from empg.rundir.claims import survey
from empg.rundir.group import group_dir, read_manifest
from empg.rundir.heartbeat import Liveness, SamplerRecord, read_records
from empg.rundir.plan import Plan
from empg.rundir.plans import read_plans, unsealed
from empg.rundir.records import CorruptFile
from empg.store.base import Store
from empg_sampler.choose import Board, OpenUnit
from empg_sampler.engine import Policy
from empg_sampler.weights import BadPolicy

PEERS_SECONDS = 1.0
"""Records of other samplers are read this often."""
KINDS: tuple[keys.Kind, ...] = ("rollout", "eval")


class Peers:
    """Counts the samplers that share the work, by their heartbeats. A record that no longer changes counts for none."""

    def __init__(self, sampler: str, silence: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`silence`: seconds without a new heartbeat after which a sampler no longer counts."""
        self._sampler = sampler
        self._silence = silence
        self._clock = clock
        self._counters: dict[str, int] = {}
        self._beats: dict[str, float] = {}
        self._ready: dict[str, bool] = {}

    def observe(self, records: Iterable[SamplerRecord]) -> None:
        """Take note of records just read."""
        now = self._clock()
        for record in records:
            if self._counters.get(record.id, record.counter) != record.counter:
                self._beats[record.id] = now
            self._counters[record.id] = record.counter
            self._ready[record.id] = record.policy is not None

    @property
    def working(self) -> int:
        """Samplers that hold a policy and beat, this one included."""
        now = self._clock()
        return 1 + sum(
            self._ready[other] and now - beat < self._silence
            for other, beat in self._beats.items()
            if other != self._sampler
        )


class Surveyor:
    """Looks at the run directory; remembers what can't change."""

    def __init__(
        self, store: Store, sampler: str, lease_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._liveness = Liveness(lease_seconds, clock)
        self._peers = Peers(sampler, lease_seconds, clock)
        self._peers_read = float("-inf")
        self._since: dict[keys.Kind, int] = dict.fromkeys(KINDS, 0)
        """Iterations before are all sealed."""
        self._sealed: dict[keys.Kind, set[int]] = {kind: set() for kind in KINDS}
        self._plans: dict[tuple[keys.Kind, int], tuple[Plan, ...]] = {}
        self._published: set[int] = set()

    @property
    def samplers(self) -> int:
        """Samplers that share the work, this one included."""
        return self._peers.working

    def board(self) -> Board:
        """Units of all planned iterations that are not sealed."""
        if self._clock() - self._peers_read >= PEERS_SECONDS:
            records = read_records(self._store)
            self._liveness.observe(records)
            self._peers.observe(records)
            self._peers_read = self._clock()
        opened: list[OpenUnit] = []
        held: list[Plan] = []
        seen: set[tuple[str, int]] = set()
        for kind in KINDS:
            iterations = unsealed(self._store, kind, self._since[kind], self._sealed[kind])
            self._since[kind] = min(iterations, default=self._since[kind])
            for iteration in iterations:
                seen.add((kind, iteration))
                plans = self._read_plans(kind, iteration)
                statuses = survey(self._store, plans, self._liveness)
                for plan in plans:
                    for unit in plan.units:
                        status = statuses[unit.name]
                        if status.state == "open":
                            opened.append(OpenUnit(plan, unit, status.attempt, status.failures))
                        elif status.state == "held":
                            held.append(plan)
        self._plans = {key: plans for key, plans in self._plans.items() if key[1] >= self._since[key[0]]}
        return Board(tuple(opened), tuple(held), frozenset(seen))

    def policies(self) -> set[int]:
        """Published versions."""
        names = {keys.parse_number(name) for name in self._store.children(keys.POLICIES)}
        present = {version for version in names if version is not None}
        self._published &= present
        for version in present - self._published:
            if "MANIFEST.json" in self._store.children(keys.policy_prefix(version)):
                self._published.add(version)
        return set(self._published)

    def _read_plans(self, kind: keys.Kind, iteration: int) -> tuple[Plan, ...]:
        rounds = len(self._store.children(f"{keys.iteration_dir(kind, iteration)}/plan"))
        plans = self._plans.get((kind, iteration), ())
        if len(plans) != rounds:
            plans = self._plans[kind, iteration] = read_plans(self._store, kind, iteration)
        return plans


def find_policy(store: Store, version: int) -> Policy:
    """A published policy by its manifest. BadPolicy if it is gone, damaged or another run's."""
    prefix = keys.policy_prefix(version)
    try:
        manifest = read_manifest(store, prefix)
    except CorruptFile as error:
        raise BadPolicy(str(error)) from error
    if manifest is None:
        raise BadPolicy(f"{prefix}: has no manifest")
    files = {name: (entry.size, entry.sha256) for name, entry in manifest.files.items()}
    return Policy(version, group_dir(store, prefix, manifest), files)
