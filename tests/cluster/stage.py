"""A place for many runs: one namespace, one node and one operator, which the tests of a module share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from operator_process import OperatorProcess
from pod_status import Pod
from run_documents import run
from run_view import RunView
from simulated_node import SimulatedNode
from waiting import eventually

from hack.controlplane.access import Access
from hack.rest import Rest

SMALL = {"sampler.accelerator": "", "learner.accelerator": ""}
"""Pods that need no GPU."""
SECONDS = 60.0
"""Enough for a few steps of controllers, scheduler and operator on a machine that others use too."""


@dataclass(frozen=True)
class Stage:
    """Where the runs of a module are."""

    cluster: Access
    namespace: str
    node: SimulatedNode
    operator: OperatorProcess
    rest: Rest

    def create(self, name: str, changes: Mapping[str, Any] | None = None, *, volume: bool = True) -> RunView:
        """A small run with changes by dotted keys; its claim has a volume, unless told otherwise.

        Its name is another one where the test is tried again, beside the run of the first try.
        """
        names = [each["metadata"]["name"] for each in self.rest.get(self._runs)["items"]]
        document = run(name if name not in names else f"{name}-again", {**SMALL, **(changes or {})})
        return RunView(self.rest, self.namespace, document, volume=volume)

    @property
    def _runs(self) -> str:
        return f"/apis/empg.dev/v1alpha1/namespaces/{self.namespace}/empgruns"

    def learners(self, view: RunView, count: int = 1) -> list[Pod]:
        """The learner's pods once so many are ready."""
        return self.node.ready(self.namespace, view.learner_pods, count, SECONDS)

    def samplers(self, view: RunView, count: int = 1) -> list[Pod]:
        """The samplers' pods once so many are ready."""
        return self.node.ready(self.namespace, view.sampler_pods, count, SECONDS)

    def start(self, name: str, changes: Mapping[str, Any] | None = None) -> tuple[RunView, Pod]:
        """A run whose one learner pod and samplers run; and that pod."""
        view = self.create(name, changes)
        [learner] = self.learners(view)
        self.samplers(view, view.created["spec"]["sampler"].get("replicas", 1))
        return view, learner

    def until_no_pods(self, view: RunView) -> None:
        """Wait until nothing of a run holds a device: all pods are gone, but for those of a learner that has ended."""
        selector = view.learner_pods.partition(",")[0]

        def none() -> bool:
            return all(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in self.pods(selector))

        eventually(none, f"end of the pods of {view.name}", SECONDS)

    def pods(self, selector: str = "") -> list[Pod]:
        """Pods of the namespace, those without a node included."""
        found: list[Pod] = self.rest.get(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector)["items"]
        return found

    def orphans(self) -> list[str]:
        """Names of pods whose owner is gone, or that have none: nobody would ever end them."""
        paths = {"Job": "/apis/batch/v1", "ReplicaSet": "/apis/apps/v1"}
        pods = self.pods()
        owners = {
            owner["metadata"]["uid"]
            for kind, path in paths.items()
            for owner in self.rest.get(f"{path}/namespaces/{self.namespace}/{kind.lower()}s")["items"]
        }
        return [
            pod["metadata"]["name"]
            for pod in pods
            if not any(owner["uid"] in owners for owner in pod["metadata"].get("ownerReferences", []))
        ]

    def until_no_orphans(self) -> None:
        """Wait until the garbage collector has taken all pods whose owner is gone."""
        eventually(lambda: not self.orphans(), "end of pods without owner", SECONDS)
