"""What pods of a run may do at the API server: report on their own run, and nothing else."""

from __future__ import annotations

import json

import pytest
from run_documents import Runs
from run_documents import run as document

from empg.api.load import parse_run
from empg_operator import names
from empg_operator.builders.access import access
from empg_operator.kinds import RUN, by_name
from hack.controlplane.access import Access
from hack.rest import ApiError, Document, Rest

PROGRESS = {"attempt": 1, "iteration": 0, "iterations": 3, "phase": "sampling", "updated": "2026-11-21T10:00:00Z"}
REPORTS = {"learner": {"progress": PROGRESS}, "sampler": {"sampled": 1}}


@pytest.fixture
def admin(empgruns: Access) -> Rest:
    return Rest(empgruns.kubeconfig, "test-builders")


def admit(admin: Rest, created: Document) -> None:
    """Make the accounts of a run's pods."""
    for child in access(parse_run(json.dumps(created).encode(), "the API server's answer")):
        about = child["metadata"]
        path = by_name(child["kind"]).path(about["namespace"], about["name"])
        admin.patch(path, child, "apply", fieldManager=names.FIELD_MANAGER, force="true")


def report(rest: Rest, run: Document, role: names.Role) -> Document:
    about = run["metadata"]
    body = {"apiVersion": RUN.api_version, "kind": RUN.name, "status": REPORTS[role]}
    path = RUN.path(about["namespace"], about["name"], "status")
    return rest.patch(path, body, "apply", fieldManager=f"empg-{role}", force="true", fieldValidation="Strict")


@pytest.mark.parametrize("role", ["learner", "sampler"])
def test_pods_report_on_their_own_run_and_do_nothing_else(
    empgruns: Access, admin: Rest, namespace: str, role: names.Role
) -> None:
    runs = Runs(admin, namespace)
    own, other = (runs.create(document(name, {"sampler.rollStrategy": "Alternate"})) for name in ("own", "other"))
    admit(admin, own)
    account = Rest(empgruns.service_account(namespace, f"own-{role}").kubeconfig, "test-builders")
    path = RUN.path(namespace, "own")
    assert account.get(path)["metadata"]["uid"] == own["metadata"]["uid"]
    reported = report(account, own, role)
    assert reported["status"].items() >= REPORTS[role].items()

    refused = {
        "another run": lambda: report(account, other, role),
        "all runs": lambda: account.get(RUN.path(namespace)),
        "the spec": lambda: account.patch(path, {"spec": {"suspend": True}}),
        "deletion": lambda: account.delete(path),
        "secrets": lambda: account.get(f"/api/v1/namespaces/{namespace}/secrets"),
        "pods": lambda: account.get(f"/api/v1/namespaces/{namespace}/pods"),
    }
    for what, attempt in refused.items():
        with pytest.raises(ApiError) as error:
            attempt()
        assert error.value.code == 403, what


def test_samplers_that_do_not_take_turns_may_do_nothing(empgruns: Access, admin: Rest, namespace: str) -> None:
    own = Runs(admin, namespace).create(document("own"))
    admit(admin, own)
    account = Rest(empgruns.service_account(namespace, "own-sampler").kubeconfig, "test-builders")
    with pytest.raises(ApiError, match="cannot patch resource") as error:
        report(account, own, "sampler")
    assert error.value.code == 403
