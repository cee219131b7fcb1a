"""The operator killed at any moment: what the next process finds is all there is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from faults import Delay, DelayReply
from operator_process import OperatorProcess
from run_documents import run
from run_view import RunView
from simulated_node import SimulatedNode
from waiting import eventually

from hack.controlplane.access import Access
from hack.rest import Rest

HELD_SECONDS = 600.0
"""Longer than anything here lasts."""
CALM_SECONDS = 2.0
SPEC = {"sampler.accelerator": "", "restarts": {"backoffSeconds": 300}}


@pytest.fixture
def proxy(empgruns: Access, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(empgruns.kubeconfig, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def mortal(proxy: FaultProxy, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator, which reaches the API server through the proxy alone; not started."""
    process = OperatorProcess(proxy.kubeconfig, tmp_path / "operator.log", f"--namespaces={namespace}")
    with closing(process):
        yield process


@pytest.fixture
def demo(empgruns: Access, namespace: str) -> RunView:
    return RunView(Rest(empgruns.kubeconfig, "test"), namespace, run("demo", SPEC))


def crash(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    [learner] = node.ready(namespace, demo.learner_pods)
    demo.report(iteration=1, attempt=1)
    node.finish(learner, exit_code=1)


def assert_one_attempt(demo: RunView, restarts: int) -> None:
    """Neither attempts nor restarts were lost or counted twice."""
    status = demo.status()
    assert (status["attempt"], status["restarts"]) == (1, restarts)
    assert [name for kind, name in demo.children() if kind == "Job"] == ["demo-learner-1"]


def lives_that_end_in_each_request(proxy: FaultProxy, operator: OperatorProcess) -> int:
    """Start it again and again; life n ends in its request n, until one has no more to ask. How many ended so.

    In turn, the API server had got the request, or had not.
    """
    ended = 0
    while True:
        fault = DelayReply(HELD_SECONDS) if ended % 2 else Delay(HELD_SECONDS)
        held = proxy.inject(fault, times=1, after=ended)
        operator.start(wait=False)
        calm_since, asked = time.monotonic(), proxy.count()
        while not held.hits and (time.monotonic() < calm_since + CALM_SECONDS or not operator.answers("/readyz")):
            time.sleep(0.005)
            if proxy.count() > asked:
                calm_since, asked = time.monotonic(), proxy.count()
        if not held.hits:
            proxy.heal()
            return ended
        operator.kill()
        ended += 1


@pytest.mark.parametrize("crashed", [False, True], ids=["new", "crashed"])
def test_it_may_be_killed_in_any_request(
    proxy: FaultProxy, mortal: OperatorProcess, namespace: str, node: SimulatedNode, demo: RunView, crashed: bool
) -> None:
    """Reads and watches too, of a run that is to be set up, and of one whose learner has crashed."""
    if crashed:
        mortal.start()
        crash(demo, namespace, node)
        mortal.kill()
    ended = lives_that_end_in_each_request(proxy, mortal)
    assert ended > len(demo.children())
    node.ready(namespace, demo.sampler_pods, count=0 if crashed else 1)
    eventually(lambda: demo.status()["restarts"] == crashed, "count of the restarts")
    assert_one_attempt(demo, restarts=crashed)
    assert mortal.metric("empg_operator_reconcile_total", result="bug") == 0


def test_it_may_be_killed_after_any_write(
    proxy: FaultProxy, mortal: OperatorProcess, namespace: str, node: SimulatedNode, demo: RunView
) -> None:
    chance = random.Random(3)
    mortal.start()

    def writes() -> int:
        return sum(request.verb in ("create", "patch", "delete") for request in list(proxy.requests))

    def live(done: Callable[[], object], seconds: float) -> None:
        """Lives that end after one to three writes, until it is done."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, "it never got so far"
            enough = writes() + chance.randint(1, 3)
            while writes() < enough and not done():
                time.sleep(0.001)
            mortal.kill()
            mortal.start()

    live(lambda: node.pods(namespace, demo.learner_pods), seconds=120)
    crash(demo, namespace, node)
    live(lambda: demo.status()["restarts"], seconds=60)
    time.sleep(CALM_SECONDS)
    assert_one_attempt(demo, restarts=1)
    assert demo.status()["judgedAttempt"] == 1
    assert proxy.count("create", "jobs") == 1
