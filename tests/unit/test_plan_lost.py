"""A node that does not answer keeps no run from going on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from plan_cluster import Cluster, number
from plan_samples import NOW, diagnosis, job, pod, situation

from empg_operator import names
from empg_operator.plan.attempts import obsolete, tally
from empg_operator.plan.lost import TELL_SECONDS, Untold, due, lost, untold
from empg_operator.plan.times import stamp

GRACE_SECONDS = 120
ALONE: dict[str, Any] = {}
GANG: dict[str, Any] = {"learner": {"nodes": 2}}
TURNS: dict[str, Any] = {"sampler": {"rollStrategy": "Alternate"}}


def settle(cluster: Cluster) -> None:
    """Pass as often as the operator does when nothing happens but what it does to children: a status that was written
    wakes nobody."""
    for _ in range(20):
        cluster.roll_out(ready=False)
        cluster.deliver()
        done = cluster.reconcile()
        if not (done.apply or done.create or done.delete) and (cluster.due is None or cluster.due > cluster.now):
            return
    raise AssertionError("20 passes, and still there is something to do")


def running(spec: dict[str, Any]) -> Cluster:
    """A run that learns."""
    cluster = Cluster(spec)
    for _ in range(3):
        settle(cluster)
        cluster.start_pods()
    settle(cluster)
    return cluster


def until(cluster: Cluster, done: Callable[[], bool], seconds: float) -> float:
    """Pass whenever the operator asks for it; seconds until something is the case."""
    start = cluster.now
    while not done():
        assert cluster.due is not None, "the operator waits for an event that never comes"
        assert cluster.due - start <= seconds, f"not after {cluster.now - start:.0f} s"
        cluster.now = max(cluster.now, cluster.due)
        settle(cluster)
    return cluster.now - start


def condition(cluster: Cluster, kind: str) -> Any:
    return next(each for each in cluster.status["conditions"] if each["type"] == kind)


@pytest.mark.parametrize(("spec", "survivors"), [(ALONE, 0), (TURNS, 0), (GANG, 1)], ids=["alone", "turns", "gang"])
@pytest.mark.parametrize("samplers", [True, False])
def test_the_next_attempt_starts_soon_after_the_pod_should_have_ended(
    spec: dict[str, Any], survivors: int, samplers: bool
) -> None:
    cluster = running(spec)
    if not samplers:
        cluster.roll_out(ready=False)
        if (child := cluster.deployment()) is not None:
            cluster.become(child, child["status"] | {"readyReplicas": 0})
    settle(cluster)
    cluster.lose_node(cluster.live()[0], survivors=survivors)
    settle(cluster)
    took = until(cluster, lambda: cluster.numbers == [1, 2], GRACE_SECONDS + TELL_SECONDS + 1)
    assert took >= GRACE_SECONDS + TELL_SECONDS, "a kubelet that answers has its time"
    assert [number(left) for left in cluster.live()] == [2], "the old Job is deleted"
    assert (cluster.status["restarts"], cluster.status["fruitlessRestarts"], cluster.status["unchargedEnds"]) == (
        0,
        0,
        1,
    )
    cluster.start_pods()
    settle(cluster)
    assert condition(cluster, "LearnerReady")["status"] == "True"
    assert cluster.numbers == [1, 2]


@pytest.mark.parametrize("spec", [ALONE, GANG], ids=["alone", "gang"])
def test_a_run_that_waits_for_a_lost_node_says_so(spec: dict[str, Any]) -> None:
    cluster = running(spec)
    assert condition(cluster, "Ready")["status"] == "True"
    cluster.lose_node(cluster.live()[0], survivors=1 if spec else 0)
    settle(cluster)
    until(cluster, lambda: condition(cluster, "Ready")["status"] == "False", 10)
    assert cluster.status["phase"] in ("Starting", "Restarting")
    expected = "Stopping" if spec else "NodeLost"
    until(cluster, lambda: condition(cluster, "LearnerReady")["reason"] == expected, 20)
    assert condition(cluster, "Ready")["reason"] == expected
    until(cluster, lambda: cluster.status["judgedAttempt"] == 1, 200)
    [told] = [event for event in cluster.events if event in ("Evicted", "LearnerStopped")]
    assert told == ("LearnerStopped" if spec else "Evicted")


def test_an_end_that_takes_no_time_is_not_told_twice() -> None:
    cluster = running(GANG)
    cluster.lose_node(cluster.live()[0], survivors=1)
    before = cluster.writes
    settle(cluster)
    assert cluster.writes == before
    assert cluster.due == cluster.now + 10


@pytest.mark.parametrize("complete", [True, False])
def test_a_crash_beside_a_lost_node_costs_no_restart(complete: bool) -> None:
    kind, reason = ("SuccessCriteriaMet", "SuccessPolicy") if complete else ("FailureTarget", "BackoffLimitExceeded")
    target = {"type": kind, "status": "True", "reason": reason, "message": "x.", "lastTransitionTime": stamp(NOW - 60)}
    child = {**job(1, pods=2), "status": {"conditions": [target]}}
    seen = situation(child, status={"attempt": 1})
    [read] = seen.jobs
    assert (read.live, read.untold, read.due) == (False, True, NOW)
    counted = tally(seen, over=False)
    assert (counted.last, counted.restarts) == ("Complete" if complete else "Evicted", 0)
    if not complete:
        assert counted.ends[0].message == "x; a node does not tell that its pods have ended"
    assert obsolete(seen, stop=False) == ()
    written = situation(child, status={"attempt": 1, "judgedAttempt": 1})
    assert [each.name for each in obsolete(written, stop=False)] == ["demo-learner-1"]
    young = {**target, "lastTransitionTime": stamp(NOW - 59)}
    [read] = situation({**child, "status": {"conditions": [young]}}).jobs
    assert (read.live, read.untold) == (True, False)


def leaving(seconds: float, *, attempt: int = 1, role: Any = "learner", phase: str = "Running") -> Any:
    """A pod that was to end so many seconds ago."""
    labels = {**names.labels("demo", role), names.ATTEMPT_LABEL: str(attempt)}
    found = pod("p", role, phase=phase, labels=labels, deletionTimestamp=stamp(NOW - seconds))
    found["spec"]["nodeName"] = "node-7"
    return found


@pytest.mark.parametrize(
    ("pods", "found"),
    [
        ([leaving(TELL_SECONDS)], True),
        ([leaving(TELL_SECONDS - 1)], False),
        ([leaving(TELL_SECONDS - 1), leaving(TELL_SECONDS)], True),
        ([leaving(900, phase="Failed")], False),
        ([leaving(900, attempt=2)], False),
        ([leaving(900, role="sampler")], False),
        ([pod("p", "learner", labels={**names.labels("demo", "learner"), names.ATTEMPT_LABEL: "1"})], False),
    ],
)
def test_which_pods_are_lost(pods: list[Any], found: bool) -> None:
    look = diagnosis(*pods)
    assert lost(look, 1) == (Untold("p", "node-7", NOW) if found else None)
    [read] = situation(job(1), diagnosis=look).jobs
    assert read.live is not found


def test_the_end_counts_by_the_time_of_the_look() -> None:
    """The node may have answered since."""
    early = diagnosis(leaving(20), taken=NOW - 15)
    assert untold(early, 1) == Untold("p", "node-7", NOW + 10)
    [read] = situation(job(1), diagnosis=early, now=NOW + 50).jobs
    assert read.live


def test_a_job_in_its_queue_asks_for_no_pods() -> None:
    [read] = situation(job(1, suspend=True), diagnosis=diagnosis(leaving(900))).jobs
    assert read.live


@pytest.mark.parametrize(("grace", "seconds"), [(None, 30), (0, 0), (600, 600)])
def test_the_grace_period_of_the_pods_is_waited_for(grace: int | None, seconds: float) -> None:
    pods = {"spec": {} if grace is None else {"terminationGracePeriodSeconds": grace}}
    assert due(job(1, template=pods), NOW) == NOW + seconds + TELL_SECONDS
