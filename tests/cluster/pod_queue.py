"""What Kueue's webhooks write when objects come in, by policies of the API server; and a queue of a Deployment's pods,
of which each is admitted alone."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from job_queue import LABEL
from pod_status import Pod
from waiting import eventually

from hack.rest import Document, Rest

PARENT = "kueue.x-k8s.io/pod-suspending-parent"
GATE = "kueue.x-k8s.io/admission"
_API = "/apis/admissionregistration.k8s.io/v1"
_JOB = "Object{spec: Object.spec{suspend: true}}"
_TEMPLATE = (
    "Object{spec: Object.spec{template: Object.spec.template{metadata: Object.spec.template.metadata{"
    f'labels: {{"{LABEL}": object.metadata.labels["{LABEL}"]}}, annotations: {{"{PARENT}": "deployment"}}}}}}}}}}'
)
_POD = (
    'Object{metadata: Object.metadata{labels: {"kueue.x-k8s.io/managed": "true"}}, '
    f'spec: Object.spec{{schedulingGates: [Object.spec.schedulingGates{{name: "{GATE}"}}]}}}}'
)
_SERVED_SECONDS = 30.0


class PodQueue:
    """Holds back every pod of the labelled Deployments of a namespace until it is admitted; Jobs with the label come in
    suspended, and are `JobQueue`'s from then on."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._rest = Rest(kubeconfig, "kueue")
        self._namespace = namespace
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._policies = {
            f"jobs-of-{namespace}": _policy("batch", "jobs", ("CREATE",), _JOB),
            f"deployments-of-{namespace}": _policy("apps", "deployments", ("CREATE", "UPDATE"), _TEMPLATE),
            f"pods-of-{namespace}": _policy("", "pods", ("CREATE",), _POD),
        }

    def __enter__(self) -> Self:
        """ApiError, 404: the API server is older than 1.36 and has no such policies."""
        for name, policy in self._policies.items():
            about = {"metadata": {"name": name}}
            self._rest.create(f"{_API}/mutatingadmissionpolicies", {**about, "spec": policy})
            where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self._namespace}}}
            binding = {"policyName": name, "matchResources": where}
            self._rest.create(f"{_API}/mutatingadmissionpolicybindings", {**about, "spec": binding})
        eventually(self._works, "effect of the policies", _SERVED_SECONDS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for name in self._policies:
            self._rest.delete(f"{_API}/mutatingadmissionpolicybindings/{name}")
            self._rest.delete(f"{_API}/mutatingadmissionpolicies/{name}")

    def until_waiting(self, selector: str, count: int, seconds: float) -> list[str]:
        """Wait until exactly so many pods of the label selector are held back; their names."""

        def held() -> list[str] | None:
            found = self._rest.get(self._pods, labelSelector=selector)["items"]
            names = [pod["metadata"]["name"] for pod in found if _is_held(pod)]
            return names if len(names) == count else None

        return eventually(held, f"{count} pods of {selector} that wait", seconds)

    def admit(self, name: str) -> None:
        """Let a pod go."""
        self._rest.patch(f"{self._pods}/{name}", {"spec": {"schedulingGates": None}}, fieldManager="kueue")

    def preempt(self, name: str) -> None:
        """Take a pod its place: it goes, and its Deployment makes another one."""
        self._rest.delete(f"{self._pods}/{name}")

    def _works(self) -> bool:
        containers = [{"name": "probe", "image": "probe"}]
        about = {"metadata": {"name": "probe", "labels": {LABEL: "probe"}}}
        template = {"metadata": {"labels": {"app": "probe"}}, "spec": {"containers": containers}}
        selector = {"matchLabels": {"app": "probe"}}
        once = {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}

        def tried(collection: str, spec: Document) -> Document:
            return self._rest.create(f"{collection}?dryRun=All", {**about, "spec": spec})

        job = tried(f"/apis/batch/v1/namespaces/{self._namespace}/jobs", {"template": once})
        deployment = tried(
            f"/apis/apps/v1/namespaces/{self._namespace}/deployments", {"selector": selector, "template": template}
        )
        pod = tried(self._pods, {"containers": containers})
        marked = LABEL in deployment["spec"]["template"]["metadata"]["labels"]
        return marked and _is_held(pod) and bool(job["spec"].get("suspend"))


def _is_held(pod: Pod) -> bool:
    gates = pod["spec"].get("schedulingGates", [])
    return "deletionTimestamp" not in pod["metadata"] and {"name": GATE} in gates


def _policy(group: str, resource: str, operations: tuple[str, ...], change: str) -> Document:
    rule: dict[str, Any] = {"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}
    labelled = f'has(object.metadata.labels) && "{LABEL}" in object.metadata.labels'
    return {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [{**rule, "operations": list(operations)}]},
        "matchConditions": [{"name": "labelled", "expression": labelled}],
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}],
    }
