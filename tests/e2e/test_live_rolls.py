"""The three ways in which samplers come by a new policy, and how long it takes them."""

from __future__ import annotations

from typing import Any

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import LiveCluster

from empg.rundir import keys
from empg.rundir.claims import Claim
from empg.rundir.records import read
from empg.store.posix import PosixStore

ITERATIONS = {"InPlace": 10, "RollingUpdate": 3, "Alternate": 2}
"""Few where every policy costs new pods, most of a minute each."""
SECONDS = 900.0
SAMPLERS = 2


@pytest.mark.parametrize("strategy", list(ITERATIONS))
def test_a_run_reaches_its_end(release: LiveCluster, namespace: str, strategy: str) -> None:
    iterations = ITERATIONS[strategy]
    changes: dict[str, Any] = {
        "em": {"iterations": iterations},
        "sampler": {"rollStrategy": strategy, "replicas": SAMPLERS},
        "retention": {"policies": iterations + 1},
    }
    run = AppliedRun(release, namespace, demo(strategy.lower(), **changes))
    pods: set[str] = set()

    def complete() -> bool:
        pods.update(run.running("sampler"))
        return run.condition("Complete").get("status") == "True"

    run.until(complete, "Complete", START_SECONDS + SECONDS)
    assert sorted(run.seals()) == list(range(iterations))
    times = [taken(run.store(), version) for version in range(1, iterations)]
    print(f"{strategy}: a policy was sampled on {', '.join(f'{time:.1f}' for time in times)} s after its publication")
    assert all(time > 0 for time in times)
    # In place the pods stay; else every policy that is sampled on has its own.
    assert len(pods) == SAMPLERS if strategy == "InPlace" else len(pods) > SAMPLERS
    holders = [set(first_claims(run.store(), version)) for version in range(iterations)]
    assert all(holders)
    assert strategy == "InPlace" or sum(map(len, holders)) == len(set().union(*holders))
    assert run.status()["restarts"] == 0
    run.kubectl("delete", "empgrun", run.name)


def taken(store: PosixStore, version: int) -> float:
    """Seconds from the publication of a policy until every sampler at work had begun a unit with it."""
    published = (store.root / keys.group_manifest(keys.policy_prefix(version))).stat().st_mtime
    return max(first_claims(store, version).values()) - published


def first_claims(store: PosixStore, version: int) -> dict[str, float]:
    """When each sampler that did began its first unit of an iteration, in seconds since the epoch."""
    claims = f"{keys.iteration_dir('rollout', version)}/claims"
    first: dict[str, float] = {}
    for name in store.children(claims):
        sampler, claimed = read(store, f"{claims}/{name}", Claim).sampler, (store.root / claims / name).stat().st_mtime
        first[sampler] = min(claimed, first.get(sampler, claimed))
    return first
