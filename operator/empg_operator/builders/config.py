"""The ConfigMap that samplers and learner read the run from."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from empg.api.run import EMPGRun
from empg.api.status import Lineage
from empg_operator import names
from empg_operator.builders.access import ROLES
from empg_operator.builders.metadata import metadata
from empg_operator.builders.storage import parent

KEY = PurePosixPath(names.SPEC_FILE).name


def config_map(run: EMPGRun, lineage: Lineage | None) -> dict[str, Any]:
    """ConfigMap with the run as its programs are to see it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run, names.config_map(run.metadata.name)),
        "data": {KEY: json.dumps(run_document(run, lineage), indent=1)},
    }


def run_document(run: EMPGRun, lineage: Lineage | None) -> dict[str, Any]:
    """The manifest for programs that know no API server, without what is at its default.

    A newer operator has fields that programs of an older image, which go on with the run, do not know. What it says of
    immutable fields follows from the run and its lineage alone, so that their digest never changes.
    """
    document = run.model_dump(mode="json", by_alias=True, exclude={"status"}, exclude_none=True, exclude_defaults=True)
    spec = document["spec"]
    for role in ROLES:
        # Indices of one machine's devices: a pod has those that it was given, numbered from 0.
        spec.get(role, {}).pop("devices", None)
    source, found = run.spec.model.from_run, parent(run, lineage)
    if source is not None and found is not None:
        policy = lineage.policy if source.name is not None and lineage is not None else source.policy
        spec["model"]["fromRun"] = {"runDir": found.directory} | ({} if policy is None else {"policy": policy})
    return document
