"""Every way in which pods fail to run is named, with a remedy. Messages are as clusters word them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from empg_operator.cause_message import ENDING_LIMIT
from empg_operator.causes import GRAVITY, LIMIT, STARTING, cause, ending
from empg_operator.decision import Diagnosis
from empg_operator.names import Role

Json = dict[str, Any]

CREATED = "2026-11-21T10:00:00Z"
LATER = "2026-11-21T10:05:00Z"
SCHEDULED = {"type": "PodScheduled", "status": "True"}
READY = {"type": "Ready", "status": "True"}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
QUOTA = (
    'pods "demo-learner-1-0-{}" is forbidden: exceeded quota: team-quota, requested: requests.nvidia.com/gpu=8, '
    "used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=8"
)


def pod(
    role: Role = "sampler", name: str = "demo-sampler-5d9c-x2x7k", *, attempt: int = 1, at: str = CREATED, **status: Any
) -> Json:
    labels = {"empg.dev/run": "demo", "empg.dev/role": role}
    if role == "learner":
        labels["empg.dev/attempt"] = str(attempt)
    metadata = {"name": name, "labels": labels, "creationTimestamp": at}
    about = {"phase": "Pending", "conditions": [SCHEDULED], **status}
    return {"metadata": metadata, "spec": {"nodeName": "node-7"}, "status": about}


def waiting(reason: str, message: str | None = None, **more: Any) -> Json:
    state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return pod(containerStatuses=[container(state, **more)])


def container(state: Json, name: str = "sampler", **more: Any) -> Json:
    return {"name": name, "image": "registry/sampler:2", "ready": False, "restartCount": 0, "state": state, **more}


def terminated(code: int, message: str = "", reason: str = "Error", at: str = LATER) -> Json:
    found = {"exitCode": code, "reason": reason, "finishedAt": at}
    return {"terminated": found | ({"message": message} if message else {})}


def learner(code: int, message: str = "", *, index: int = 0, attempt: int = 1, **more: Any) -> Json:
    name = f"demo-learner-{attempt}-{index}-abcde"
    state = terminated(code, message, **more)
    return pod("learner", name, attempt=attempt, phase="Failed", containerStatuses=[container(state, "learner")])


def event(kind: str, name: str, reason: str, message: str, *, at: str = LATER, type: str = "Warning") -> Json:
    return {
        "metadata": {"name": f"{name}.17f", "creationTimestamp": CREATED},
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "type": type,
        "lastTimestamp": at,
        "eventTime": None,
        "series": None,
    }


def claim(phase: str) -> Json:
    return {"metadata": {"name": "demo-data"}, "spec": {}, "status": {"phase": phase}}


def unscheduled(message: str, reason: str = "Unschedulable") -> Json:
    return pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}])


def disrupted(reason: str, message: str) -> Json:
    found = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return pod(phase="Failed", conditions=[SCHEDULED, found])


def unready(reason: str | None = None, *, containers: str = "True") -> Json:
    ready = {"type": "Ready", "status": "False", **({"reason": reason} if reason else {})}
    found = pod(phase="Running", conditions=[SCHEDULED, {"type": "ContainersReady", "status": containers}, ready])
    return {**found, "status": {**found["status"], "containerStatuses": [container({"running": {}}, ready=True)]}}


def refused_pods(message: str) -> tuple[Json, ...]:
    return (event("ReplicaSet", "demo-sampler-5d9c", "FailedCreate", message),)


def claim_events(reason: str, message: str, **more: Any) -> tuple[Json, ...]:
    return (event("PersistentVolumeClaim", "demo-data", reason, message, **more),)


PULL = 'failed to pull and unpack image "docker.io/registry/sampler:2": not found'
TABLE: dict[str, tuple[Diagnosis, str, str]] = {
    "nothing is wrong": (Diagnosis(0, (waiting("ContainerCreating"),)), "Starting", "describe pods"),
    "nothing is there": (Diagnosis(0), "Starting", "being created"),
    "an image that is not there": (
        Diagnosis(0, (waiting("ErrImagePull", PULL),)),
        "ImagePullBackOff",
        r"sampler:2 can't be had: failed to pull.*not found; correct spec\.sampler\.image, or add its pull secret",
    ),
    "an image that is waited for": (
        Diagnosis(0, (waiting("ImagePullBackOff", 'Back-off pulling image "registry/sampler:2"'),)),
        "ImagePullBackOff",
        r"^Container sampler of pod demo-\S+: image registry/sampler:2 can't be had; correct spec\.sampler\.image",
    ),
    "an image with an impossible name": (
        Diagnosis(0, (waiting("InvalidImageName", 'couldn\'t parse image name "UPPER": invalid reference format'),)),
        "InvalidImageName",
        r"UPPER.*; correct spec\.sampler\.image\.$",
    ),
    "an image that is never pulled": (
        Diagnosis(0, (waiting("ErrImageNeverPull", "Container image is not present with pull policy of Never"),)),
        "ImagePullBackOff",
        "pull policy of Never",
    ),
    "the image of an init container": (
        Diagnosis(
            0,
            (
                pod(
                    initContainerStatuses=[container({"waiting": {"reason": "ErrImagePull", "message": PULL}}, "side")],
                    containerStatuses=[container({"waiting": {"reason": "PodInitializing"}})],
                ),
            ),
        ),
        "ImagePullBackOff",
        "Container side of pod",
    ),
    "a secret that is missing": (
        Diagnosis(0, (waiting("CreateContainerConfigError", 'secret "hub-token" not found'),)),
        "CreateContainerConfigError",
        r'secret "hub-token" not found; create what is missing, or correct spec\.sampler\.podTemplate',
    ),
    "a user that is root": (
        Diagnosis(0, (waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),)),
        "CreateContainerConfigError",
        "runAsNonRoot",
    ),
    "a command that is missing": (
        Diagnosis(0, (waiting("RunContainerError", 'exec: "empg-sampler": executable file not found in $PATH'),)),
        "RunContainerError",
        "executable file not found",
    ),
    "no node with so many devices": (
        Diagnosis(0, (unscheduled("0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) had taints."),)),
        "Unschedulable",
        r"^No node fits pod .*: 0/5 nodes.*taints; free or add nodes, or ask for less \(spec\.sampler\.tensorParallel",
    ),
    "a queue": (
        Diagnosis(0, (unscheduled("Scheduling is blocked due to non-empty scheduling gates", "SchedulingGated"),)),
        "SchedulingGated",
        "waits for its queue",
    ),
    "a claim that does not exist": (
        Diagnosis(0, (unscheduled('0/1 nodes are available: persistentvolumeclaim "shared" not found.'),)),
        "ClaimMissing",
        r'"shared" not found; create the claim, or correct spec\.storage\.claimName',
    ),
    "a claim without a storage class": (
        Diagnosis(
            0,
            (unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),),
            (claim("Pending"),),
            claim_events(
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
                type="Normal",
            ),
        ),
        "ClaimPending",
        r"^Claim demo-data has no volume: no persistent volumes.*no storage class is set; correct spec\.storage \(",
    ),
    "a claim whose volume can't be made": (
        Diagnosis(
            0,
            (),
            (claim("Pending"),),
            (
                *claim_events("ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found'),
                *claim_events(
                    "ExternalProvisioning",
                    "Waiting for a volume to be created",
                    at="2026-11-21T11:00:00Z",
                    type="Normal",
                ),
            ),
        ),
        "ClaimPending",
        '"fast" not found',
    ),
    "a claim of which nothing is said": (
        Diagnosis(0, (), (claim("Pending"),)),
        "ClaimPending",
        r"has no volume; correct",
    ),
    "a claim that waits for its first pod": (
        Diagnosis(
            0,
            (waiting("ContainerCreating"),),
            (claim("Pending"),),
            claim_events("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        ),
        "Starting",
        "",
    ),
    "a claim that lost its volume": (
        Diagnosis(0, (), (claim("Lost"),)),
        "ClaimLost",
        "demo-data lost its volume; rest",
    ),
    "a claim that is bound": (Diagnosis(0, (), (claim("Bound"),)), "Starting", ""),
    "no quota for samplers": (
        Diagnosis(0, (), (), refused_pods("Error creating: " + QUOTA.format("x"))),
        "ExceededQuota",
        r"^No sampler pod may be created: exceeded quota: team-quota.*gpu=8; raise the quota of the namespace",
    ),
    "a quota that needs limits": (
        Diagnosis(
            0, (), (), refused_pods('Error creating: pods "x" is forbidden: failed quota: q: must specify limits.cpu')
        ),
        "ExceededQuota",
        r"must specify limits\.cpu; .*ask for less in spec\.sampler",
    ),
    "Pod Security": (
        Diagnosis(
            0,
            (),
            (),
            refused_pods(
                'Error creating: pods "demo-sampler-5d9c-" is forbidden: violates PodSecurity "restricted:latest": '
                'privileged (container "sampler" must not set securityContext.privileged=true)'
            ),
        ),
        "PodSecurityViolation",
        r"must not set .*; take what violates it out of spec\.sampler\.podTemplate",
    ),
    "a webhook that refuses": (
        Diagnosis(0, (), (), refused_pods('Error creating: admission webhook "policy.example" denied the request: no')),
        "FailedCreate",
        'webhook "policy.example" denied',
    ),
    "a crash": (
        Diagnosis(
            0, (pod(phase="Running", containerStatuses=[container(terminated(1, "ValueError: no such model"))]),)
        ),
        "Crashed",
        r"ended with exit code 1: ValueError: no such model; `kubectl logs demo-sampler-5d9c-x2x7k -c sampler`",
    ),
    "crashes again and again": (
        Diagnosis(
            0,
            (
                waiting(
                    "CrashLoopBackOff",
                    "back-off 5m0s restarting failed container",
                    lastState=terminated(2, "RuntimeError: CUDA error: no device\n"),
                    restartCount=9,
                ),
            ),
        ),
        "CrashLoopBackOff",
        "exit code 2: RuntimeError: CUDA error: no device; ",
    ),
    "a probe that ends it again and again": (
        Diagnosis(
            0,
            (waiting("CrashLoopBackOff", lastState=terminated(75, "asked to stop by SIGTERM"), restartCount=6),),
        ),
        "CrashLoopBackOff",
        "exit code 75: asked to stop by SIGTERM",
    ),
    "a crash before it was started again": (
        Diagnosis(
            0,
            (
                pod(
                    phase="Running",
                    containerStatuses=[container({"running": {}}, lastState=terminated(2, "boom"), restartCount=1)],
                ),
            ),
        ),
        "CrashLoopBackOff",
        "exit code 2: boom",
    ),
    "a crash long ago": (
        Diagnosis(
            0,
            (
                pod(
                    phase="Running",
                    containerStatuses=[
                        container({"running": {}}, lastState=terminated(2, "boom"), restartCount=1, ready=True)
                    ],
                ),
            ),
        ),
        "Starting",
        "",
    ),
    "memory": (
        Diagnosis(0, (waiting("CrashLoopBackOff", lastState=terminated(137, reason="OOMKilled"), restartCount=3),)),
        "OOMKilled",
        r"used more memory than its limit; raise its memory limit in spec\.sampler\.podTemplate",
    ),
    "a volume that can't be mounted": (
        Diagnosis(
            0,
            (pod(containerStatuses=[container(CREATING)]),),
            (),
            (
                event(
                    "Pod",
                    "demo-sampler-5d9c-x2x7k",
                    "FailedMount",
                    'MountVolume.SetUp failed for volume "spec" : configmap "demo-run" not found',
                ),
            ),
        ),
        "FailedMount",
        r'"demo-run" not found; see that Secrets and ConfigMaps exist',
    ),
    "a volume that another node has": (
        Diagnosis(
            0,
            (pod(),),
            (),
            (
                event(
                    "Pod",
                    "demo-sampler-5d9c-x2x7k",
                    "FailedAttachVolume",
                    'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) other',
                ),
            ),
        ),
        "FailedAttachVolume",
        r"Multi-Attach.*; see that no other node holds the volume, or use storage\.accessMode: ReadWriteMany",
    ),
    "a network that fails": (
        Diagnosis(
            0,
            (pod(),),
            (),
            (event("Pod", "demo-sampler-5d9c-x2x7k", "FailedCreatePodSandBox", "cni plugin not initialized"),),
        ),
        "FailedCreatePodSandBox",
        "cni plugin not initialized; ask who runs the cluster",
    ),
    "a node that is lost": (
        Diagnosis(
            0,
            (pod(),),
            (),
            (event("Pod", "demo-sampler-5d9c-x2x7k", "NodeNotReady", "Node is not ready"),),
        ),
        "NodeLost",
        "does not answer",
    ),
    "a node that was given up": (
        Diagnosis(0, (disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),)),
        "NodeLost",
        r"NoExecute taint; another one takes its place and its open work\.$",
    ),
    "a node that fell silent": (
        Diagnosis(0, (unready(),)),
        "NodeLost",
        r"^The node of pod \S+ does not answer; unless it answers soon, the pod is given up \(tolerationSeconds",
    ),
    "containers that are not ready": (
        Diagnosis(0, (unready("ContainersNotReady", containers="False"),)),
        "Starting",
        "",
    ),
    "a gate of readiness": (Diagnosis(0, (unready("ReadinessGatesNotReady"),)), "Starting", ""),
    "preemption": (
        Diagnosis(0, (disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher"),)),
        "Preempted",
        "preempting to accommodate",
    ),
    "a drained node": (
        Diagnosis(0, (disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),)),
        "Evicted",
        "Eviction API: evicting; another one takes its place",
    ),
    "a full disk": (
        Diagnosis(
            0,
            (pod(phase="Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage."),),
        ),
        "Evicted",
        r"ephemeral-storage; if this goes on, let it ask for more in spec\.sampler\.podTemplate",
    ),
    "devices that are gone": (
        Diagnosis(
            0,
            (
                pod(
                    phase="Failed",
                    reason="UnexpectedAdmissionError",
                    message="Allocate failed due to requested number of devices unavailable for nvidia.com/gpu",
                ),
            ),
        ),
        "RefusedByNode",
        r"\(UnexpectedAdmissionError\): Allocate failed .*; if this goes on, see `kubectl describe node node-7`\.$",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_a_cause_is_named_with_a_remedy(case: str) -> None:
    diagnosis, reason, message = TABLE[case]
    found = cause(diagnosis, "sampler")
    assert found.reason == reason
    assert re.search(message, found.message), found.message
    assert found.message.endswith(".")


def test_all_reasons_are_ordered_and_all_but_the_rarest_are_tried() -> None:
    tried = {reason for _, reason, _ in TABLE.values()} - {STARTING.reason}
    assert tried <= set(GRAVITY)
    assert set(GRAVITY) - tried == {"CreateContainerError", "FailedMapVolume"}


def test_the_docs_say_what_to_do_about_every_reason() -> None:
    table = (Path(__file__).parents[2] / "docs/kubernetes.md").read_text().split("| reason | look at |")[1]
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table.split("\n\n")[0], re.MULTILINE))))
    assert set(GRAVITY) <= told


def test_what_explains_the_others_is_named() -> None:
    pods = (
        unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
        pod(name="demo-sampler-5d9c-other", phase="Failed", reason="Evicted", at=CREATED),
    )
    assert cause(Diagnosis(0, pods), "sampler").reason == "Unschedulable"
    assert cause(Diagnosis(0, pods, (claim("Pending"),)), "sampler").reason == "ClaimPending"
    assert cause(Diagnosis(0, (*pods, waiting("ErrImagePull", PULL))), "sampler").reason == "ImagePullBackOff"


def test_each_role_and_attempt_has_its_own_cause() -> None:
    refused = event("Job", "demo-learner-1", "FailedCreate", "Error creating: " + QUOTA.format("x"))
    diagnosis = Diagnosis(0, (learner(1, "boom", attempt=2), waiting("ErrImagePull", PULL)), (), (refused,))
    assert cause(diagnosis, "sampler").reason == "ImagePullBackOff"
    assert cause(diagnosis, "learner", 2).reason == "Crashed"
    assert cause(diagnosis, "learner", 3) == STARTING
    assert cause(Diagnosis(0, (), (), (refused,)), "learner", 1).reason == "ExceededQuota"
    assert cause(Diagnosis(0, (), (), (refused,)), "learner", 11) == STARTING
    assert cause(Diagnosis(0, (), (), (refused,)), "sampler") == STARTING


def test_what_follows_a_disruption_differs_by_role() -> None:
    lost = disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
    lost["metadata"]["labels"] = learner(1, "x")["metadata"]["labels"]
    found = cause(Diagnosis(0, (lost,)), "learner", 1)
    assert found.reason == "NodeLost"
    assert "the next attempt goes on from the newest state, when this pod has ended or soon after" in found.message


def test_a_refusal_ends_with_the_next_pod() -> None:
    refused = refused_pods("Error creating: " + QUOTA.format("x"))
    before, after = pod(at=CREATED), pod(at="2026-11-21T10:06:00Z")
    assert cause(Diagnosis(0, (before,), (), refused), "sampler").reason == "ExceededQuota"
    assert cause(Diagnosis(0, (before, after), (), refused), "sampler") == STARTING


def test_a_pod_that_was_replaced_explains_nothing() -> None:
    evicted = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    replacement = pod(name="demo-sampler-5d9c-other", at=LATER)
    assert cause(Diagnosis(0, (evicted, replacement)), "sampler") == STARTING
    assert cause(Diagnosis(0, (evicted,)), "sampler").reason == "Evicted"


def test_a_pod_that_is_being_deleted_explains_nothing() -> None:
    found = waiting("ErrImagePull", PULL)
    found["metadata"]["deletionTimestamp"] = LATER
    assert cause(Diagnosis(0, (found,)), "sampler") == STARTING


def test_the_same_trouble_gives_the_same_message_each_time() -> None:
    detail = f'Back-off pulling image "registry/sampler:2": ErrImagePull: {PULL}'
    pulls = [waiting("ErrImagePull", PULL), waiting("ImagePullBackOff", detail)]
    refusals = [refused_pods("Error creating: " + QUOTA.format(suffix)) for suffix in ("abcde", "fghij")]
    assert len({cause(Diagnosis(0, (each,)), "sampler") for each in pulls}) == 1
    assert len({cause(Diagnosis(0, (), (), each), "sampler") for each in refusals}) == 1


def test_the_newest_event_counts() -> None:
    events = (
        event("ReplicaSet", "demo-sampler-5d9c", "FailedCreate", "Error creating: old", at=CREATED),
        event("ReplicaSet", "demo-sampler-5d9c", "FailedCreate", "Error creating: new"),
    )
    assert "new" in cause(Diagnosis(0, (), (), events), "sampler").message
    series = {**events[0], "lastTimestamp": None, "series": {"count": 3, "lastObservedTime": "2026-11-21T10:09:00.1Z"}}
    assert "old" in cause(Diagnosis(0, (), (), (events[1], series)), "sampler").message


@pytest.mark.parametrize(
    ("code", "reason"), [(64, "InvalidSpec"), (65, "Diverged"), (75, "Retry"), (76, "Waiting"), (1, "Crashed")]
)
def test_an_exit_code_says_how_the_learner_ended(code: int, reason: str) -> None:
    found = ending(Diagnosis(0, (learner(code, "last words"),)), "learner", 1)
    assert found is not None
    assert found.reason == reason
    assert f"exit code {code}: last words; " in found.message


def test_the_first_failure_of_a_gang_is_the_cause() -> None:
    gang = (
        learner(75, "asked to stop", index=0, at="2026-11-21T10:04:00Z"),
        learner(143, "killed", index=1, at="2026-11-21T10:06:00Z"),
        learner(1, "the cause", index=2, at="2026-11-21T10:05:00Z"),
    )
    found = ending(Diagnosis(0, gang), "learner", 1)
    assert found is not None
    assert "the cause" in found.message
    assert ending(Diagnosis(0, gang), "learner", 2) is None
    assert ending(Diagnosis(0, (waiting("ContainerCreating"),)), "sampler") is None


def test_memory_is_named_before_the_exit_code() -> None:
    found = ending(Diagnosis(0, (learner(137, reason="OOMKilled"),)), "learner")
    assert found is not None
    assert found.reason == "OOMKilled"


def test_long_messages_are_cut_but_keep_what_matters() -> None:
    words = "Traceback\n" + "frame\n" * 500 + "ValueError: the end"
    found = ending(Diagnosis(0, (learner(1, words),)), "learner")
    assert found is not None
    assert len(found.message) == ENDING_LIMIT
    assert "ValueError: the end; `kubectl logs" in found.message
    told = cause(Diagnosis(0, (unscheduled("0/5000 nodes are available: " + "3 Insufficient x, " * 100),)), "sampler")
    assert len(told.message) == LIMIT
    assert "0/5000 nodes" in told.message
    assert told.message.endswith("spec.sampler.podTemplate).")
    endless = pod(name="x" * 600, phase="Failed", reason="Evicted", message="y" * 600)
    assert len(cause(Diagnosis(0, (endless,)), "sampler").message) == LIMIT
