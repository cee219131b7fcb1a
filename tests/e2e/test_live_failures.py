"""Runs that can't work: their conditions and events say why and what to do, and a deadline ends what nobody mends."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import LiveCluster, until

from hack.rest import ApiError

PENDING_SECONDS = 45
FULL_MIB = 24
"""Room for the first policy and the first state of the demo, not for those that follow."""
_DEADLINES = {"deadlines": {"pendingSeconds": PENDING_SECONDS}}
SAMPLERS_SECONDS = 120
"""Of which the learner needs some to start, as samplers come after it."""


@pytest.fixture(scope="module")
def runs(release: LiveCluster, namespace: str) -> dict[str, AppliedRun]:
    """Runs that fail before they train, all at once: they wait for most of their time."""
    resources = {"requests": {"cpu": "1000"}, "limits": {"cpu": "1000"}}
    documents = (
        demo("image", learner={"image": f"{release.images}/trainer:missing"}, **_DEADLINES),
        demo("path", model={"name": "/opt/empg/examples/no-model"}),
        _with_learner(demo("large", **_DEADLINES), resources=resources),
        demo("sampler", sampler={"image": "empg/sampler:missing"}, deadlines={"pendingSeconds": SAMPLERS_SECONDS}),
    )
    return {document["metadata"]["name"]: AppliedRun(release, namespace, document) for document in documents}


def _with_learner(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    document["spec"]["learner"]["podTemplate"]["spec"]["containers"][0] |= changes
    return document


def test_an_image_that_can_not_be_had(runs: dict[str, AppliedRun]) -> None:
    run = runs["image"]
    [told] = until(lambda: run.events("ImagePullBackOff"), "cause", START_SECONDS)
    assert "trainer:missing" in told
    assert "correct spec.learner.image, or add its pull secret" in told
    message = _ends(run, "PendingDeadlineExceeded")
    assert "deadlines.pendingSeconds" in message
    assert "trainer:missing" in message


def test_a_sampler_s_image_that_can_not_be_had(runs: dict[str, AppliedRun]) -> None:
    run = runs["sampler"]
    [told] = until(lambda: run.events("ImagePullBackOff"), "cause", START_SECONDS)
    assert "correct spec.sampler.image, or add its pull secret" in told
    message = _ends(run, "PendingDeadlineExceeded")
    assert "deadlines.pendingSeconds" in message
    assert "sampler:missing" in message
    assert run.status()["restarts"] == 0


def test_a_request_that_no_node_can_meet(runs: dict[str, AppliedRun]) -> None:
    run = runs["large"]
    message = _ends(run, "PendingDeadlineExceeded")
    [told] = run.events("Unschedulable")
    for said in (message, told):
        assert "Insufficient cpu" in said
    assert "ask for less (spec.learner.processes, spec.learner.podTemplate)" in told


def test_a_model_that_is_not_there(runs: dict[str, AppliedRun]) -> None:
    """Trying again is pointless: the first attempt is the last."""
    run = runs["path"]
    message = _ends(run, "InvalidSpec")
    assert "model.name: there is no directory /opt/empg/examples/no-model; correct the path" in message
    assert run.status()["attempt"] == 1
    assert message in run.kubectl("describe", "empgrun", run.name)


@pytest.fixture
def small_claim(release: LiveCluster, namespace: str) -> Iterator[str]:
    """A claim of a volume that is soon full."""
    if release.directory is None:
        pytest.skip("small volumes are mounted on the node of a cluster of hack.cluster")
    path = release.directory / "volumes" / f"small-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    # Where the kubelet sees it, which has its mounts for itself.
    first = (release.directory / "first").read_text()
    inside = ("nsenter", f"--target={first}", "--pid", "--mount", "--")
    options = f"size={FULL_MIB}m,mode=0770,gid=1000"
    subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, timeout=30)
    try:
        volume = _volume(namespace, path)
        release.rest.create("/api/v1/persistentvolumes", volume)
        release.rest.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", _claim(volume))
        yield "small"
        _remove(release, namespace, volume["metadata"]["name"])
    finally:
        subprocess.run([*inside, "umount", "--lazy", str(path)], check=True, timeout=30)
        path.rmdir()


def test_a_full_disk(release: LiveCluster, namespace: str, small_claim: str) -> None:
    """No crash: it is tried again until there is room, or a deadline passes."""
    document = demo("full", storage={"claimName": small_claim}, em={"iterations": 50})
    del document["spec"]["storage"]["size"]
    run = AppliedRun(release, namespace, document)

    [told, *_] = run.until(lambda: run.events("LearnerStopped"), "event", START_SECONDS)
    assert "No space left on device" in told
    assert "free space on its volume, or enlarge it" in told

    def waits() -> bool:
        """For the next attempt, after the first of them."""
        ready = run.condition("LearnerReady")
        return ready.get("status") == "False" and "free space on its volume" in ready["message"]

    run.until(waits, "condition that tells of the full volume", START_SECONDS)
    assert run.status()["restarts"] == 0
    run.kubectl("patch", "empgrun", run.name, "--type=merge", "-p", '{"spec": {"deadlines": {"runSeconds": 1}}}')
    _ends(run, "RunDeadlineExceeded")


def _ends(run: AppliedRun, reason: str) -> str:
    """The run fails for this reason, lets go of its pods, and says so wherever a user looks; the message."""
    until(lambda: run.condition("Failed").get("status") == "True", f"end of {run.name}", START_SECONDS)
    failed = run.condition("Failed")
    assert failed["reason"] == reason, failed["message"]
    assert run.columns()["PHASE"] == "Failed"
    event = "DeadlineExceeded" if reason.endswith("DeadlineExceeded") else "Failed"
    assert until(lambda: run.events(event), "event", 30) == [f"{reason}: {failed['message']}"]
    until(lambda: not run.pods("sampler") and not run.running("learner"), f"end of the pods of {run.name}", 90)
    print(failed["message"])
    return failed["message"]


def _volume(namespace: str, path: Path) -> dict[str, Any]:
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}
    return {
        "metadata": {"name": path.name},
        "spec": {
            "storageClassName": "",
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": f"{FULL_MIB}Mi"},
            "claimRef": {"namespace": namespace, "name": "small"},
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
        },
    }


def _claim(volume: dict[str, Any]) -> dict[str, Any]:
    spec = {
        "storageClassName": "",
        "accessModes": ["ReadWriteMany"],
        "volumeName": volume["metadata"]["name"],
        "resources": {"requests": volume["spec"]["capacity"]},
    }
    return {"metadata": {"name": "small"}, "spec": spec}


def _remove(cluster: LiveCluster, namespace: str, volume: str) -> None:
    """The claim goes when no pod uses it any more, the volume after it."""
    access = cluster.access
    access.kubectl("delete", "empgruns", "--all", "-n", namespace)
    access.kubectl("delete", "pvc", "small", "-n", namespace, "--timeout=100s")
    access.kubectl("delete", "pv", volume, "--timeout=60s")
    with pytest.raises(ApiError, match="not found"):
        cluster.rest.get(f"/api/v1/persistentvolumes/{volume}")
