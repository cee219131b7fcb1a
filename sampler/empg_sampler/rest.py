"""A GPU shared with the learner: the engine sleeps while it trains."""

from __future__ import annotations

from dataclasses import dataclass

from empg.rundir.progress import read_progress
from empg.store.base import Store
from empg_sampler.choose import Board
from empg_sampler.pulse import Pulse


@dataclass
class Rest:
    """Who has the GPU. The learner says that it trains, then waits until every sampler's record says asleep."""

    store: Store
    pulse: Pulse
    shared: bool
    """Whether there is a learner on our GPU at all."""
    asleep: bool = False

    def due(self) -> bool:
        """Whether to leave the GPU to the learner now."""
        progress = read_progress(self.store) if self.shared else None
        return progress is not None and progress.phase == "learning"

    def may_start(self) -> bool:
        """Whether an engine may be started, of which our record says nothing yet; while the learner trains it says
        that we sleep, or the learner would wait for us. Nor is one started beside a learner that starts: vLLM takes the
        memory that others take meanwhile for its own."""
        if self.due():
            if not self.asleep:
                self.begin(None)
            return False
        if self._learner_starts():
            return False
        self.asleep = False
        self.pulse.say(policy=None)
        return not self.due()

    def _learner_starts(self) -> bool:
        progress = read_progress(self.store) if self.shared else None
        return self.shared and (progress is None or progress.phase == "starting")

    def begin(self, current: int | None) -> None:
        """The engine, which held policy `current`, sleeps: the learner may train."""
        self.asleep = True
        self.pulse.say(policy=current, asleep=True)

    def may_end(self, current: int, version: int, board: Board) -> bool:
        """Whether to take the GPU back for policy `version`: it is another one, or admitted to a unit that is open.

        Before that our record says so. The learner looks at it after it said that it trains, and we look for that word
        after our record was written: one of us sees the other.
        """
        if version == current and not any(unit.plan.admits(version) for unit in board.open):
            return False
        self.pulse.say(policy=current, loading=version)
        if not self.due():
            return True
        self.pulse.say(policy=current, asleep=True)
        return False
