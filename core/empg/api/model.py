"""``spec.model``: the language model a run starts from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from empg.api.base import Spec, field


class FromRun(Spec):
    """A policy of another run to start from."""

    name: str | None = field(None, change="immutable", min_length=1, max_length=46)
    """Name of another EMPGRun in the same namespace. Needs a cluster."""
    run_dir: str | None = field(None, change="immutable", min_length=1, max_length=4096)
    """Run directory of the other run. In a cluster: below the root of the claim that holds it, which is its name."""
    claim_name: str | None = field(None, change="immutable", min_length=1, max_length=253)
    """PersistentVolumeClaim that holds `runDir`. Absent: the claim of this run. Needs a cluster."""
    policy: int | None = field(None, change="immutable", ge=0)
    """Policy version; the newest one when absent."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.name is None) == (self.run_dir is None):
            raise ValueError("set exactly one of model.fromRun.name and model.fromRun.runDir")
        if self.claim_name is not None and self.run_dir is None:
            raise ValueError("model.fromRun.claimName goes with model.fromRun.runDir; remove it or set runDir")
        return self


class ModelSpec(Spec):
    """The base model: a hub id, a local directory in Hugging Face layout, or another run's policy."""

    name: str | None = field(None, change="immutable", min_length=1)
    """Hub id (`Qwen/Qwen2.5-1.5B`) or directory. A relative directory is relative to the manifest."""
    revision: str | None = field(None, change="immutable", min_length=1)
    """Hub revision: branch, tag or commit."""
    from_run: FromRun | None = field(None, change="immutable")
    """Start from another run's policy instead of `name`."""
    dtype: Literal["bfloat16", "float32"] = field("bfloat16", change="immutable")
    """Number type of published policies and of the samplers' weights."""
    trust_remote_code: bool = field(False, change="immutable")
    """Run Python code that ships with the model. Off: a model that needs it is refused."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.from_run is None):
            raise ValueError("set exactly one of model.name and model.fromRun")
        if self.revision is not None and self.name is None:
            raise ValueError("model.revision goes with model.name; remove it or set model.name")
        return self
