"""What samplers are asked to do: plans of units, written by the learner before samplers need them."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from empg.api.task import GraderSpec


class Record(BaseModel):
    """A frozen JSON document of the run directory. Unknown keys are errors: they mean another version wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sampling(Record):
    """How the answers of a plan are sampled. Temperature 0 is greedy."""

    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(ge=0)
    max_tokens: int = Field(ge=1)
    stop: tuple[str, ...] = ()


class PlannedPrompt(Record):
    """One problem as the sampler needs it: token ids to continue and the gold answer to grade against."""

    prompt_id: str
    prompt: str
    prompt_ids: tuple[int, ...] = Field(min_length=1)
    gold: str


class Unit(Record):
    """The piece of work that is claimed, computed and committed as a whole."""

    name: str = Field(pattern=r"^[0-9]{2}-[0-9]{4,}$")
    """`<round>-<index>`; unique within the iteration."""
    prompts: tuple[PlannedPrompt, ...] = Field(min_length=1)


class Plan(Record):
    """One round of work for one iteration (`rollout/<t>/plan/<round>.json`) or evaluation (`eval/<t>/plan/…`)."""

    format: Literal[1] = 1
    run: str
    """UID of the run."""
    kind: Literal["rollout", "eval"]
    iteration: int = Field(ge=0)
    """For `eval`: the policy version that is evaluated."""
    round: int = Field(ge=0, le=99)
    first: int = Field(0, ge=0)
    """Position of its first prompt in the order in which the run meets them; 0 for `eval`."""
    min_policy: int = Field(ge=0)
    """Oldest policy version a unit may be claimed with."""
    max_policy: int | None = Field(None, ge=0)
    """Newest one; evaluations are bound to one version, rollouts have no such bound."""
    seed: int
    samples: int = Field(ge=1)
    """Answers per prompt."""
    attempts: int = Field(3, ge=1)
    """Failed attempts after which a unit is void."""
    sampling: Sampling
    grader: GraderSpec
    task: str
    """Name of the task, which decides the default grader."""
    units: tuple[Unit, ...] = Field(min_length=1)

    @property
    def end(self) -> int:
        """Position after its last prompt. Plans of versions that wrote no `first` were of as many prompts each."""
        prompts = sum(len(unit.prompts) for unit in self.units)
        return prompts + (self.first if "first" in self.model_fields_set else self.iteration * prompts)

    def admits(self, policy: int) -> bool:
        """Whether a unit may be claimed with this policy version."""
        return self.min_policy <= policy and (self.max_policy is None or policy <= self.max_policy)


def sample_seed(seed: int, kind: str, iteration: int, prompt_id: str, sample: int) -> int:
    """63-bit seed of one answer. Hashed, so that neighbouring prompts and samples share no random stream."""
    key = f"{seed}|{kind}|{iteration}|{prompt_id}|{sample}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
