"""The chart, rendered by Helm itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hack.controlplane.access import Access

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/empg"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
KUBERNETES = "1.36.0"
"""What `helm template` is to render for; without it a Helm built from source would assume 1.20."""
MONITORING = "monitoring.coreos.com/v1"

Object = dict[str, Any]


def render(access: Access, *arguments: str, release: str = "rel", namespace: str = "empg-system") -> list[Object]:
    """All objects but hooks.

    CommandError: the chart refuses the values.
    """
    common = ("--namespace", namespace, "--no-hooks", "--kube-version", KUBERNETES)
    return parse(access.helm("template", release, str(CHART), *common, *arguments))


def notes(access: Access, *arguments: str) -> str:
    """What Helm says after an installation into the namespace `ops`, which takes place nowhere.

    CommandError: the chart refuses the values, or the cluster lacks a kind.
    """
    options = ("--dry-run=client", "--take-ownership", "--namespace", "ops")
    return access.helm("install", "rel", str(CHART), *options, *arguments).partition("\nNOTES:\n")[2]


def parse(text: str) -> list[Object]:
    """The objects of a rendered YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]


def pick(objects: list[Object], kind: str) -> Object:
    """The only object of a kind."""
    (found,) = (document for document in objects if document["kind"] == kind)
    return found


Right = tuple[str, str]
"""A verb, and a resource as `plural.group/subresource`."""


def allowed(access: Access, user: str, rights: Sequence[Right], namespace: str) -> list[Right]:
    """Those of the rights that the API server gives a user in a namespace."""
    reviews = "\n".join(json.dumps(_review(user, right, namespace)) for right in rights)
    answers = access.kubectl("create", "-f", "-", "-o", r'jsonpath={.status.allowed}{"\n"}', input=reviews).splitlines()
    return [right for right, answer in zip(rights, answers, strict=True) if answer == "true"]


def _review(user: str, right: Right, namespace: str) -> Object:
    verb, what = right
    resource, _, subresource = what.partition("/")
    plural, _, group = resource.partition(".")
    attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": namespace}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": ["system:authenticated"], "resourceAttributes": attributes},
    }
