"""What the builders make is what a real API server takes, keeps and gives back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from run_documents import MISSING, Runs
from run_documents import run as document
from waiting import eventually

from empg.api.load import parse_run
from empg.api.run import EMPGRun
from empg.api.status import Lineage
from empg_operator import names
from empg_operator.builders.children import standing_children
from empg_operator.builders.learner import learner_job, learner_pod_template
from empg_operator.builders.sampler import sampler_deployment, sampler_pod_template
from empg_operator.builders.storage import claim
from empg_operator.drift import applicable, drifted
from empg_operator.kinds import by_name
from empg_operator.revisions import controller_revision, template_digest
from empg_operator.settings import Settings
from hack.controlplane.access import Access
from hack.rest import Document, Rest

SETTINGS = Settings(
    network_policies=True,
    api_server_cidrs=("10.0.0.1/32", "fd00::/64"),
    extra_egress=({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]},),
    image_pull_secrets=("hub", "mirror"),
)
PARENT = Lineage(run="base", claim_name="base-data", path="base", policy=3)

ODD_FIELDS: Document = {
    "metadata": {
        "labels": {"env": "test", "empty": ""},
        "annotations": {"kubectl.kubernetes.io/default-container": None, "empty": ""},
    },
    "spec": {
        "hostNetwork": False,
        "hostPID": False,
        "nodeSelector": {},
        "priority": None,
        "schedulerName": "default-scheduler",
        "topologySpreadConstraints": [
            {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "tolerations": [{"operator": "Exists", "tolerationSeconds": 0, "effect": "NoExecute", "key": "", "value": ""}],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1024Mi"}}, {"name": "more", "emptyDir": {}}],
        "initContainers": [
            {
                "name": "sidecar",
                "image": "sidecar:1",
                "restartPolicy": "Always",
                "args": [],
                "tty": False,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"], "add": []},
                    "runAsNonRoot": True,
                },
                "readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 0},
                "volumeMounts": [{"name": "more", "mountPath": "/more", "readOnly": False, "subPath": ""}],
            }
        ],
    },
}
"""What a user may write of fields that the API server drops, fills in or spells otherwise."""


def with_container(role: str, **fields: Any) -> Document:
    spec = {**ODD_FIELDS["spec"], "containers": [{"name": role, **fields}]}
    return {**ODD_FIELDS, "spec": spec}


RUNS: dict[str, dict[str, Any]] = {
    "the smallest": {},
    "all samplers replaced for a policy": {"sampler.rollStrategy": "RollingUpdate", "sampler.maxSurge": "50%"},
    "turns": {"sampler.rollStrategy": "Alternate"},
    "four nodes of eight": {"learner.nodes": 4, "learner.processes": 8, "sampler.tensorParallel": 4},
    "a claim of its own": {
        "storage.accessMode": "ReadWriteOnce",
        "storage.whenDeleted": "Delete",
        "storage.size": "1Gi",
    },
    "a claim that exists": {
        "storage.claimName": "shared",
        "queueName": "team",
        "priorityClassName": "system-node-critical",
    },
    "a fork": {"model.name": MISSING, "model.fromRun": {"name": "base"}},
    "no metrics": {"sampler.metricsPort": 0, "learner.metricsPort": 0},
    "patched templates": {
        "sampler.accelerator": "",
        "learner.accelerator": "",
        "sampler.podTemplate": with_container(
            "sampler",
            resources={"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 0.5, "memory": "0.5Gi"}},
            env=[{"name": "EMPTY", "value": ""}, {"name": "NUMBER", "value": "1000m"}],
            stdin=False,
            ports=[{"containerPort": 80, "hostIP": ""}],
        ),
        "learner.podTemplate": with_container(
            "learner", resources={"limits": {"cpu": 2, "memory": "1e9"}, "requests": {}}, workingDir=""
        ),
    },
}


@pytest.fixture
def rest(empgruns: Access, namespace: str) -> Rest:
    empgruns.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return Rest(empgruns.kubeconfig, "test-builders")


def apply(rest: Rest, manifest: Mapping[str, Any], **query: str) -> Document:
    about = manifest["metadata"]
    path = by_name(manifest["kind"]).path(about["namespace"], about["name"])
    query = {"fieldManager": names.FIELD_MANAGER, "force": "true", "fieldValidation": "Strict", **query}
    return rest.patch(path, dict(manifest), "apply", **query)


def create_run(rest: Rest, namespace: str, changes: Mapping[str, Any]) -> EMPGRun:
    created = Runs(rest, namespace).create(document("run", changes))
    return parse_run(json.dumps(created).encode(), "the API server's answer")


@pytest.mark.parametrize("case", RUNS)
def test_every_child_is_taken_and_found_again_as_it_was_applied(rest: Rest, namespace: str, case: str) -> None:
    run = create_run(rest, namespace, RUNS[case])
    templates = {
        "sampler": sampler_pod_template(run, SETTINGS, PARENT),
        "learner": learner_pod_template(run, SETTINGS, PARENT),
    }
    children = [
        *standing_children(run, SETTINGS, PARENT, False),
        sampler_deployment(run, templates["sampler"], 0, "run-sampler-12345678", 7, 2),
        learner_job(run, templates["learner"], 1, "run-learner-12345678"),
        *(
            controller_revision(run, role, template_digest(run, role), template, 1)
            for role, template in templates.items()
        ),
    ]
    for child in children:
        assert drifted(child, apply(rest, child, dryRun="All")) is False, child["kind"]
    for child in children:
        assert drifted(child, apply(rest, child)) is False, child["kind"]
    for role, template in templates.items():
        pod = {**template, "apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] = {**template["metadata"], "name": role}
        rest.create(f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict", pod)
    for child in children:
        if child["kind"] != "Job":  # created once and never applied again
            eventually(lambda child=child: is_noop(rest, child), f"application of {child['kind']} that changes nothing")


def is_noop(rest: Rest, child: Document) -> bool:
    """Whether applying it again leaves the object as it is; controllers may write meanwhile."""
    about = child["metadata"]
    before = rest.get(by_name(child["kind"]).path(about["namespace"], about["name"]))
    after = apply(rest, child)
    assert drifted(child, before) is False, child["kind"]
    return before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


EDITS: dict[str, tuple[str, Document]] = {
    "the samplers' image": (
        "Deployment",
        {"spec": {"template": {"spec": {"containers": [{"name": "sampler", "image": "other"}]}}}},
    ),
    "the number of samplers": ("Deployment", {"spec": {"replicas": 3}}),
    "the samplers' user": ("Deployment", {"spec": {"template": {"spec": {"securityContext": {"runAsUser": 7}}}}}),
    "a variable": (
        "Deployment",
        {
            "spec": {
                "template": {"spec": {"containers": [{"name": "sampler", "env": [{"name": "HOME", "value": "/"}]}]}}
            }
        },
    ),
    "a label": ("Service", {"metadata": {"labels": {names.RUN_LABEL: None}}}),
    "a selector": ("Service", {"spec": {"selector": {"more": "x"}}}),
    "the owner": ("ConfigMap", {"metadata": {"ownerReferences": None}}),
    "the run": ("ConfigMap", {"data": {"run.json": "{}"}}),
    "what a role allows": ("Role", {"rules": []}),
    "who has a role": ("RoleBinding", {"subjects": None}),
    "who may be talked to": ("NetworkPolicy", {"spec": {"egress": None}}),
    "whether pods get a token": ("ServiceAccount", {"automountServiceAccountToken": None}),
}
"""Strategic merge patches of somebody else."""


def test_what_others_change_is_found_and_repaired(rest: Rest, namespace: str) -> None:
    run = create_run(rest, namespace, {})
    deployment = sampler_deployment(run, sampler_pod_template(run, SETTINGS, None), 0, "run-sampler-1", None, None)
    children = [*standing_children(run, SETTINGS, None, False), deployment]
    for child in children:
        apply(rest, child)
    for what, (kind, patch) in EDITS.items():
        child = next(child for child in children if child["kind"] == kind)
        path = by_name(kind).path(namespace, child["metadata"]["name"])
        assert drifted(child, rest.patch(path, patch, "strategic", fieldManager="somebody")) is True, what
        assert drifted(child, apply(rest, child)) is False, what


def test_a_claim_belongs_to_the_run_for_as_long_as_it_is_to_go_with_it(rest: Rest, namespace: str) -> None:
    run = create_run(rest, namespace, {})
    kept, gone = claim(run), claim(with_storage(run, when_deleted="Delete"))
    assert kept is not None
    assert gone is not None
    assert "ownerReferences" not in apply(rest, kept)["metadata"]
    for now, before in ((gone, kept), (kept, gone)):
        path = by_name("PersistentVolumeClaim").path(namespace, before["metadata"]["name"])
        assert drifted(now, rest.get(path)) is True
        after = apply(rest, now)
        assert after["metadata"].get("ownerReferences", []) == now["metadata"].get("ownerReferences", [])
        assert drifted(now, after) is False


def test_a_claim_grows_once_it_has_a_volume_and_keeps_the_rest(rest: Rest, namespace: str) -> None:
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": f"class-of-{namespace}"},
        "provisioner": "none",
        "allowVolumeExpansion": True,
    }
    rest.create("/apis/storage.k8s.io/v1/storageclasses", storage_class)
    run = create_run(rest, namespace, {"storage.size": "2Gi", "storage.storageClassName": f"class-of-{namespace}"})
    first, larger = claim(run), claim(with_storage(run, size="3Gi"))
    other = claim(with_storage(run, size="1Gi", storage_class_name="other", access_mode="ReadWriteOnce"))
    assert first is not None
    assert larger is not None
    assert other is not None
    path = by_name("PersistentVolumeClaim").path(namespace, first["metadata"]["name"])
    pending = apply(rest, first)
    assert [drifted(each, pending) for each in (first, larger, other)] == [False, False, False]

    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"volume-of-{namespace}"},
        "spec": {
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": f"class-of-{namespace}",
            "claimRef": {"namespace": namespace, "name": first["metadata"]["name"]},
            "hostPath": {"path": "/nowhere"},
        },
    }
    rest.create("/api/v1/persistentvolumes", volume)
    try:
        eventually(lambda: rest.get(path)["status"]["phase"] == "Bound", "volume of the claim")
        bound = rest.get(path)
        assert [drifted(each, bound) for each in (first, larger, other)] == [False, True, False]
        assert apply(rest, applicable(larger, bound))["spec"]["resources"]["requests"]["storage"] == "3Gi"
        with_label = {**other, "metadata": {**other["metadata"], "labels": {**other["metadata"]["labels"], "new": "x"}}}
        assert drifted(with_label, rest.get(path)) is True
        assert drifted(with_label, apply(rest, applicable(with_label, rest.get(path)))) is False
    finally:
        rest.delete(f"/api/v1/persistentvolumes/volume-of-{namespace}")
        rest.delete(f"/apis/storage.k8s.io/v1/storageclasses/class-of-{namespace}")


def with_storage(run: EMPGRun, **changes: Any) -> EMPGRun:
    storage = run.spec.storage.model_copy(update=changes)
    return run.model_copy(update={"spec": run.spec.model_copy(update={"storage": storage})})
