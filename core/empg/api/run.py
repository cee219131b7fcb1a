"""`EMPGRun` of `empg.dev/v1alpha1`: the whole object."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from empg.api.base import LABEL, RUN_NAME, RUN_NAME_LENGTH, SUBDOMAIN, Spec, field, section
from empg.api.em import EMSpec
from empg.api.evaluation import EvaluationSpec
from empg.api.guards import GuardsSpec
from empg.api.knobs import COMPARES_GROUP, USES_RATIO, any_cel, any_met
from empg.api.learner import LearnerSpec
from empg.api.lifecycle import DeadlinesSpec, RestartsSpec
from empg.api.model import ModelSpec
from empg.api.objective import ObjectiveSpec
from empg.api.optimizer import OptimizerSpec
from empg.api.rule import Rule
from empg.api.sampler import SamplerSpec
from empg.api.storage import RetentionSpec, StorageSpec
from empg.api.task import TaskSpec

API_VERSION = "empg.dev/v1alpha1"
KIND = "EMPGRun"
MANAGED_BY = "empg.dev/operator"


class LoggingSpec(Spec):
    """What sampler and learner say, and where figures go besides the run directory's `metrics/`."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = field("INFO", change="next-attempt")
    """Least severe message that is written."""
    tensorboard: bool = field(False, change="live")
    """Write the figures of every iteration and evaluation for TensorBoard too, into the run directory's `tensorboard`.
    """


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
    queue_name: str | None = field(None, change="immutable", max_length=63, pattern=LABEL)
    """Kueue queue of learner and samplers."""
    priority_class_name: str | None = field(None, change="immutable", max_length=253, pattern=SUBDOMAIN)
    """Priority class of all pods."""
    managed_by: str = field(MANAGED_BY, change="immutable", min_length=1, max_length=63)
    """Controller that is to reconcile the run; the operator leaves runs with another value alone."""

    rules = (
        Rule(
            "sampler.topP",
            "sampler.topP and sampler.topK must stay at 1 and 0 with an objective that uses importance ratios or the "
            "sampler's log-probs ({self.objective.preset}): log-probs of a truncated distribution would bias them",
            cel=f"(self.sampler.topP == 1.0 && self.sampler.topK == 0) || !{any_cel(USES_RATIO, 'self.objective')}",
            holds=lambda run: (
                (run.sampler.top_p == 1 and run.sampler.top_k == 0) or not any_met(USES_RATIO, run.objective)
            ),
        ),
        Rule(
            "sampler.maxModelLength",
            "sampler.maxModelLength ({self.sampler.max_model_length}) is below task.maxPromptTokens "
            "({self.task.max_prompt_tokens}) + sampler.maxTokens ({self.sampler.max_tokens})",
            cel="!has(self.sampler.maxModelLength) || "
            "self.sampler.maxModelLength >= self.task.maxPromptTokens + self.sampler.maxTokens",
            holds=lambda run: (
                run.sampler.max_model_length is None
                or run.sampler.max_model_length >= run.task.max_prompt_tokens + run.sampler.max_tokens
            ),
        ),
        Rule(
            "em.samplesPerPrompt",
            "em.samplesPerPrompt must be 2 or more with an objective ({self.objective.preset}) whose advantages "
            "compare the answers of one prompt",
            cel=f"self.em.samplesPerPrompt >= 2 || !{any_cel(COMPARES_GROUP, 'self.objective')}",
            holds=lambda run: run.em.samples_per_prompt >= 2 or not any_met(COMPARES_GROUP, run.objective),
        ),
        Rule(
            "em.maxStaleness",
            "em.maxStaleness must be 0 with sampler.rollStrategy: Alternate, under which samplers and learner never "
            "run at the same time",
            cel="self.sampler.rollStrategy != 'Alternate' || self.em.maxStaleness == 0",
            holds=lambda run: run.sampler.roll_strategy != "Alternate" or run.em.max_staleness == 0,
        ),
    )

    @property
    def model_length(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.sampler.max_model_length or self.task.max_prompt_tokens + self.sampler.max_tokens


class Metadata(Spec):
    """The part of Kubernetes' object metadata that a run reads; everything else is kept out of the way."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)
    name: str = Field(pattern=RUN_NAME, max_length=RUN_NAME_LENGTH)
    """Name of the run: a lower-case letter, then lower-case letters, digits and '-'; 46 characters at most, so that
    children's names fit."""
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
        """The object as JSON data with camelCase keys, defaults written out, without status and without nulls that
        say no more than an absent key does."""
        data = self.model_dump(mode="json", by_alias=True, exclude={"status"})
        _drop_empty(data, self)
        return data


def _drop_empty(data: dict[str, Any], part: Spec) -> None:
    """Take keys out of the data of a model whose value is None, and is by default."""
    for name, info in type(part).model_fields.items():
        key, value = str(info.alias or name), getattr(part, name)
        if value is None and info.default is None:
            data.pop(key, None)
        elif isinstance(value, Spec):
            _drop_empty(data[key], value)


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


def immutable_difference(old: RunSpec, new: RunSpec) -> str | None:
    """Dotted path of the first immutable field in which two specs differ; None if they differ in none."""

    def differs(old: object, new: object, path: str) -> str | None:
        if not isinstance(old, dict) or not isinstance(new, dict):
            return None if old == new else path
        keys = [*old, *(key for key in new if key not in old)]
        paths = (differs(old.get(key), new.get(key), f"{path}.{key}") for key in keys)
        return next((found for found in paths if found), None)

    return differs(immutable_part(old), immutable_part(new), "spec")


def spec_digest(spec: RunSpec) -> str:
    """SHA-256 of the immutable part: two runs with the same digest train the same thing from the same start."""
    text = json.dumps(immutable_part(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
