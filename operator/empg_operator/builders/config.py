"""The ConfigMap that samplers and learner read the run from."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from empg.api.run import EMPGRun
from empg.api.status import Lineage
from empg_operator import names
from empg_operator.builders.container import metrics_port
from empg_operator.builders.metadata import metadata
from empg_operator.builders.storage import parent

KEY = PurePosixPath(names.SPEC_FILE).name


def config_map(run: EMPGRun, lineage: Lineage | None) -> dict[str, Any]:
    """ConfigMap with the run as its programs are to see it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run, names.config_map(run.metadata.name)),
        "data": {KEY: json.dumps(run_document(run, lineage), sort_keys=True, separators=(",", ":"))},
    }


def run_document(run: EMPGRun, lineage: Lineage | None) -> dict[str, Any]:
    """The manifest for programs that know no API server: everything is a path or a number.

    What it says of immutable fields follows from the run and its lineage alone, so their digest never changes.
    """
    document = run.manifest()
    spec = document["spec"]
    for role, section in (("sampler", run.spec.sampler), ("learner", run.spec.learner)):
        spec[role]["metricsPort"] = metrics_port(section.metrics_port)
        # Indices of the devices of one machine: a pod has those that it was given, numbered from 0.
        del spec[role]["devices"]
    source, found = run.spec.model.from_run, parent(run, lineage)
    if source is not None and found is not None:
        policy = source.policy if source.policy is not None or lineage is None else lineage.policy
        spec["model"]["fromRun"] = {"runDir": found.directory} | ({} if policy is None else {"policy": policy})
    return document
