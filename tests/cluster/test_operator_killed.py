"""The operator killed at any moment: what the next process finds is all there is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fault_proxy import FaultProxy
from faults import Delay, DelayReply
from operator_process import OperatorProcess
from run_documents import run
from run_view import RunView
from simulated_node import SimulatedNode

from hack.controlplane.access import Access
from hack.rest import Rest

HELD_SECONDS = 600.0
"""Longer than anything here lasts."""
CALM_SECONDS = 2.0
SPEC = {"sampler.accelerator": "", "restarts": {"backoffSeconds": 300}}


@pytest.fixture
def demo(empgruns: Access, namespace: str) -> RunView:
    return RunView(Rest(empgruns.kubeconfig, "test"), namespace, run("demo", SPEC))


def crash(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    [learner] = node.ready(namespace, demo.learner_pods)
    demo.report(iteration=1, attempt=1)
    node.finish(learner, exit_code=1)


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


@dataclass(frozen=True)
class Moment:
    """Something that happens to a run while no operator is there, and what is to come of it."""

    before: Callable[[RunView, str, SimulatedNode], None] | None
    """What comes before it, with an operator; None: the run is new."""
    happens: Callable[[RunView, str, SimulatedNode], None]
    phase: str
    attempt: int
    restarts: int
    pods: tuple[int, int]
    """Pods of learner and samplers that run in the end."""


def works(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    node.ready(namespace, demo.learner_pods)
    node.ready(namespace, demo.sampler_pods)


def is_suspended(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    works(demo, namespace, node)
    demo.change({"suspend": True})
    demo.until_phase("Suspended")


def finish(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    [learner] = node.ready(namespace, demo.learner_pods)
    demo.report(iteration=100, attempt=1, phase="done")
    node.finish(learner)


MOMENTS = {
    "new": Moment(None, lambda *_: None, "Starting", attempt=1, restarts=0, pods=(1, 1)),
    "crashed": Moment(works, crash, "Restarting", attempt=1, restarts=1, pods=(0, 1)),
    "suspended": Moment(
        works, lambda demo, *_: demo.change({"suspend": True}), "Suspended", attempt=1, restarts=0, pods=(0, 0)
    ),
    "resumed": Moment(
        is_suspended, lambda demo, *_: demo.change({"suspend": False}), "Starting", attempt=2, restarts=0, pods=(1, 1)
    ),
    "done": Moment(works, finish, "Complete", attempt=1, restarts=0, pods=(0, 0)),
}


@pytest.mark.parametrize("name", list(MOMENTS))
def test_it_may_be_killed_in_any_request(
    proxy: FaultProxy, mortal: OperatorProcess, namespace: str, node: SimulatedNode, demo: RunView, name: str
) -> None:
    """Reads and watches too, at each turn of a run's life."""
    moment = MOMENTS[name]
    if moment.before is not None:
        mortal.start()
        moment.before(demo, namespace, node)
        mortal.kill()
    moment.happens(demo, namespace, node)
    ended = lives_that_end_in_each_request(proxy, mortal)
    assert ended > len(demo.children())
    for selector, count in zip((demo.learner_pods, demo.sampler_pods), moment.pods, strict=True):
        node.ready(namespace, selector, count=count)
    status = demo.until_phase(moment.phase)
    assert (status["attempt"], status["restarts"]) == (moment.attempt, moment.restarts)
    jobs = {job for kind, job in demo.children() if kind == "Job"}
    assert jobs <= {f"demo-learner-{attempt + 1}" for attempt in range(moment.attempt)}
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
    status = demo.status()
    assert (status["attempt"], status["restarts"], status["judgedAttempt"]) == (1, 1, 1)
    assert [name for kind, name in demo.children() if kind == "Job"] == ["demo-learner-1"]
    assert proxy.count("create", "jobs") == 1
