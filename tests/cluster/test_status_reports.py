"""Reports of learner and samplers to a real API server, with the rights that the operator gives their pods."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from run_documents import Runs
from run_documents import run as document
from waiting import eventually

from empg.api.load import parse_run
from empg.cluster.api_server import ApiError, RunGone, RunStatus
from empg.rundir.heartbeat import SamplerRecord
from empg.rundir.progress import Progress
from empg_operator import names
from empg_operator.builders.access import access
from empg_trainer.report import FIELD_MANAGER as LEARNER
from empg_trainer.report import progress_of, recent
from hack.controlplane.access import Access
from hack.rest import ApiError as RestError
from hack.rest import Document, Rest

SAMPLER = "empg-sampler"
HISTORY = {4: {"reward_mean": 0.5, "accuracy": 0.25, "kl_behaviour": 1e-3, "entropy": 1.5, "seconds_total": 9.0}}


class Cluster:
    """Runs of a test's namespace, and their pods' way to the API server."""

    def __init__(self, admin: Access, namespace: str, place: Path) -> None:
        self._admin = admin
        self._namespace = namespace
        self._place = place
        self._rest = Rest(admin.kubeconfig, "test-status-reports")
        self._runs = Runs(self._rest, namespace)
        self._path = f"/apis/empg.dev/v1alpha1/namespaces/{namespace}/empgruns"

    def create(self, name: str) -> Document:
        """A run with the accounts and rights that the operator makes for it. They stay when it is deleted: what a pod
        is told that goes on for a while must not depend on how soon they are collected."""
        created = self._runs.create(document(name, {"sampler.rollStrategy": "Alternate"}))
        run = parse_run(json.dumps(created).encode(), name)
        items = [{**each, "metadata": {**each["metadata"], "ownerReferences": []}} for each in access(run)]
        children = {"apiVersion": "v1", "kind": "List", "items": items}
        self._admin.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(children))
        return created

    def get(self, name: str) -> Document:
        return self._rest.get(f"{self._path}/{name}")

    def delete(self, name: str) -> None:
        self._rest.delete(f"{self._path}/{name}")

    def operator_writes(self, run: Document, status: Document) -> None:
        self._runs.apply_status(run, status, names.FIELD_MANAGER)

    def status_of(self, run: str, uid: str | None, manager: str, account_of: str) -> RunStatus:
        """What a pod of `account_of` writes to the status of `run` with."""
        role: names.Role = "learner" if manager == LEARNER else "sampler"
        user = self._admin.service_account(self._namespace, names.service_account(account_of, role))
        config = yaml.safe_load(user.kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        account = self._place / f"{account_of}-{role}"
        account.mkdir(exist_ok=True)
        (account / "token").write_text(config["users"][0]["user"]["token"])
        (account / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        server = urlsplit(cluster["server"])
        environment = {
            "KUBERNETES_SERVICE_HOST": str(server.hostname),
            "KUBERNETES_SERVICE_PORT": str(server.port),
            "EMPG_SERVICE_ACCOUNT": str(account),
            "EMPG_NAMESPACE": self._namespace,
            "EMPG_RUN": run,
        }
        return RunStatus.of_this_pod(environment, uid, manager)


@pytest.fixture
def cluster(empgruns: Access, namespace: str, tmp_path: Path) -> Cluster:
    return Cluster(empgruns, namespace, tmp_path)


def report(iteration: int) -> Document:
    """A report as the learner makes it."""
    learner = Progress(attempt=1, iteration=iteration, iterations=9, phase="sampling", policy=iteration)
    holding = SamplerRecord(id="pod-a", incarnation="i", counter=0, progress=0, policy=iteration - 1)
    progress = progress_of(2, learner, HISTORY, {0: 0.5}, [holding], "2026-01-02T03:04:05Z")
    return {
        "progress": progress.model_dump(mode="json", by_alias=True, exclude_none=True),
        "recent": [row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in recent(HISTORY, {})],
    }


def apply(status: RunStatus, fields: Document) -> None:
    """Write once the rights have come into force."""

    def written() -> bool:
        try:
            status.apply(fields)
        except ApiError as error:
            if "(403)" not in str(error):
                raise
            return False
        return True

    eventually(written, "rights of the account")


def test_reports_stand_beside_what_the_operator_writes(cluster: Cluster) -> None:
    run = cluster.create("one")
    uid = run["metadata"]["uid"]
    cluster.operator_writes(run, {"phase": "Sampling", "attempt": 2, "observedGeneration": 1})
    learner = cluster.status_of("one", uid, LEARNER, "one")
    apply(learner, report(5))
    apply(cluster.status_of("one", uid, SAMPLER, "one"), {"sampled": 2})
    cluster.operator_writes(run, {"phase": "Learning", "attempt": 2, "observedGeneration": 1})
    apply(learner, report(6))

    found = cluster.get("one")
    assert found["status"]["phase"] == "Learning"
    assert found["status"]["sampled"] == 2
    assert found["status"]["progress"] == report(6)["progress"]
    assert found["status"]["progress"]["laggards"] == ["pod-a"]
    assert found["status"]["recent"] == report(6)["recent"]
    managers = {
        entry["manager"] for entry in found["metadata"]["managedFields"] if entry.get("subresource") == "status"
    }
    assert managers == {names.FIELD_MANAGER, LEARNER, SAMPLER}


def test_a_report_that_changes_nothing_leaves_the_object_as_it_is(cluster: Cluster) -> None:
    run = cluster.create("still")
    learner = cluster.status_of("still", run["metadata"]["uid"], LEARNER, "still")
    apply(learner, report(5))
    before = cluster.get("still")["metadata"]["resourceVersion"]
    learner.apply(report(5))
    assert cluster.get("still")["metadata"]["resourceVersion"] == before


def test_pods_of_a_run_write_to_no_other_run(cluster: Cluster) -> None:
    mine, other = cluster.create("mine"), cluster.create("other")
    apply(cluster.status_of("mine", mine["metadata"]["uid"], LEARNER, "mine"), report(5))
    for manager in (LEARNER, SAMPLER):
        with pytest.raises(ApiError, match=r"\(403\)"):
            cluster.status_of("other", other["metadata"]["uid"], manager, "mine").apply(report(5))
    assert "progress" not in cluster.get("other").get("status", {})


def test_a_deleted_run_is_told_from_its_successor(cluster: Cluster) -> None:
    first = cluster.create("again")
    learner = cluster.status_of("again", first["metadata"]["uid"], LEARNER, "again")
    apply(learner, report(5))
    cluster.delete("again")
    eventually(lambda: _gone(cluster, "again"), "end of the run")
    with pytest.raises(RunGone, match="not found"):
        learner.apply(report(6))
    cluster.create("again")
    with pytest.raises(RunGone, match="has UID"):
        learner.apply(report(6))
    assert "progress" not in cluster.get("again").get("status", {})


def _gone(cluster: Cluster, name: str) -> bool:
    try:
        cluster.get(name)
    except RestError:
        return True
    return False
