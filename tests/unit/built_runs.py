"""Runs as the API server has them, for tests of what is built from them."""

from __future__ import annotations

import json
from typing import Any

from empg.api.load import parse_run
from empg.api.run import EMPGRun
from empg.api.status import Lineage
from empg_operator.settings import Settings

SETTINGS = Settings(sampler_image="sampler:1", learner_image="learner:1")
PARENT = Lineage(run="base", uid="uid-of-base", claim_name="base-data", path="base", policy=3)


def built_run(**sections: Any) -> EMPGRun:
    """A small valid run named `demo`; a section replaces the one of the same name, keys are those of a manifest."""
    spec = {"model": {"name": "base-model"}, "task": {"name": "arithmetic"}, "em": {"iterations": 3}} | sections
    metadata = {"name": "demo", "namespace": "team", "uid": "uid-of-demo"}
    document = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": metadata, "spec": spec}
    return parse_run(json.dumps(document).encode(), "test")


def fork(**source: Any) -> EMPGRun:
    """A run that starts from a policy of another run."""
    return built_run(model={"fromRun": source})
