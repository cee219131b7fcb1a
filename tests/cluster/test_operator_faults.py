"""The operator behind a network and an API server that fail, and killed at any moment."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from faults import DropReply, DropRequest, ExpireWatch, Respond, StallWatch
from operator_process import OperatorProcess
from run_documents import run
from run_view import RunView
from simulated_node import SimulatedNode
from waiting import eventually

from hack.controlplane.access import Access
from hack.rest import Rest

SMALL = {"sampler.accelerator": ""}


@pytest.fixture
def rest(empgruns: Access) -> Rest:
    return Rest(empgruns.kubeconfig, "test")


@pytest.fixture
def proxy(empgruns: Access, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(empgruns.kubeconfig, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: FaultProxy, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator, which reaches the API server through the proxy alone."""
    process = OperatorProcess(proxy.kubeconfig, tmp_path / "operator.log", f"--namespaces={namespace}")
    with closing(process):
        process.start()
        yield process


def test_a_deletion_that_a_watch_missed_is_noticed(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest
) -> None:
    """kopf lists again after 410 Gone, and tells nothing of what is no longer there."""
    demo = RunView(rest, namespace, run("demo", SMALL))
    node.ready(namespace, demo.sampler_pods)
    proxy.inject(StallWatch(), verb="watch", resource="deployments", times=1)
    expired = proxy.inject(ExpireWatch(), verb="watch", resource="deployments", times=1)
    proxy.cut_watches("deployments")
    eventually(lambda: proxy.count("watch", "deployments") >= 2, "stalled watch")
    before = demo.child("Deployment", "demo-sampler")
    assert before
    demo.delete_child("Deployment", "demo-sampler")
    proxy.cut_watches("deployments")
    after = eventually(lambda: demo.child("Deployment", "demo-sampler"), "new Deployment")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert expired.hits == 1


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


def test_a_server_that_is_too_busy_is_left_alone_for_as_long_as_it_asks(
    proxy: FaultProxy, behind: OperatorProcess, namespace: str, rest: Rest
) -> None:
    busy = proxy.inject(Respond(429, retry_after=3), verb="create", resource="jobs", times=1)
    demo = RunView(rest, namespace, run("demo", SMALL))
    eventually(lambda: busy.hits, "refused creation")
    refused = time.monotonic()
    for number in range(5):  # events of the run do not make it ask again
        demo.change({"logging": {"level": ("INFO", "DEBUG")[number % 2]}})
        time.sleep(0.2)
    eventually(lambda: demo.child("Job", "demo-learner-1"), "Job")
    assert time.monotonic() - refused > 2.5
    assert proxy.count("create", "jobs") == 2


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
    [learner] = node.ready(namespace, demo.learner_pods, seconds=60)
    node.ready(namespace, demo.sampler_pods, seconds=60)
    demo.report(iteration=3, phase="done")
    node.finish(learner)
    status = demo.until_phase("Complete", seconds=60)
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert behind.metric("empg_operator_reconcile_total", result="bug") == 0
