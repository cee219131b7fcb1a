"""``EMPGRun`` of ``empg.dev/v1alpha1``: the whole object."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from empg.api.base import Spec, field, section
from empg.api.em import EMSpec
from empg.api.evaluation import EvaluationSpec
from empg.api.guards import GuardsSpec
from empg.api.learner import LearnerSpec
from empg.api.lifecycle import DeadlinesSpec, RestartsSpec
from empg.api.model import ModelSpec
from empg.api.objective import ObjectiveSpec
from empg.api.optimizer import OptimizerSpec
from empg.api.sampler import SamplerSpec
from empg.api.storage import RetentionSpec, StorageSpec
from empg.api.task import TaskSpec

API_VERSION = "empg.dev/v1alpha1"
KIND = "EMPGRun"
MANAGED_BY = "empg.dev/operator"


class LoggingSpec(Spec):
    """What sampler and learner say."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = field("INFO", change="next-attempt")
    """Least severe message that is written."""


class RunSpec(Spec):
    """What a user asks for."""

    model: ModelSpec
    task: TaskSpec
    em: EMSpec
    objective: ObjectiveSpec = section(ObjectiveSpec)
    optimizer: OptimizerSpec = section(OptimizerSpec)
    sampler: SamplerSpec = section(SamplerSpec)
    learner: LearnerSpec = section(LearnerSpec)
    evaluation: EvaluationSpec = section(EvaluationSpec)
    storage: StorageSpec = section(StorageSpec)
    retention: RetentionSpec = section(RetentionSpec)
    guards: GuardsSpec = section(GuardsSpec)
    logging: LoggingSpec = section(LoggingSpec)
    restarts: RestartsSpec = section(RestartsSpec)
    deadlines: DeadlinesSpec = section(DeadlinesSpec)
    suspend: bool = field(False, change="live")
    """Give all pods and GPUs back; the run goes on from its newest state when this is false again."""
    ttl_seconds_after_finished: int | None = field(None, change="live", ge=0, le=100_000_000)
    """Remove the run's pods and other children this long after its end, never its claim. Absent: keep them."""
    queue_name: str | None = field(None, change="immutable", min_length=1, max_length=63)
    """Kueue queue of learner and samplers."""
    priority_class_name: str | None = field(None, change="immutable", min_length=1, max_length=253)
    """Priority class of all pods."""
    managed_by: str = field(MANAGED_BY, change="immutable", min_length=1, max_length=63)
    """Controller that is to reconcile the run; the operator leaves runs with another value alone."""

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if (self.sampler.top_p < 1 or self.sampler.top_k > 0) and self.objective.resolve().uses_ratio:
            raise ValueError(
                "sampler.topP and sampler.topK must stay at 1 and 0 with an objective that uses importance ratios "
                f"(objective.preset: {self.objective.preset}): log-probs of a truncated distribution would bias them"
            )
        longest = self.task.max_prompt_tokens + self.sampler.max_tokens
        if self.sampler.max_model_length is not None and self.sampler.max_model_length < longest:
            raise ValueError(
                f"sampler.maxModelLength ({self.sampler.max_model_length}) is below task.maxPromptTokens + "
                f"sampler.maxTokens ({longest})"
            )
        if self.em.samples_per_prompt < 2 and self.objective.resolve().needs_group:
            raise ValueError(
                f"em.samplesPerPrompt must be 2 or more for objective.preset: {self.objective.preset}, "
                "whose advantages compare the answers of one prompt"
            )
        if self.sampler.roll_strategy == "Alternate" and self.em.max_staleness > 0:
            raise ValueError(
                "em.maxStaleness must be 0 with sampler.rollStrategy: Alternate, under which samplers and learner "
                "never run at the same time"
            )
        return self

    @property
    def model_length(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.sampler.max_model_length or self.task.max_prompt_tokens + self.sampler.max_tokens


class Metadata(Spec):
    """The part of Kubernetes' object metadata that a run reads; everything else is kept out of the way."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=46)
    """Name of the run: lower-case letters, digits and '-'; 46 characters at most, so that children's names fit."""
    namespace: str | None = None
    uid: str | None = None
    """Set by the API server; a local run makes its own."""


class EMPGRun(Spec):
    """One training run."""

    api_version: Literal["empg.dev/v1alpha1"] = Field()
    kind: Literal["EMPGRun"] = Field()
    metadata: Metadata
    spec: RunSpec
    status: dict[str, Any] = Field(default_factory=dict)
    """Written by the operator and the learner."""

    def manifest(self) -> dict[str, Any]:
        """The object as JSON data with camelCase keys, defaults written out, without status."""
        return self.model_dump(mode="json", by_alias=True, exclude={"status"}, exclude_none=True)


def immutable_part(spec: RunSpec) -> dict[str, Any]:
    """The immutable fields of a spec, as nested JSON data with camelCase keys."""

    def pick(part: Spec) -> dict[str, Any]:
        picked: dict[str, Any] = {}
        for name, info in type(part).model_fields.items():
            value = getattr(part, name)
            extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            if extra.get("x-empg-change") == "immutable":
                picked[name] = value.model_dump(mode="json", by_alias=True) if isinstance(value, Spec) else value
            elif isinstance(value, Spec) and (below := pick(value)):
                picked[name] = below
        return picked

    return pick(spec)


def spec_digest(spec: RunSpec) -> str:
    """SHA-256 of the immutable part: two runs with the same digest train the same thing from the same start."""
    text = json.dumps(immutable_part(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
