"""The operator behind a network and an API server that fail, and killed at any moment."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fault_proxy import FaultProxy
from faults import Delay, DropReply, DropRequest, ExpireWatch, Respond, StallWatch
from operator_process import OperatorProcess
from run_documents import run
from run_view import RunView
from simulated_node import SimulatedNode
from waiting import eventually

from hack.controlplane.access import Access
from hack.rest import Document, Rest

SMALL = {"sampler.accelerator": ""}


@pytest.fixture
def rest(empgruns: Access) -> Rest:
    return Rest(empgruns.kubeconfig, "test")


@pytest.fixture
def behind(mortal: OperatorProcess) -> OperatorProcess:
    """The operator, which reaches the API server through the proxy alone."""
    mortal.start()
    return mortal


def assert_completes(demo: RunView, namespace: str, node: SimulatedNode, operator: OperatorProcess) -> None:
    """It trains to its end in one attempt."""
    [learner] = node.ready(namespace, demo.learner_pods, seconds=60)
    node.ready(namespace, demo.sampler_pods, seconds=60)
    demo.report(iteration=3, phase="done")
    node.finish(learner)
    status = demo.until_phase("Complete", seconds=60)
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert operator.metric("empg_operator_reconcile_total", result="bug") == 0


@contextmanager
def missed(proxy: FaultProxy, resource: str) -> Iterator[None]:
    """What happens within, the watch of a resource misses: it hangs, then breaks, and where it wants to go on it is
    told 410 Gone."""
    before = proxy.count("watch", resource)
    proxy.inject(StallWatch(), verb="watch", resource=resource, times=1)
    expired = proxy.inject(ExpireWatch(), verb="watch", resource=resource, times=1)
    assert proxy.cut_watches(resource) == 1
    eventually(lambda: proxy.count("watch", resource) > before, "stalled watch")
    yield
    proxy.cut_watches(resource)
    eventually(lambda: expired.hits == 1, "expired watch")


def ended(job: Document | None) -> bool:
    said = (job or {}).get("status", {}).get("conditions", ())
    return any(each["type"] in ("Complete", "Failed") for each in said)


def test_a_deletion_that_a_watch_missed_is_noticed(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest
) -> None:
    """kopf lists again after 410 Gone, and tells nothing of what is no longer there."""
    demo = RunView(rest, namespace, run("demo", SMALL))
    node.ready(namespace, demo.sampler_pods)
    before = demo.child("Deployment", "demo-sampler")
    assert before
    with missed(proxy, "deployments"):
        demo.delete_child("Deployment", "demo-sampler")
    after = eventually(lambda: demo.child("Deployment", "demo-sampler"), "new Deployment")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


def test_the_end_of_a_job_that_a_watch_missed_is_noticed(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest
) -> None:
    demo = RunView(rest, namespace, run("demo", SMALL))
    [learner] = node.ready(namespace, demo.learner_pods)
    demo.report(iteration=3, phase="done")
    with missed(proxy, "jobs"):
        node.finish(learner)
        eventually(lambda: ended(demo.child("Job", "demo-learner-1")), "end of the Job")
        assert demo.status()["phase"] != "Complete"
    demo.until_phase("Complete")


def test_the_end_of_a_run_that_a_watch_missed_is_noticed(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest
) -> None:
    demo, other = (RunView(rest, namespace, run(name, SMALL)) for name in ("demo", "other"))
    for view in (demo, other):
        node.ready(namespace, view.learner_pods)
    eventually(lambda: behind.metric("empg_run_info") == 2, "series of both runs")
    with missed(proxy, "empgruns"):
        demo.delete()
        other.change({"sampler": {"replicas": 2}})
    eventually(lambda: behind.metric("empg_run_info", name="demo") == 0, "end of the run's series")
    node.ready(namespace, other.sampler_pods, 2)
    assert behind.metric("empg_run_info") == 1
    assert behind.metric("empg_operator_reconcile_total", result="bug") == 0


def test_an_api_server_that_is_away_is_waited_for(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest
) -> None:
    proxy.partition()
    demo = RunView(rest, namespace, run("demo", SMALL))
    time.sleep(5)
    assert behind.answers("/healthz"), "a restart would not bring the API server back"
    assert demo.status() == {}
    proxy.heal()
    node.ready(namespace, demo.sampler_pods, seconds=60)
    assert behind.metric("empg_operator_reconcile_total", result="bug") == 0


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("create", "jobs"), ("patch", "deployments"), ("patch", "empgruns/status"), ("get", "deployments")],
)
def test_a_server_that_is_too_busy_is_left_alone_for_as_long_as_it_asks(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, rest: Rest, verb: str, resource: str
) -> None:
    busy = proxy.inject(Respond(429, retry_after=3), verb=verb, resource=resource, times=1)
    demo = RunView(rest, namespace, run("demo", SMALL))
    eventually(lambda: busy.hits, "refused request")
    refused, asked = time.monotonic(), proxy.count(verb, resource)
    for number in range(5):  # events of the run do not make it ask again
        demo.change({"logging": {"level": ("INFO", "DEBUG")[number % 2]}})
        time.sleep(0.2)
    eventually(lambda: proxy.count(verb, resource) > asked, "second try")
    assert time.monotonic() - refused > 2.5
    eventually(lambda: demo.status().get("attempt") == 1, "first attempt in the status")
    assert demo.child("Deployment", "demo-sampler")
    assert [name for kind, name in demo.children() if kind == "Job"] == ["demo-learner-1"]
    assert proxy.count("create", "jobs") == 1 + (resource == "jobs")
    assert behind.metric("empg_operator_reconcile_total", result="unavailable") == 1


def test_a_slow_server_only_takes_longer(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest
) -> None:
    slow = proxy.inject(Delay(0.3))
    demo = RunView(rest, namespace, run("demo", SMALL))
    assert_completes(demo, namespace, node, behind)
    assert proxy.count("create", "jobs") == 1
    assert slow.hits > 20


def test_a_lost_answer_does_not_make_a_second_job(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest
) -> None:
    lost = proxy.inject(DropReply(), verb="create", resource="jobs", times=1)
    lost_status = proxy.inject(DropReply(), verb="patch", resource="empgruns/status", times=2)
    demo = RunView(rest, namespace, run("demo", SMALL))
    node.ready(namespace, demo.sampler_pods)
    assert (lost.hits, lost_status.hits) == (1, 2)
    assert [name for kind, name in demo.children() if kind == "Job"] == ["demo-learner-1"]
    assert demo.status()["attempt"] == 1


@pytest.mark.parametrize("fault", [Respond(500), Respond(409), DropRequest(), DropReply()], ids=str)
def test_a_storm_of_failures_passes(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest, fault: object
) -> None:
    """Every second request fails, watches included."""
    chance = random.Random(7)
    demo = RunView(rest, namespace, run("demo", SMALL))
    for _ in range(40):
        proxy.inject(fault, times=chance.randrange(1, 3))  # type: ignore[arg-type]
        time.sleep(0.1)
    proxy.heal()
    assert_completes(demo, namespace, node, behind)
