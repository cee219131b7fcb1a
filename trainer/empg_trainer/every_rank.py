"""`Leader` as every rank sees it: its methods run on rank 0, and what they return reaches all ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from empg.api.run import RunSpec
from empg.rundir.owner import LearnerOwner
from empg.trajectory import Trajectory, from_parquet, to_parquet
from empg_trainer.distributed import Ranks
from empg_trainer.leader import Leader
from empg_trainer.record import Figures
from empg_trainer.step import Sampled, StepResult


@dataclass(frozen=True)
class Origin:
    """Where a learner starts."""

    policy: int
    """Published policy that gives the architecture, and the weights where there is no state."""
    state: int | None
    """Iteration of the newest training state."""


class EveryRank:
    """Rank 0's decisions on every rank. All methods are collective; a Stop on rank 0 is raised on every rank.

    Rollouts are broadcast too. One reader sees new files at once, where the nodes of an NFS see them up to a minute
    later, and storage is read once and not once per rank.
    """

    def __init__(self, ranks: Ranks, appoint: Callable[[], tuple[Leader, Origin]], spec: RunSpec) -> None:
        """`appoint` is called on rank 0 alone. `spec` counts there alone too: a node may see a newer manifest."""
        self._ranks = ranks
        self._leader: Leader | None = None

        def start() -> bytes:
            self._leader, origin = appoint()
            return json.dumps(asdict(origin)).encode()

        self.origin = Origin(**json.loads(ranks.lead(start)))
        self.spec = RunSpec.model_validate_json(ranks.lead(lambda: spec.model_dump_json(by_alias=True).encode()))

    @property
    def owner(self) -> LearnerOwner | None:
        """What allows to publish; on rank 0 alone."""
        return self._leader.owner if self._leader else None

    def begin(self, iteration: int) -> RunSpec:
        """The spec of an iteration; see `Leader.begin`."""
        return RunSpec.model_validate_json(
            self._ask(lambda leader: leader.begin(iteration, self._ranks.beat).model_dump_json(by_alias=True).encode())
        )

    def sample(self, iteration: int) -> tuple[list[Trajectory], Sampled]:
        """The answers to train on; see `Leader.sample`."""
        data = self._ask(lambda leader: _encode(*leader.sample(iteration, self._ranks.beat)))
        header, _, rows = data.partition(b"\n")
        return from_parquet(rows), Sampled(**json.loads(header))

    def judge(self, result: StepResult, learning_rate: float, seconds: float) -> None:
        """See `Leader.judge`."""
        self._tell(lambda leader: leader.judge(result, learning_rate, seconds))

    def check(self, trouble: Exception | None) -> None:
        """Stop every rank for what rank 0 met while the others could not hear of it, if it met anything."""

        def look(leader: Leader) -> None:
            if trouble is not None:
                raise trouble

        self._tell(look)

    def finish(self, iteration: int, diverged: bool, seconds: Figures) -> None:
        """See `Leader.finish`."""
        self._tell(lambda leader: leader.finish(iteration, diverged, seconds))

    def complete(self, iterations: int) -> None:
        """See `Leader.complete`."""
        self._tell(lambda leader: leader.complete(iterations, self._ranks.beat))

    def _ask(self, act: Callable[[Leader], bytes]) -> bytes:
        def on_rank_0() -> bytes:
            assert self._leader is not None, "rank 0 has a leader"
            return act(self._leader)

        return self._ranks.lead(on_rank_0)

    def _tell(self, act: Callable[[Leader], None]) -> None:
        def acted(leader: Leader) -> bytes:
            act(leader)
            return b""

        self._ask(acted)


def _encode(rows: list[Trajectory], sampled: Sampled) -> bytes:
    """One line of JSON, then Parquet."""
    return json.dumps(asdict(sampled)).encode() + b"\n" + to_parquet(rows)
