"""Who the pods are to the API server, and what they may do there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from empg.api.run import EMPGRun
from empg_operator import names
from empg_operator.builders.metadata import metadata

RBAC = "rbac.authorization.k8s.io"
ROLES: tuple[names.Role, ...] = ("sampler", "learner")


def reports(run: EMPGRun, role: names.Role) -> bool:
    """Whether pods of the role write to the run's status, and so hold a token."""
    return role == "learner" or run.spec.sampler.roll_strategy == "Alternate"


def access(
    run: EMPGRun, in_use: Mapping[names.Role, Iterable[str]] = MappingProxyType({})
) -> tuple[dict[str, Any], ...]:
    """A ServiceAccount for each role, and a Role and RoleBinding for those that report.

    `in_use`: further accounts that pods of a role may have, from templates that were made before an edit.
    """
    return tuple(
        child
        for role in ROLES
        for child in (
            _account(run, role),
            *((_role(run, role), _binding(run, role, in_use.get(role, ()))) if reports(run, role) else ()),
        )
    )


def _account(run: EMPGRun, role: names.Role) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(run, names.service_account(run.metadata.name, role), role),
        "automountServiceAccountToken": False,
    }


def _role(run: EMPGRun, role: names.Role) -> dict[str, Any]:
    """Its own run and nothing else."""

    def rule(resource: str, *verbs: str) -> dict[str, Any]:
        return {
            "apiGroups": [names.GROUP],
            "resources": [resource],
            "resourceNames": [run.metadata.name],
            "verbs": list(verbs),
        }

    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": metadata(run, names.service_account(run.metadata.name, role), role),
        "rules": [rule(names.PLURAL, "get"), rule(f"{names.PLURAL}/status", "patch")],
    }


def _binding(run: EMPGRun, role: names.Role, in_use: Iterable[str]) -> dict[str, Any]:
    """Binds the account that a `podTemplate` names too: pods take one to be known to the services of a cloud."""
    name = names.service_account(run.metadata.name, role)
    accounts = dict.fromkeys((name, *_chosen_account(run, role), *sorted(in_use)))
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": metadata(run, name, role),
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [
            {"kind": "ServiceAccount", "name": account, "namespace": run.metadata.namespace} for account in accounts
        ],
    }


def _chosen_account(run: EMPGRun, role: names.Role) -> tuple[str, ...]:
    spec = (run.spec.sampler if role == "sampler" else run.spec.learner).pod_template.get("spec")
    account = spec.get("serviceAccountName") if isinstance(spec, dict) else None
    return (account,) if isinstance(account, str) and account else ()
