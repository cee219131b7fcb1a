"""Turns of a run's life, for tests that end the operator in each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from run_documents import MISSING, run
from run_view import RunView
from simulated_node import SimulatedNode
from waiting import eventually

SPEC: dict[str, Any] = {"sampler.accelerator": "", "restarts": {"backoffSeconds": 300}}
TTL_SECONDS = 3
POLICY = "empg.dev/policy"
WAITING = 76
"""Exit code of a learner that leaves its devices to the samplers."""

Happening = Callable[[RunView, str, SimulatedNode], object]


def nothing(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    """Nothing happens, and nothing more is to be seen."""


@dataclass(frozen=True)
class Moment:
    """Something that happens to a run while no operator is there, and what is to come of it."""

    before: Happening | None
    """What comes before it, with an operator; None: the run is new."""
    happens: Happening
    """It may give another run, which what follows is about."""
    phase: str
    attempt: int = 1
    restarts: int = 0
    pods: tuple[int, int] = (1, 1)
    """Pods of learner and samplers that run in the end."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Changes by dotted keys."""
    then: Happening = nothing
    """What else must hold in the end; AssertionError."""


def crash(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    """The learner ends with an error, after a report."""
    [learner] = node.ready(namespace, demo.learner_pods)
    demo.report(iteration=1, attempt=1)
    node.finish(learner, exit_code=1)


def _learns(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    node.ready(namespace, demo.learner_pods)


def _works(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    _learns(demo, namespace, node)
    node.ready(namespace, demo.sampler_pods)


def _is_suspended(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    _works(demo, namespace, node)
    demo.change({"suspend": True})
    demo.until_phase("Suspended")


def _finish(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    [learner] = node.ready(namespace, demo.learner_pods)
    demo.report(iteration=100, attempt=1, phase="done", policyVersion=3)
    node.finish(learner)


def _is_complete(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    _works(demo, namespace, node)
    _finish(demo, namespace, node)
    demo.until_phase("Complete")


def _only_the_claim_is_left(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    eventually(lambda: {kind for kind, _ in demo.children()} == {"PersistentVolumeClaim"}, "end of the children")
    eventually(lambda: not node.pods(namespace), "end of the pods")


def _fork(demo: RunView, namespace: str, node: SimulatedNode) -> RunView:
    origin = {"model.name": MISSING, "model.fromRun": {"name": demo.name}}
    return RunView(demo.rest, namespace, run("fork", SPEC | origin))


def _knows_its_parent(fork: RunView, namespace: str, node: SimulatedNode) -> None:
    assert {key: fork.status()["lineage"][key] for key in ("run", "claimName")} == {
        "run": "demo",
        "claimName": "demo-data",
    }


def _holds(policy: int) -> Happening:
    """The samplers' pods are those of a policy, and the roll is over."""

    def look(demo: RunView, namespace: str, node: SimulatedNode) -> None:
        def held() -> bool:
            [pod] = node.ready(namespace, demo.sampler_pods)
            return bool(pod["metadata"].get("annotations", {}).get(POLICY) == str(policy))

        def over() -> bool:
            status = demo.status()
            return status.get("rolledPolicy") == policy and "rollStarted" not in status

        eventually(held, f"sampler with policy {policy}")
        eventually(over, f"end of the roll to policy {policy}")

    return look


def _is_rolled(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    _works(demo, namespace, node)
    demo.report(iteration=0, policyVersion=0)
    _holds(0)(demo, namespace, node)


def _leave(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    [learner] = node.ready(namespace, demo.learner_pods)
    demo.report(iteration=0, policyVersion=0)
    node.finish(learner, exit_code=WAITING)


def _samples(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    _leave(demo, namespace, node)
    node.ready(namespace, demo.sampler_pods)
    demo.until_phase("Sampling")


def _is_the_turn_of(whose: str) -> Happening:
    def look(demo: RunView, namespace: str, node: SimulatedNode) -> None:
        assert demo.status()["turn"] == whose

    return look


def _two_are_counted(demo: RunView, namespace: str, node: SimulatedNode) -> None:
    eventually(lambda: demo.status()["samplers"]["summary"] == "2/2", "count of both samplers")


ALTERNATE = {"sampler.rollStrategy": "Alternate"}
MOMENTS = {
    "new": Moment(None, nothing, "Starting"),
    "crashed": Moment(_works, crash, "Restarting", restarts=1, pods=(0, 1)),
    "suspended": Moment(_works, lambda demo, *_: demo.change({"suspend": True}), "Suspended", pods=(0, 0)),
    "resumed": Moment(_is_suspended, lambda demo, *_: demo.change({"suspend": False}), "Starting", attempt=2),
    "scaled": Moment(
        _works,
        lambda demo, *_: demo.change({"sampler": {"replicas": 2}}),
        "Starting",
        pods=(1, 2),
        then=_two_are_counted,
    ),
    "published": Moment(
        _is_rolled,
        lambda demo, *_: demo.report(iteration=1, policyVersion=1),
        "Sampling",
        spec={"sampler.rollStrategy": "RollingUpdate", "sampler.maxUnavailable": 1},
        then=_holds(1),
    ),
    "left": Moment(_learns, _leave, "Sampling", pods=(0, 1), spec=ALTERNATE, then=_is_the_turn_of("samplers")),
    "sampled": Moment(
        _samples,
        lambda demo, *_: demo.report_sampled(1),
        "Starting",
        attempt=2,
        pods=(1, 0),
        spec=ALTERNATE,
        then=_is_the_turn_of("learner"),
    ),
    "done": Moment(_works, _finish, "Complete", pods=(0, 0)),
    "expired": Moment(
        _is_complete,
        lambda *_: time.sleep(TTL_SECONDS + 1),
        "Complete",
        pods=(0, 0),
        spec={"ttlSecondsAfterFinished": TTL_SECONDS},
        then=_only_the_claim_is_left,
    ),
    "forked": Moment(_is_complete, _fork, "Starting", then=_knows_its_parent),
}
"""By name."""
