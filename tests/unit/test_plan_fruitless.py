"""Attempts that bring no progress come to an end, and what waits in a queue has time."""

from typing import Any

import pytest
from plan_cluster import Cluster, number
from plan_samples import NAME, pod
from plan_samples import progress as report

GATED = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "not admitted"}
CRASHED = {
    "name": "sampler",
    "ready": False,
    "restartCount": 3,
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
    "state": {"running": {}},
}


def gated() -> Any:
    waiting = pod(f"{NAME}-sampler-a", "sampler", phase="Pending")
    waiting["status"]["conditions"] = [GATED]
    return waiting


def crashing() -> Any:
    looping = pod(f"{NAME}-sampler-a", "sampler")
    looping["status"]["containerStatuses"] = [CRASHED]
    return looping


def live(cluster: Cluster, hours: float, *, exits: float | None = None, iteration: int = 0) -> dict[str, float]:
    """Learners that run at once and wait for units, beside samplers none of which becomes ready; what came of it.

    Args:
        cluster: with a run.
        hours: how long to go on, unless the run ends before.
        exits: seconds after which a learner gives up (exit code 75).
        iteration: that the learners are at.
    """
    began, held, since = cluster.now, 0.0, {}
    while cluster.now < began + hours * 3600 and cluster.status.get("phase") not in ("Complete", "Failed"):
        for job in cluster.live():
            attempt = number(job)
            cluster.become(job, {"ready": 1})
            if attempt not in since:
                since[attempt] = cluster.now
                cluster.report(progress=report(attempt, iteration, updated="2027-01-15T08:00:00Z"))
            if exits is not None and cluster.now - since[attempt] >= exits:
                cluster.end(job, rule=3)
        cluster.roll_out(ready=False)
        cluster.deliver()
        cluster.reconcile()
        step = 60.0
        held += step * len(cluster.live())
        cluster.now += step
    spent = cluster.now - began
    return {"seconds": spent, "held": held / spent if spent else 0.0}


def failed(cluster: Cluster) -> tuple[str, str]:
    found = condition(cluster, "Failed")
    return found["status"], found["reason"]


def condition(cluster: Cluster, kind: str) -> Any:
    return next(each for each in cluster.status["conditions"] if each["type"] == kind)


@pytest.mark.parametrize("exits", [None, 600.0])
def test_an_e_step_without_samplers_ends_however_many_attempts_it_takes(exits: float | None) -> None:
    """Samplers start, and never become ready."""
    cluster = Cluster({"deadlines": {"samplingSeconds": 2000.0}}, waiting=[pod(f"{NAME}-sampler-a", "sampler")])
    seen = live(cluster, 12, exits=exits)
    assert failed(cluster) == ("True", "SamplingDeadlineExceeded")
    assert (len(cluster.numbers) > 1) == (exits is not None)
    assert seen["seconds"] >= 2000, "time between attempts does not count"


def test_samplers_that_crash_some_time_after_their_start_end_the_run() -> None:
    """Each release brings new pods, which have not crashed yet."""
    cluster = Cluster({"deadlines": {"pendingSeconds": 5000.0}})
    hours = 0.0
    while cluster.status.get("phase") != "Failed" and hours < 12:
        cluster.waiting = [pod(f"{NAME}-sampler-a", "sampler")]
        hours += live(cluster, 0.1)["seconds"] / 3600
        cluster.waiting = [crashing()]
        hours += live(cluster, 0.3)["seconds"] / 3600
    assert failed(cluster) == ("True", "PendingDeadlineExceeded")
    assert 5000 <= hours * 3600 <= 10_000, "what they take to crash does not count"


def test_a_wait_for_pods_stands_still_in_a_queue() -> None:
    cluster = Cluster({"queueName": "team", "deadlines": {"pendingSeconds": 5000.0, "holdSeconds": None}})
    cluster.waiting = [pod(f"{NAME}-sampler-a", "sampler", phase="Pending")]
    admitted = 0.0
    for _ in range(12):
        live(cluster, 0.25)
        admitted += 900
        if cluster.status["phase"] == "Failed":
            break
        for job in cluster.live():
            job["spec"]["suspend"] = True
            cluster.become(job, {"ready": 0})
            cluster.touch(("Job", job["metadata"]["name"]))
        for _ in range(60):
            cluster.deliver()
            cluster.reconcile()
            cluster.now += 60.0
        assert cluster.status["phase"] == "Queued"
        for job in cluster.live():
            job["spec"]["suspend"] = False
            cluster.touch(("Job", job["metadata"]["name"]))
    assert failed(cluster) == ("True", "PendingDeadlineExceeded")
    assert admitted == 5400


@pytest.mark.parametrize("exits", [None, 600.0])
@pytest.mark.parametrize("strategy", ["Alternate", "InPlace"])
def test_samplers_that_never_run_end_the_run_however_many_attempts_it_takes(strategy: str, exits: float | None) -> None:
    lacking = [pod(f"{NAME}-sampler-a", "sampler", phase="Pending")]
    cluster = Cluster({"sampler": {"rollStrategy": strategy}, "deadlines": {"pendingSeconds": 5000.0}}, waiting=lacking)
    if strategy == "Alternate":
        begin(cluster)
    seen = live(cluster, 12, exits=exits)
    assert failed(cluster) == ("True", "PendingDeadlineExceeded")
    assert (len(cluster.numbers) > 1) == (strategy == "InPlace")
    assert 5000 <= seen["seconds"] <= 5400, "time between attempts counts"


def test_samplers_that_crash_again_and_again_have_no_devices_to_keep() -> None:
    cluster = Cluster({}, waiting=[crashing()])
    live(cluster, 0.4)
    assert cluster.events.count("Released") == 1
    assert "pod demo-sampler-a ended with exit code 1" in condition(cluster, "Ready")["message"]


def test_a_run_whose_samplers_never_come_leaves_the_devices_to_others() -> None:
    lacking = pod(f"{NAME}-sampler-a", "sampler", phase="Pending")
    lacking["status"]["conditions"] = [GATED | {"reason": "Unschedulable", "message": "0/3 nodes are available"}]
    cluster = Cluster({}, waiting=[lacking])
    first = live(cluster, 1)["held"]
    live(cluster, 5)
    assert live(cluster, 5)["held"] < first / 2
    assert cluster.status["phase"] != "Failed"
    live(cluster, 24)
    assert failed(cluster) == ("True", "PendingDeadlineExceeded"), "the default is a day"
    assert "0/3 nodes are available" in condition(cluster, "Failed")["message"]


def queued(strategy: str, deadlines: dict[str, float]) -> Cluster:
    """A run whose samplers are wanted, and wait in a queue."""
    cluster = Cluster(
        {"queueName": "team", "sampler": {"rollStrategy": strategy}, "deadlines": {"holdSeconds": None} | deadlines},
        waiting=[gated()],
    )
    if strategy == "Alternate":
        begin(cluster)
    live(cluster, 0.1)
    return cluster


def begin(cluster: Cluster) -> None:
    """Those who take turns: the learner's pods run, and leave for the samplers."""
    for _ in range(3):
        cluster.reconcile()
        for job in cluster.live():
            cluster.become(job, {"ready": 1})
        cluster.deliver()
    cluster.alternate()


@pytest.mark.parametrize("strategy", ["Alternate", "InPlace"])
@pytest.mark.parametrize("limit", ["samplingSeconds", "runSeconds"])
def test_samplers_in_a_queue_cost_no_time(strategy: str, limit: str) -> None:
    cluster = queued(strategy, {limit: 600.0})
    live(cluster, 2)
    assert (cluster.status["phase"], failed(cluster)[0]) == ("Queued", "False")
    assert "activeSince" not in cluster.status
    # The queue admits them, and what they take from then on counts.
    cluster.waiting = [pod(f"{NAME}-sampler-a", "sampler")]
    seen = live(cluster, 5)
    assert cluster.status["phase"] == "Failed"
    assert 300 < seen["seconds"] <= 700


def test_who_asks_again_is_in_the_queue_still_until_a_look_tells_otherwise() -> None:
    """An operator that starts has not looked yet."""
    cluster = queued("Alternate", {"samplingSeconds": 600.0})
    live(cluster, 1)
    since = cluster.status["clock"]
    cluster.reconcile(0, "death")
    cluster.now += 3.0
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.status["clock"]) == ("Queued", since)


@pytest.mark.parametrize("other", [pod(f"{NAME}-sampler-b", "sampler", phase="Pending"), crashing()])
def test_a_sampler_that_was_admitted_has_no_more_time_than_others(other: Any) -> None:
    cluster = queued("Alternate", {"pendingSeconds": 600.0})
    cluster.waiting = [gated(), other]
    live(cluster, 1)
    assert failed(cluster) == ("True", "PendingDeadlineExceeded")
