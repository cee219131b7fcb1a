"""``spec.model``: the language model a run starts from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from empg.api.base import Spec, field


class FromRun(Spec):
    """A policy of another run to start from."""

    run_dir: str = field(change="immutable", min_length=1)
    """Run directory of the other run."""
    policy: int | None = field(None, change="immutable", ge=0)
    """Policy version; the newest one when absent."""


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
