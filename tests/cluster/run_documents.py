"""EMPGRuns as JSON documents, and requests about them to a real API server."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from hack.rest import ApiError, Document, Rest

MISSING = object()
"""As the value of a change: the key is taken out."""


def run(name: str, changes: Mapping[str, Any] | None = None) -> Document:
    """A small valid run with changes by dotted keys of the spec, as in `{"em.seed": 1}`."""
    spec: Document = {"model": {"name": "base"}, "task": {"name": "arithmetic"}, "em": {"iterations": 3}}
    document = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": name}, "spec": spec}
    return changed(document, changes or {})


def changed(document: Document, changes: Mapping[str, Any]) -> Document:
    """A copy of a run with changes by dotted keys of the spec."""
    document = copy.deepcopy(document)
    for place, value in changes.items():
        *parents, key = place.split(".")
        section = document["spec"]
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is MISSING:
            section.pop(key, None)
        else:
            section[key] = copy.deepcopy(value)
    return document


class Runs:
    """The runs of one namespace."""

    def __init__(self, rest: Rest, namespace: str) -> None:
        self._rest = rest
        self._path = f"/apis/empg.dev/v1alpha1/namespaces/{namespace}/empgruns"

    def create(self, document: Document) -> Document:
        """Create a run; the object as stored."""
        return self._rest.create(f"{self._path}?fieldValidation=Strict", document)

    def try_create(self, document: Document) -> Document:
        """The same without storing it."""
        return self._rest.create(f"{self._path}?fieldValidation=Strict&dryRun=All", document)

    def try_replace(self, document: Document) -> Document:
        """Check a whole new document for a run that exists, without storing it."""
        return self._rest.replace(self._of(document), document, fieldValidation="Strict", dryRun="All")

    def apply_status(self, document: Document, status: Document, manager: str) -> Document:
        """Apply a part of the status as a field manager."""
        part = {key: document[key] for key in ("apiVersion", "kind")} | {"status": status}
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        return self._rest.patch(f"{self._of(document)}/status", part, "apply", **query)

    def scale(self, document: Document) -> Document:
        """The scale subresource of a run."""
        return self._rest.get(f"{self._of(document)}/scale")

    def _of(self, document: Document) -> str:
        return f"{self._path}/{document['metadata']['name']}"


def causes(error: ApiError) -> list[tuple[str, str]]:
    """Field and message of each thing that the API server found wrong."""
    status = json.loads(str(error).partition(": ")[2])
    return [(cause["field"], cause["message"]) for cause in status["details"].get("causes", [])]
