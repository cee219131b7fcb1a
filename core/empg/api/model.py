"""`spec.model`: the language model a run starts from."""

from __future__ import annotations

from typing import Literal

from empg.api.base import RUN_NAME, RUN_NAME_LENGTH, SUBDOMAIN, Spec, field
from empg.api.rule import Rule


class FromRun(Spec):
    """A policy of another run to start from."""

    name: str | None = field(None, change="immutable", max_length=RUN_NAME_LENGTH, pattern=RUN_NAME)
    """Name of another EMPGRun in the same namespace. Needs a cluster."""
    run_dir: str | None = field(None, change="immutable", min_length=1, max_length=4096)
    """Run directory of the other run, relative to the manifest. In a cluster: relative to the root of the claim that
    holds it, where it has the name of the run."""
    claim_name: str | None = field(None, change="immutable", max_length=253, pattern=SUBDOMAIN)
    """PersistentVolumeClaim that holds `runDir`. Absent: the claim of this run. Needs a cluster."""
    policy: int | None = field(None, change="immutable", ge=0, le=1_000_000)
    """Policy version; the newest one when absent."""

    rules = (
        Rule(
            "name",
            "set exactly one of model.fromRun.name and model.fromRun.runDir",
            cel="has(self.name) != has(self.runDir)",
            holds=lambda run: (run.name is None) != (run.run_dir is None),
        ),
        Rule(
            "claimName",
            "model.fromRun.claimName goes with model.fromRun.runDir; remove it or set runDir",
            cel="!has(self.claimName) || has(self.runDir)",
            holds=lambda run: run.claim_name is None or run.run_dir is not None,
        ),
    )


class ModelSpec(Spec):
    """The base model: a hub id, a local directory in Hugging Face layout, or another run's policy."""

    name: str | None = field(None, change="immutable", min_length=1, max_length=4096)
    """Hub id (`Qwen/Qwen2.5-1.5B`) or directory, relative to the manifest; in a cluster, to the root of the claim."""
    revision: str | None = field(None, change="immutable", min_length=1, max_length=255)
    """Hub revision: branch, tag or commit."""
    from_run: FromRun | None = field(None, change="immutable")
    """Start from another run's policy instead of `name`."""
    dtype: Literal["bfloat16", "float32"] = field("bfloat16", change="immutable")
    """Number type of published policies and of the samplers' weights."""
    trust_remote_code: bool = field(False, change="immutable")
    """Run Python code that ships with the model. Off: a model that needs it is refused."""

    rules = (
        Rule(
            "name",
            "set exactly one of model.name and model.fromRun",
            cel="has(self.name) != has(self.fromRun)",
            holds=lambda model: (model.name is None) != (model.from_run is None),
        ),
        Rule(
            "revision",
            "model.revision goes with model.name; remove it or set model.name",
            cel="!has(self.revision) || has(self.name)",
            holds=lambda model: model.revision is None or model.name is not None,
        ),
    )
