"""One run that was applied to the cluster, as its user sees it: by kubectl, and by the files on its claim."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from live_cluster import ROOT, LiveCluster, until

from empg.rundir import keys
from empg.rundir.metrics import read_metrics
from empg.rundir.seal import Seal, read_seal
from empg.store.posix import PosixStore
from hack.rest import Document

START_SECONDS = 240.0
"""From a run's creation to its first sealed unit of work, with time to spare on a busy machine of two cores."""
_DEMO = ROOT / "manifests/examples/demo-cpu.yaml"
_REQUESTS = {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "6Gi"}}


def demo(name: str, **changes: Any) -> Document:
    """The CPU demo under another name, with requests that a machine of two cores can give, and without evaluations.

    `changes` are merged into its spec.
    """
    document: Document = yaml.safe_load(_DEMO.read_text())
    document["metadata"]["name"] = name
    for role in ("sampler", "learner"):
        document["spec"][role]["podTemplate"]["spec"]["containers"][0]["resources"] = _REQUESTS
    return {**document, "spec": merged(merged(document["spec"], {"evaluation": {"every": 0, "prompts": 0}}), changes)}


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> Document:
    """`new` over `old`, key by key."""
    both = {key: merged(old[key], new[key]) for key in old.keys() & new.keys() if isinstance(old[key], dict)}
    return {**old, **new, **both}


class AppliedRun:
    """A run that was applied to a namespace of the cluster."""

    def __init__(self, cluster: LiveCluster, namespace: str, document: Document) -> None:
        """Applies it, with the images of this cluster."""
        if cluster.images != "empg":
            image = document["spec"]["sampler"]["image"]
            document["spec"]["sampler"]["image"] = f"{cluster.images}/{image.partition('/')[2]}"
        self.cluster = cluster
        self.namespace = namespace
        self.name: str = document["metadata"]["name"]
        self.kubectl("apply", "-f", "-", input=json.dumps(document))

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Run kubectl in the run's namespace; what it printed. CommandError if it failed."""
        return self.cluster.access.kubectl("--namespace", self.namespace, *arguments, input=input)

    def document(self) -> Document:
        """The run as it is now."""
        return self.cluster.rest.get(f"/apis/empg.dev/v1alpha1/namespaces/{self.namespace}/empgruns/{self.name}")

    def status(self) -> Document:
        """Its status; empty before there is one."""
        found: Document = self.document().get("status", {})
        return found

    def condition(self, kind: str) -> Mapping[str, str]:
        """A condition of it; empty before there is one."""
        return next((one for one in self.status().get("conditions", ()) if one["type"] == kind), {})

    def columns(self) -> dict[str, str]:
        """What `kubectl get empgrun` prints, by column; an empty field is absent."""
        head, line = self.kubectl("get", "empgrun", self.name).rstrip("\n").split("\n")
        starts = [(match.group(), match.start()) for match in re.finditer(r"\S+", head)]
        ends = [start for _, start in starts[1:]] + [len(line)]
        cells = {name: line[start:end].strip() for (name, start), end in zip(starts, ends, strict=True)}
        return {name: cell for name, cell in cells.items() if cell}

    def pods(self, role: str) -> list[Document]:
        """Pods of a role (`sampler` or `learner`) that are not on their way out, oldest first."""
        selector = f"empg.dev/run={self.name},empg.dev/role={role}"
        found = self.cluster.rest.get(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector)["items"]
        alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(alive, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def containers(self) -> set[str]:
        """Names of all pods, with the number of restarts of their containers."""
        found = self.pods("sampler") + self.pods("learner")
        return {f"{pod['metadata']['name']} {pod['status']['containerStatuses'][0]['restartCount']}" for pod in found}

    def running(self, role: str) -> list[str]:
        """Names of the pods of a role that run."""
        return [pod["metadata"]["name"] for pod in self.pods(role) if pod["status"].get("phase") == "Running"]

    def delete_pod(self, name: str, grace_seconds: int | None = None) -> None:
        """What `kubectl delete pod --wait=false` does, but at once."""
        options = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        self.cluster.rest.delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}", **options)

    def events(self, reason: str) -> list[str]:
        """Messages of the run's events with this reason."""
        selector = f"involvedObject.name={self.name},reason={reason}"
        found = self.cluster.rest.get(f"/api/v1/namespaces/{self.namespace}/events", fieldSelector=selector)["items"]
        return [event["message"] for event in found]

    def directory(self) -> Path:
        """Its run directory."""
        storage = self.status()["storage"]
        return self.cluster.volume(self.namespace, storage["claimName"]) / storage["path"]

    def store(self) -> PosixStore:
        """The same, for the readers of `empg.rundir`."""
        return PosixStore(self.directory())

    def metrics(self) -> list[dict[str, Any]]:
        """A row for each iteration that was learned; none before there is a run directory."""
        if not self.status().get("storage"):
            return []
        directory = self.directory()
        return [dict(row) for row in read_metrics(PosixStore(directory))] if directory.exists() else []

    def until_learned(self, iterations: int, seconds: float = START_SECONDS) -> None:
        """Wait until so many iterations were learned, by the files."""
        self.until(lambda: len(self.metrics()) >= iterations, f"{iterations} learned iterations", seconds)

    def until(self, look: Callable[[], Any], what: str, seconds: float) -> Any:
        """Wait as `live_cluster.until` does, but not for a run that has failed."""

        def looked() -> Any:
            found = look()
            if not found:
                failed = self.condition("Failed")
                assert failed.get("status") != "True", failed["message"]
            return found

        return until(looked, f"{what} of {self.name}", seconds)

    def wait(self, condition: str, seconds: int) -> None:
        """`kubectl wait` for a condition of the run; it may take longer than a call of kubectl does."""
        self.until(lambda: self.condition(condition).get("status") == "True", condition, seconds)
        self.kubectl("wait", f"--for=condition={condition}", f"empgrun/{self.name}", "--timeout=5s")

    def seals(self) -> dict[int, Seal]:
        """Seals by iteration."""
        store = self.store()
        read = {number: read_seal(store, "rollout", number) for number in _numbers(store, "rollout")}
        return {number: seal for number, seal in read.items() if seal is not None}

    def policies(self) -> list[int]:
        """Versions that are published and were not removed again."""
        store = self.store()
        return [
            number
            for number in _numbers(store, keys.POLICIES)
            if "MANIFEST.json" in store.children(f"{keys.POLICIES}/{keys.number(number)}")
        ]


def _numbers(store: PosixStore, prefix: str) -> list[int]:
    found = (keys.parse_number(name) for name in store.children(prefix))
    return sorted(number for number in found if number is not None)
