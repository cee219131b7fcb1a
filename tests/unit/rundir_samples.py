"""Small plans, rows and directories for the tests of the run directory."""

from __future__ import annotations

from pathlib import Path

from empg.api.task import GraderSpec
from empg.rundir.identity import Identity, prepare
from empg.rundir.plan import Plan, PlannedPrompt, Sampling, Unit
from empg.store.posix import PosixStore
from empg.trajectory import Trajectory
from empg.verdict import Verdict

RUN = "uid-1"


def new_run(root: Path) -> PosixStore:
    """A prepared run directory."""
    store = PosixStore(root)
    prepare(store, Identity(uid=RUN, name="demo", spec_digest="0" * 64))
    return store


def a_plan(units: int = 2, *, iteration: int = 3, kind: str = "rollout", **changes: object) -> Plan:
    """Units of two prompts with two answers each."""
    return Plan.model_validate(
        {
            "run": RUN,
            "kind": kind,
            "iteration": iteration,
            "round": 0,
            "min_policy": 2,
            "seed": 0,
            "samples": 2,
            "sampling": Sampling(temperature=1, top_p=1, top_k=0, max_tokens=8),
            "grader": GraderSpec(name="exact"),
            "task": "dataset",
            "units": tuple(
                Unit(name=f"00-{unit:04d}", prompts=tuple(_prompt(2 * unit + k) for k in range(2)))
                for unit in range(units)
            ),
            **changes,
        }
    )


def rows_of(plan: Plan, unit: str, policy: int = 2, reward: float = 1.0) -> list[Trajectory]:
    """All answers that a plan wants of a unit."""
    [prompts] = [found.prompts for found in plan.units if found.name == unit]
    return [
        Trajectory(
            run=plan.run,
            iteration=plan.iteration,
            unit=unit,
            prompt_id=prompt.prompt_id,
            sample=sample,
            prompt=prompt.prompt,
            prompt_ids=prompt.prompt_ids,
            response_ids=(7, sample, 2),
            response=f" {sample}",
            logprobs=(-0.5, -1.25, 0.0),
            policy_versions=((policy, 3),),
            finish_reason="stop",
            reward=reward,
            rewards={"correct": reward},
            verdict=Verdict.CORRECT,
        )
        for prompt in prompts
        for sample in range(plan.samples)
    ]


def _prompt(index: int) -> PlannedPrompt:
    return PlannedPrompt(prompt_id=f"p{index}", prompt=f"What is {index}?", prompt_ids=(5, index), gold=str(index))
