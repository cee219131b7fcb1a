"""A node without containers: the real scheduler puts pods on it, and it says that they run.

What a kubelet would observe, a test decides: it ends pods with an exit code, evicts them, lets images be missing or
processes ignore SIGTERM. Controllers, scheduler and garbage collection are the real ones and act on what it says.
"""

from __future__ import annotations

import enum
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pod_status
from pod_status import Pod
from urllib3.exceptions import HTTPError

from hack.rest import ApiError, Rest, Watch

LEASE_SECONDS = 10.0
_NETWORKS = itertools.count()
_ABSENT = (404, 409)
"""No such pod; a pod of this name but another UID."""
_POLL_SECONDS = 0.02


class Start(enum.Enum):
    """What becomes of a pod when it arrives."""

    RUN = "its processes run and are ready"
    UNREADY = "its processes run and never become ready"
    HOLD = "its containers are being created, for ever"
    NO_IMAGE = "its image can't be pulled"


class SimulatedNode:
    """A node of the cluster while the `with` block lasts.

    Attributes may be changed at any time:
        start_as: what becomes of a pod when it arrives; everything runs unless told otherwise.
        sigterm_exit_code: with what a process ends on SIGTERM; None if it ignores it and is killed after its grace.
        linger_seconds: how long a pod stays whose end is told, as one does whose volumes are unmounted.
    """

    def __init__(self, kubeconfig: Path, name: str = "node-0", **capacity: str) -> None:
        """`capacity` is merged over 64 CPUs, 256 GiB, 110 pods and 8 GPUs; `_` and `__` in its keys are `.` and `/`."""
        resources = {"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"}
        changed = {key.replace("__", "/").replace("_", "."): amount for key, amount in capacity.items()}
        self.name = name
        self.start_as: Callable[[Pod], Start] = lambda pod: Start.RUN
        self.sigterm_exit_code: int | None = pod_status.SIGTERM_EXIT
        self.linger_seconds = 0.0
        self._resources = {**resources, **changed}
        self._rest = Rest(kubeconfig, "simulated-node")
        self._watch = Watch()
        self._addresses = (f"10.244.{next(_NETWORKS) % 256}.{host}" for host in itertools.cycle(range(2, 255)))
        self._given: dict[str, str] = {}
        """Addresses by the UIDs of pods."""
        self._stopping = threading.Event()
        self._terminated: set[str] = set()
        self._failure: BaseException | None = None
        self._path = f"/api/v1/nodes/{name}"
        self._mine = f"spec.nodeName={name}"
        self._threads = [threading.Thread(target=self._guard, args=(work,)) for work in (self._serve, self._renew)]

    def __enter__(self) -> Self:
        self._rest.create("/api/v1/nodes", self._node())
        for thread in self._threads:
            thread.start()
        self._wait(lambda: not self._rest.get(self._path)["spec"].get("taints"), "the node is not schedulable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """The node goes, and its pods with it."""
        self.lose()
        self._rest.delete(self._path)
        for pod in self._list():
            self._delete(pod)
        if self._failure and error is None:
            raise self._failure

    def pods(self, namespace: str, selector: str = "") -> list[Pod]:
        """Its pods of the namespace that match the label selector, by name."""
        found = self._list(labelSelector=selector)
        mine = [pod for pod in found if pod["metadata"]["namespace"] == namespace]
        return sorted(mine, key=lambda pod: pod["metadata"]["name"])

    def ready(self, namespace: str, selector: str = "", count: int = 1, seconds: float = 30.0) -> list[Pod]:
        """Wait until exactly `count` of these pods are ready and not being deleted; these, by name."""
        found: list[Pod] = []

        def enough() -> bool:
            pods = self.pods(namespace, selector)
            found[:] = [pod for pod in pods if pod_status.is_ready(pod) and not _leaving(pod)]
            return len(found) == count

        self._wait(enough, lambda: f"{len(found)} of {count} pods {selector or 'of ' + namespace} are ready", seconds)
        return list(found)

    def finish(self, pod: Pod, exit_code: int = 0, reason: str | None = None, message: str = "") -> None:
        """Its containers end; with `restartPolicy: Always` they are in a crash loop until `run` is called."""
        if pod["spec"].get("restartPolicy", "Always") == "Always":
            self._say(pod, pod_status.crashing(pod, exit_code, message))
        else:
            self._say(pod, pod_status.finished(pod, exit_code, reason, message))

    def run(self, pod: Pod) -> None:
        """Its containers run and are ready, whatever held them before."""
        self._say(pod, pod_status.running(pod, self._address(pod)))

    def set_ready(self, pod: Pod, ready: bool) -> None:
        """Its readiness probes succeed, or fail."""
        self._say(pod, pod_status.running(pod, self._address(pod), ready))

    def fail_image(self, pod: Pod) -> None:
        """Its image can't be pulled."""
        image = pod["spec"]["containers"][0]["image"]
        self._say(pod, pod_status.waiting(pod, "ImagePullBackOff", f'Back-off pulling image "{image}"'))

    def evict(self, pod: Pod) -> None:
        """Ask the API server to evict it, as a drain does: disruption budgets are obeyed, the pod gets its SIGTERM."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}}
        self._rest.create(f"{_path(pod)}/eviction", eviction)

    def evict_for_memory(self, pod: Pod) -> None:
        """Kill it because the node runs out of memory: no budget is asked, and the pod stays, failed."""
        self._say(pod, pod_status.evicted(pod))

    def refuse(self, pod: Pod, reason: str, message: str) -> None:
        """Its kubelet starts again and does not take it any more."""
        self._say(pod, pod_status.refused(reason, message))

    def lose(self) -> None:
        """The node falls silent: no more heartbeats, pods neither start nor stop."""
        self._stopping.set()
        self._watch.end()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """Tend each pod whenever it changes. A watch begins with all pods, so it can begin anew at any time."""
        while not self._stopping.is_set():
            for change, pod in self._rest.watch("/api/v1/pods", self._watch, fieldSelector=self._mine):
                if change != "DELETED":
                    self._tend(pod)

    def _tend(self, pod: Pod) -> None:
        uid = pod["metadata"]["uid"]
        if _leaving(pod):
            if uid not in self._terminated:
                self._terminated.add(uid)
                self._terminate(pod)
        elif not pod["status"].get("containerStatuses") and not pod_status.is_finished(pod):
            match self.start_as(pod):
                case Start.RUN:
                    self.run(pod)
                case Start.UNREADY:
                    self.set_ready(pod, False)
                case Start.HOLD:
                    self._say(pod, pod_status.waiting(pod, "ContainerCreating", ""))
                case Start.NO_IMAGE:
                    self.fail_image(pod)

    def _terminate(self, pod: Pod) -> None:
        """SIGTERM now, SIGKILL after the grace period for those that ignore it."""
        if pod_status.is_finished(pod):
            self._delete(pod)
        elif self.sigterm_exit_code is not None:
            self._end(pod, self.sigterm_exit_code)
        else:
            grace = pod["metadata"]["deletionGracePeriodSeconds"]
            self._later(grace, lambda: self._end(pod, pod_status.SIGKILL_EXIT))

    def _end(self, pod: Pod, exit_code: int) -> None:
        """The containers are gone: their end is told first, then the pod may go."""
        self._say(pod, pod_status.finished(pod, exit_code))
        if self.linger_seconds:
            self._later(self.linger_seconds, lambda: self._delete(pod))
        else:
            self._delete(pod)

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, self._guard, args=(work,))
        timer.daemon = True
        timer.start()

    def _say(self, pod: Pod, status: pod_status.Status) -> None:
        """Write a pod's status. A pod that is gone or was replaced by another of its name is left alone."""
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        with _absence_tolerated():
            self._rest.patch(f"{_path(pod)}/status", body, "strategic")

    def _delete(self, pod: Pod) -> None:
        with _absence_tolerated():
            self._rest.delete(_path(pod), gracePeriodSeconds=0, preconditions={"uid": pod["metadata"]["uid"]})

    def _address(self, pod: Pod) -> str:
        """The same for a pod however often it is told to run: a change of it may come before what was said is seen."""
        known = pod.get("status", {}).get("podIP")
        return self._given.setdefault(pod["metadata"]["uid"], known or next(self._addresses))

    def _list(self, **query: str) -> list[Pod]:
        return self._rest.get("/api/v1/pods", fieldSelector=self._mine, **query)["items"]

    def _renew(self) -> None:
        """Heartbeats, without which the node's pods are evicted."""
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        # From the first on with a time: after a lease without one the node controller takes no notice of the next ones.
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": _precise_now()}
        self._rest.create(leases, {"metadata": {"name": self.name}, "spec": spec})
        while not self._stopping.wait(LEASE_SECONDS):
            self._rest.patch(f"{leases}/{self.name}", {"spec": {"renewTime": _precise_now()}})
        self._rest.delete(f"{leases}/{self.name}")

    def _guard(self, work: Callable[[], None]) -> None:
        """Run in a thread; what goes wrong is raised in the test, unless the node is going anyway."""
        try:
            work()
        except (ApiError, HTTPError) as error:
            if not self._stopping.is_set():
                self._failure = error

    def _wait(self, done: Callable[[], bool], what: str | Callable[[], str], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if self._failure:
                raise self._failure
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {seconds:.0f} s {what() if callable(what) else what}")
            time.sleep(_POLL_SECONDS)

    def _node(self) -> dict[str, Any]:
        now = pod_status.timestamp()
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        return {
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
            "status": {
                "capacity": self._resources,
                "allocatable": self._resources,
                "conditions": [{**ready, "lastTransitionTime": now}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {},
            },
        }


def _precise_now() -> str:
    """Now, as leases have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _leaving(pod: Pod) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _path(pod: Pod) -> str:
    about = pod["metadata"]
    return f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}"


@contextmanager
def _absence_tolerated() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.code not in _ABSENT:
            raise
