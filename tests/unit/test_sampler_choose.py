import pytest
from rundir_samples import a_plan

from empg.rundir.plan import Plan
from empg_sampler.choose import Board, OpenUnit, claims_allowed, idle_wait, in_order, target_policy


def rollout(iteration: int, oldest: int | None = None, units: int = 2) -> Plan:
    return a_plan(units, iteration=iteration, min_policy=iteration if oldest is None else oldest)


def evaluation(policy: int) -> Plan:
    return a_plan(1, iteration=policy, kind="eval", min_policy=policy, max_policy=policy)


def board(*opened: Plan, held: tuple[Plan, ...] = ()) -> Board:
    units = [OpenUnit(plan, unit, 0) for plan in opened for unit in plan.units]
    return Board(tuple(units), held, frozenset())


@pytest.mark.parametrize(
    ("current", "available", "seen", "mine", "steady", "expected"),
    [
        pytest.param(3, {2, 3}, board(), (), False, 3, id="nothing to do"),
        pytest.param(3, {3, 4}, board(), (), False, 4, id="be ready for what comes"),
        pytest.param(3, {3, 5}, board(rollout(4)), (), False, 5, id="the newest, not the oldest that will do"),
        pytest.param(3, {3, 4}, board(rollout(3)), (rollout(3),), False, 4, id="swap under running rollouts"),
        pytest.param(3, {3, 4}, board(rollout(3)), (rollout(3),), True, 3, id="but not when deterministic"),
        pytest.param(3, {3, 4}, board(rollout(3)), (), True, 4, id="deterministic between units"),
        pytest.param(3, {3, 4}, board(evaluation(3), rollout(4)), (), False, 3, id="claim evaluations before leaving"),
        pytest.param(3, {3, 4}, board(rollout(4)), (evaluation(3),), False, 3, id="finish evaluations in hand"),
        pytest.param(4, {3, 4}, board(evaluation(3)), (), False, 3, id="go back for a missed evaluation"),
        pytest.param(4, {3, 4}, board(evaluation(3), rollout(4)), (), False, 4, id="not while there is other work"),
        pytest.param(4, {3, 4}, board(evaluation(3)), (rollout(4),), False, 4, id="not while anything is in hand"),
        pytest.param(4, {4}, board(evaluation(3)), (), False, 4, id="not to a policy that is gone"),
        pytest.param(3, {3, 4}, board(), (), False, 4, id="and forward again"),
        pytest.param(4, {2}, board(rollout(4)), (), False, 4, id="never back for rollouts"),
        pytest.param(3, {3, 4}, board(rollout(6)), (), False, 4, id="work for a policy to come"),
    ],
)
def test_target_policy(
    current: int, available: set[int], seen: Board, mine: tuple[Plan, ...], steady: bool, expected: int
) -> None:
    assert target_policy(current, available, seen, mine, steady=steady) == expected


def test_rollouts_come_before_evaluations_and_earlier_iterations_first() -> None:
    seen = board(evaluation(3), rollout(4, oldest=3), rollout(3))
    order = [(unit.plan.kind, unit.plan.iteration) for unit in in_order(seen, 3, "a")]
    assert order == [("rollout", 3)] * 2 + [("rollout", 4)] * 2 + [("eval", 3)]


def test_evaluations_come_first_when_they_keep_from_a_newer_policy() -> None:
    seen = board(rollout(3), evaluation(3))
    kinds = [unit.plan.kind for unit in in_order(seen, 3, "a", leaving=True)]
    assert kinds == ["eval", "rollout", "rollout"]


def test_units_of_other_policies_are_left_out() -> None:
    seen = board(evaluation(2), evaluation(3), rollout(4), rollout(3))
    assert {unit.plan.iteration for unit in in_order(seen, 3, "a")} == {3}


def test_samplers_start_at_different_units() -> None:
    seen = board(rollout(3, units=40))
    orders = {sampler: [unit.unit.name for unit in in_order(seen, 3, sampler)] for sampler in ("a", "b", "c")}
    assert all(sorted(order) == sorted(orders["a"]) for order in orders.values())
    assert len({order[0] for order in orders.values()}) == 3
    assert orders["a"] == [unit.unit.name for unit in in_order(seen, 3, "a")]


def test_what_failed_least_comes_first() -> None:
    """So that units that ended with a sampler are not all lost with the next ones."""
    plan = rollout(3, units=4)
    failures = {unit.name: number for unit, number in zip(plan.units, (2, 0, 1, 0), strict=True)}
    seen = Board(tuple(OpenUnit(plan, unit, 2, failures[unit.name]) for unit in plan.units), (), frozenset())
    assert [failures[unit.unit.name] for unit in in_order(seen, 3, "a")] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("opened", "held", "mine", "samplers", "expected"),
    [
        (8, 0, 0, 1, 8),
        (8, 0, 0, 2, 4),
        (4, 4, 4, 2, 0),
        (7, 0, 0, 2, 4),
        (3, 4, 0, 2, 4),
        (1, 7, 0, 8, 1),
        (1, 9, 0, 20, 1),
        (1, 3, 3, 2, 0),
        (0, 0, 0, 1, 1),
    ],
)
def test_every_sampler_gets_its_share(opened: int, held: int, mine: int, samplers: int, expected: int) -> None:
    plan = rollout(3, units=opened) if opened else None
    seen = board(*([plan] if plan else []), held=(rollout(3),) * held)
    assert claims_allowed(seen, 3, mine, samplers) == expected


def test_work_for_other_policies_is_not_shared_out() -> None:
    seen = board(rollout(3, units=4), rollout(5, units=10), held=(evaluation(2),) * 7)
    assert claims_allowed(seen, 3, 0, 2) == 2


@pytest.mark.parametrize(("idle", "wait"), [(0, 0.02), (1, 0.02), (5, 0.1), (600, 1.0)])
def test_an_idle_sampler_looks_rarer_and_rarer(idle: float, wait: float) -> None:
    assert idle_wait(idle) == pytest.approx(wait)
