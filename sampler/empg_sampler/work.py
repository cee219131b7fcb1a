"""One claimed unit on its way from prompts to graded trajectories. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

from empg.api.task import GraderSpec
from empg.rundir.plan import Plan, PlannedPrompt, Unit, sample_seed
from empg.rundir.status import Claim
from empg.trajectory import Trajectory
from empg.verdict import Grade
from empg_sampler.engine import Completion

TRIES = 3
"""How often one answer is asked for before its unit fails."""


class Answer(NamedTuple):
    """Which answer of which unit: the key of engine requests and of grades."""

    kind: str
    iteration: int
    unit: str
    attempt: int
    prompt: int
    """Index in the unit."""
    sample: int
    tried: int
    """Times it was asked for before."""

    @property
    def of(self) -> tuple[str, int, str, int]:
        """The attempt at a unit that it belongs to."""
        return self[:4]

    @property
    def request_id(self) -> str:
        """Name of its request in the engine."""
        return "/".join(map(str, self))

    @classmethod
    def parse(cls, request_id: str) -> Answer:
        """The answer that `request_id` names."""
        kind, iteration, unit, *numbers = request_id.split("/")
        return cls(kind, int(iteration), unit, *map(int, numbers))


@dataclass
class Work:
    """A unit in hand."""

    plan: Plan
    unit: Unit
    attempt: int
    claim: Claim
    grader: GraderSpec
    """What grades its answers."""
    suspect: bool = False
    """An attempt at it failed before."""
    asked: dict[tuple[int, int], Answer] = field(default_factory=dict)
    """What the engine is at work on, by index of the prompt in the unit and of the sample."""
    completions: dict[tuple[int, int], Completion] = field(default_factory=dict)
    grades: dict[tuple[int, int], Grade] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What its answers are `of`."""
        return self.plan.kind, self.plan.iteration, self.unit.name, self.attempt

    @property
    def name(self) -> str:
        """For people: `rollout 7, unit 00-0003.0`."""
        return f"{self.plan.kind} {self.plan.iteration}, unit {self.unit.name}.{self.attempt}"

    @property
    def sequences(self) -> int:
        """Answers that the unit needs."""
        return len(self.unit.prompts) * self.plan.samples

    @property
    def done(self) -> bool:
        """Whether every answer is graded."""
        return len(self.grades) == self.sequences

    def answers(self) -> Iterator[Answer]:
        """All answers to ask for, prompt by prompt, so that the samples of a prompt share its cached prefix."""
        for prompt in range(len(self.unit.prompts)):
            for sample in range(self.plan.samples):
                yield Answer(*self.key, prompt, sample, 0)

    def prompt(self, answer: Answer) -> PlannedPrompt:
        """The problem of an answer."""
        return self.unit.prompts[answer.prompt]

    def seed(self, answer: Answer) -> int:
        """Seed of an answer: the same whoever samples it, and at every try."""
        plan = self.plan
        return sample_seed(plan.seed, plan.kind, plan.iteration, self.prompt(answer).prompt_id, answer.sample)

    def rows(self) -> list[Trajectory]:
        """The finished unit in plan order."""
        assert self.done, "rows of a unit that is not graded"
        return [self._row(*place) for place in sorted(self.completions)]

    def _row(self, prompt: int, sample: int) -> Trajectory:
        planned = self.unit.prompts[prompt]
        completion, grade = self.completions[prompt, sample], self.grades[prompt, sample]
        return Trajectory(
            run=self.plan.run,
            iteration=self.plan.iteration,
            unit=self.unit.name,
            prompt_id=planned.prompt_id,
            sample=sample,
            prompt=planned.prompt,
            prompt_ids=planned.prompt_ids,
            response_ids=completion.token_ids,
            response=completion.text,
            logprobs=completion.logprobs,
            policy_versions=completion.policy_versions,
            finish_reason=cast(Literal["stop", "length"], completion.finish_reason),
            reward=grade.reward,
            rewards=dict(grade.parts),
            verdict=grade.verdict,
        )
