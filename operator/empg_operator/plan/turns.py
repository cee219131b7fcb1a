"""`rollStrategy: Alternate`: who has the GPUs."""

from __future__ import annotations

from empg.api.status import Turn
from empg_operator.plan.attempts import Tally
from empg_operator.plan.situation import Situation


def turn(situation: Situation, tally: Tally) -> Turn:
    """Whose turn it is: the samplers' once an attempt has left for them, until all its units are there."""
    if not situation.alternate:
        return "learner"
    if tally.last is not None:
        return "samplers" if tally.last == "Waiting" else "learner"
    # An attempt that was started, whether or not that was written down, was so in the learner's turn.
    if situation.status.sampled == situation.attempt or situation.attempt > situation.status.attempt:
        return "learner"
    return situation.status.turn


def cleared(situation: Situation) -> bool:
    """The samplers have left the GPUs to the learner."""
    return not situation.alternate or situation.samplers.gone
