"""The operator killed at any moment: what the next process finds is all there is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from fault_proxy import FaultProxy
from faults import Delay, DelayReply, Respond
from operator_process import OperatorProcess
from run_documents import run
from run_moments import MOMENTS, SPEC, crash
from run_view import RunView
from simulated_node import SimulatedNode
from waiting import eventually

from empg_operator.kinds import LISTED, WATCHED
from hack.controlplane.access import Access
from hack.rest import Rest

HELD_SECONDS = 600.0
"""Longer than anything here lasts."""
CALM_SECONDS = 2.0
ALWAYS = ("crashed", "left")
"""Moments that are tried each time; each takes more than a minute."""
FIRST_LISTS = 2 + len(WATCHED) + len(LISTED)
"""Requests of a life before it looks at any run: two about kinds, and the lists of everything."""


@pytest.fixture
def rest(empgruns: Access) -> Rest:
    return Rest(empgruns.kubeconfig, "test")


def lives_that_end_in_each_request(proxy: FaultProxy, operator: OperatorProcess, first: int) -> int:
    """Start it again and again; life n ends in its request n, from the first on until one has no more to ask: the
    number of the last one.

    In turn, the API server had got the request, or had not.
    """
    ended = first
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


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.exhaustive) for name in MOMENTS]
)
def test_it_may_be_killed_in_any_request(
    proxy: FaultProxy, mortal: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest, name: str
) -> None:
    """Reads and watches too, at each turn of a run's life; but the first lists are the same at every turn."""
    moment = MOMENTS[name]
    view = RunView(rest, namespace, run("demo", {**SPEC, **moment.spec}))
    if moment.before is not None:
        mortal.start()
        moment.before(view, namespace, node)
        mortal.kill()
    other = moment.happens(view, namespace, node)
    if isinstance(other, RunView):
        view = other
    last = lives_that_end_in_each_request(proxy, mortal, FIRST_LISTS if moment.before else 0)
    assert last > len(view.children())
    for selector, count in zip((view.learner_pods, view.sampler_pods), moment.pods, strict=True):
        node.ready(namespace, selector, count=count)
    status = view.until_phase(moment.phase)
    moment.then(view, namespace, node)
    assert (status["attempt"], status["restarts"]) == (moment.attempt, moment.restarts)
    jobs = {job for kind, job in view.children() if kind == "Job"}
    assert jobs <= {f"{view.name}-learner-{attempt + 1}" for attempt in range(moment.attempt)}
    assert mortal.metric("empg_operator_reconcile_total", result="bug") == 0
    assert "this is a bug" not in mortal.log.read_text(), "in any of its lives"


def test_it_may_be_killed_after_any_write(
    proxy: FaultProxy, mortal: OperatorProcess, namespace: str, node: SimulatedNode, rest: Rest
) -> None:
    demo = RunView(rest, namespace, run("demo", SPEC))
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


def test_a_job_that_lost_its_labels_before_it_was_written_down_is_known_again(
    proxy: FaultProxy, mortal: OperatorProcess, namespace: str, rest: Rest
) -> None:
    proxy.inject(Respond(500), verb="patch", resource="empgruns/status")
    mortal.start()
    demo = RunView(rest, namespace, run("demo", SPEC))
    before = demo.until_attempt(1)["metadata"]
    mortal.kill()
    assert "attempt" not in demo.status()
    lost = dict.fromkeys(("empg.dev/run", "empg.dev/attempt"))
    demo.patch_child("Job", "demo-learner-1", {"metadata": {"labels": lost}})
    proxy.heal()
    mortal.start()
    eventually(lambda: demo.status().get("attempt") == 1, "first attempt in the status")
    after = eventually(lambda: demo.children().get(("Job", "demo-learner-1")), "label of the Job")["metadata"]
    assert after["uid"] == before["uid"]
    assert after["labels"] == before["labels"]
    assert not demo.child("Job", "demo-learner-2")
    assert demo.told("ApplyFailed") == []
    assert mortal.metric("empg_operator_reconcile_total", result="refused") == 0
