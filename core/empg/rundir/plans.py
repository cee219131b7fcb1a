"""Plans in the run directory: `<kind>/<t>/plan/<round>.json`. A plan never changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from empg.rundir import keys, records
from empg.rundir.plan import Plan
from empg.store.base import Store


def create_plan(store: Store, plan: Plan) -> None:
    """Publish a plan. The same plan there already is success; KeyExists when another one is.

    ValueError for a plan whose units can't be told apart.
    """
    for what, names in (
        ("unit", [unit.name for unit in plan.units]),
        ("prompt", [prompt.prompt_id for unit in plan.units for prompt in unit.prompts]),
    ):
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise ValueError(
                f"plan of {plan.kind} {plan.iteration}: {what} {name!r} occurs {count} times; "
                "ask for no more prompts per iteration than the task has"
            )
    store.create(keys.plan_key(plan.kind, plan.iteration, plan.round), records.encode(plan))


def read_plans(store: Store, kind: keys.Kind, iteration: int) -> tuple[Plan, ...]:
    """The plans of an iteration by round; empty if there are none. CorruptRecord names a file that can't be used."""
    found = []
    for key in store.list(f"{keys.iteration_dir(kind, iteration)}/plan"):
        plan = records.read(store, key, Plan)
        if key != keys.plan_key(plan.kind, plan.iteration, plan.round):
            raise records.CorruptRecord(key, f"holds round {plan.round} of {plan.kind} {plan.iteration}; move it away")
        found.append(plan)
    return tuple(found)


def planned(store: Store, kind: keys.Kind, since: int = 0, but: Collection[int] = ()) -> list[int]:
    """Iterations (for `eval`: policy versions) from `since` on that have a plan, ascending, without those of `but`."""
    numbers = [keys.parse_number(name) for name in store.children(kind)]
    return sorted(
        number
        for number in numbers
        if number is not None
        and number >= since
        and number not in but
        and store.children(f"{keys.iteration_dir(kind, number)}/plan")
    )


def unsealed(store: Store, kind: keys.Kind, since: int = 0, sealed: set[int] | None = None) -> list[int]:
    """Those of `planned` that are not sealed yet.

    `sealed`: numbers that are known to be, which are not looked at; those that are found to be are added.
    """
    known = set() if sealed is None else sealed
    found = planned(store, kind, since, but=known)
    known |= {number for number in found if "seal.json" in store.children(keys.iteration_dir(kind, number))}
    return [number for number in found if number not in known]
