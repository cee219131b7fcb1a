"""Samplers that wait in a queue: pod by pod, as the queue holds them back from the scheduler."""

from __future__ import annotations

from empg.api.status import Turn
from empg_operator import names
from empg_operator.plan.situation import Situation
from empg_operator.pod_causes import gated

LOOK_SECONDS = 60.0
"""A look at the pods so old still tells whether the queue has admitted any."""


def samplers_queued(situation: Situation, turn: Turn) -> bool:
    """All that the run lacks are samplers, and the queue has admitted none of them.

    Without a look that is not too old, what was so before still is: an operator that starts has not looked yet.
    """
    job, samplers = situation.live, situation.samplers
    if samplers.wanted == 0 or samplers.ready > 0:
        return False
    if turn == "learner" and (situation.alternate or job is None or job.ending or not job.all_ready):
        return False
    look, before = situation.look(LOOK_SECONDS), situation.status.clock
    if look is None:
        return before is not None and before.waiting_for == "queue"
    pods = [
        pod
        for pod in look.pods
        if pod["metadata"].get("labels", {}).get(names.ROLE_LABEL) == "sampler"
        and "deletionTimestamp" not in pod["metadata"]
        and (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")
    ]
    return bool(pods) and all(gated(pod) for pod in pods)
