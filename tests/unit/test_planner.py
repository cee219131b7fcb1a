"""Plans are pure functions of spec, task and iteration."""

from collections.abc import Sequence

import pytest

from empg.api.run import RunSpec
from empg.planner import evaluation_due, plan_evaluation, plan_rollout, trainable
from empg.rundir.plan import Plan, PlannedPrompt, sample_seed
from empg.rundir.records import decode
from empg.rundir.records import encode as encode_record
from empg.tasks.problem import Problem
from empg.tasks.source import FiniteSource, Task


def encode(text: str) -> list[int]:
    return list(text.encode())


def task(size: int) -> Task:
    problems = [Problem(prompt_id=f"p{i}", prompt=f"{i}?", gold=str(i)) for i in range(size)]
    heldout = tuple(problem.planned(encode) for problem in problems[:5])
    return Task(train=FiniteSource(tuple(problems), encode), heldout=heldout, dropped={})


def spec(**em: int) -> RunSpec:
    sections = {"iterations": 10, "promptsPerIteration": 4, "promptsPerUnit": 2, **em}
    evaluation = {"prompts": 5, "promptsPerUnit": 2, "every": 4, "samples": 3}
    return RunSpec.model_validate(
        {"model": {"name": "x"}, "task": {"name": "arithmetic"}, "em": sections, "evaluation": evaluation}
    )


def ids(prompts: Sequence[PlannedPrompt]) -> list[str]:
    return [prompt.prompt_id for prompt in prompts]


def test_a_rollout_plan_is_cut_into_units_and_repeats_exactly() -> None:
    plan = plan_rollout(spec(maxStaleness=1), "uid", 3, task(100), None)
    assert plan == plan_rollout(spec(maxStaleness=1), "uid", 3, task(100), None)
    assert [unit.name for unit in plan.units] == ["00-0000", "00-0001"]
    assert len({name for unit in plan.units for name in ids(unit.prompts)}) == 4
    assert (plan.min_policy, plan.max_policy, plan.samples) == (2, None, 8)


def test_the_order_of_prompts_follows_the_seed() -> None:
    def order(seed: int) -> list[str]:
        plan = plan_rollout(spec(seed=seed), "uid", 0, task(100), None)
        return [name for unit in plan.units for name in ids(unit.prompts)]

    assert order(0) != order(1)


def test_a_prompt_that_comes_twice_in_an_iteration_is_told_apart() -> None:
    plan = plan_rollout(spec(), "uid", 0, task(3), None)
    names = [name for unit in plan.units for name in ids(unit.prompts)]
    assert len(set(names)) == 4
    assert sum(name.endswith("#2") for name in names) == 1


def test_no_prompt_is_repeated_or_left_out_when_their_number_is_edited() -> None:
    before, met = None, []
    for iteration, prompts in enumerate((4, 4, 12, 12, 2, 2, 2, 2)):
        before = plan_rollout(spec(promptsPerIteration=prompts), "uid", iteration, task(40), before)
        met += [name for unit in before.units for name in ids(unit.prompts)]
    assert sorted(met) == sorted(f"p{number}" for number in range(40))


def test_a_plan_of_an_earlier_version_is_followed_by_what_follows() -> None:
    plan = plan_rollout(spec(), "uid", 7, task(100), None)
    old = Plan.model_validate_json(plan.model_dump_json(exclude={"first"}))
    assert plan_rollout(spec(), "uid", 8, task(100), old).first == 8 * 4


def edited(preset: str, top_p: float = 1.0, samples: int = 8) -> RunSpec:
    em = {"iterations": 10, "promptsPerIteration": 4, "samplesPerPrompt": samples}
    sections = {"objective": {"preset": preset}, "sampler": {"topP": top_p}, "em": em}
    return RunSpec.model_validate({"model": {"name": "x"}, "task": {"name": "arithmetic"}, **sections})


CUT, ONE, RATIO = edited("empg", top_p=0.9), edited("empg", samples=1), edited("grpo")


@pytest.mark.parametrize(
    ("wanted", "planned", "earlier", "preset"),
    [
        (RATIO, RATIO, [], "grpo"),
        (RATIO, CUT, [CUT], "empg"),
        (RATIO, ONE, [ONE], "empg"),
        (RATIO, CUT, [RATIO, RATIO, CUT], "empg"),  # edited there and back
        (CUT, RATIO, [RATIO], "empg"),
        (RATIO, CUT, [RATIO], None),
    ],
)
def test_an_objective_waits_for_what_was_planned_for_it(
    wanted: RunSpec, planned: RunSpec, earlier: list[RunSpec], preset: str | None
) -> None:
    plan = plan_rollout(planned, "uid", 0, task(100), None)
    found = trainable(wanted, [plan], earlier)
    assert (found and found.objective.preset) == preset
    if found:
        assert decode("spec", encode_record(found), RunSpec) == found
        assert found.em.iterations == wanted.em.iterations


def test_an_evaluation_is_greedy_and_then_averaged_on_one_policy() -> None:
    greedy, average = plan_evaluation(spec(), "uid", 8, task(20))
    assert (greedy.samples, greedy.sampling.temperature) == (1, 0.0)
    assert (average.samples, average.sampling.temperature) == (3, 1.0)
    assert [len(unit.prompts) for unit in greedy.units] == [2, 2, 1]
    assert [unit.name for unit in average.units] == ["01-0000", "01-0001", "01-0002"]
    assert (greedy.min_policy, greedy.max_policy) == (average.min_policy, average.max_policy) == (8, 8)


@pytest.mark.parametrize(("policy", "due"), [(0, True), (1, False), (4, True), (8, True), (9, False), (10, True)])
def test_the_first_every_nth_and_the_last_policy_are_evaluated(policy: int, due: bool) -> None:
    assert evaluation_due(spec(), policy) is due


@pytest.mark.parametrize(("iteration", "oldest"), [(0, 0), (1, 0), (5, 3)])
def test_staleness_bounds_the_oldest_policy(iteration: int, oldest: int) -> None:
    assert plan_rollout(spec(maxStaleness=2), "uid", iteration, task(20), None).min_policy == oldest


def test_seeds_do_not_collide() -> None:
    seeds = {
        sample_seed(seed, kind, iteration, f"p{prompt}", sample)
        for seed in range(2)
        for kind in ("rollout", "eval")
        for iteration in range(10)
        for prompt in range(50)
        for sample in range(10)
    }
    assert len(seeds) == 2 * 2 * 10 * 50 * 10
    assert all(0 <= seed < 2**63 for seed in seeds)
