"""A reconciler on its own before a real API server, with plans that the tests make up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empg_operator import names
from empg_operator.api import Api
from empg_operator.cache import Cache, RunKey
from empg_operator.connection import Connection
from empg_operator.decision import Observed, Plan
from empg_operator.events import Recorder
from empg_operator.kinds import LISTED, RUN, WATCHED
from empg_operator.metrics import Metrics
from empg_operator.reconcile import Reconciler
from empg_operator.run_metrics import RunCollector
from empg_operator.settings import Settings

Planner = Callable[[Observed], Plan]


class Clock:
    """Seconds since the epoch, as the test sets them."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A reconciler, and what is around it."""

    api: Api
    cache: Cache
    metrics: Metrics
    clock: Clock
    key: RunKey
    woken: list[RunKey]
    """Other runs that were to be looked at."""

    async def observe(self) -> None:
        """Take everything of the namespace into the cache."""
        for kind in (*WATCHED, *LISTED):
            listed, taken = set(), 0
            async for items, version in self.api.chunks(kind, self.key.namespace):
                taken = version
                for item in items:
                    listed.add((item["metadata"]["namespace"], item["metadata"]["name"]))
                    self.cache.put(item)
            self.cache.retain(kind.name, self.key.namespace, listed, taken)

    def reconciler(self, plan: Planner) -> Reconciler:
        """One that knows nothing yet of earlier passes."""

        def planner(observed: Observed, settings: Settings, now: float) -> Plan:
            return plan(observed)

        recorder, shown = Recorder(self.api, self.clock), RunCollector()
        return Reconciler(planner, self.cache, self.api, Settings(), recorder, shown, self.clock, self.woken.append)

    def requests(self, verb: str) -> float:
        """Requests of this kind so far, whatever became of them."""
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "empg_operator_api_requests_total" and sample.labels["verb"] == verb
        )


def on_bench(kubeconfig: Path, key: RunKey, work: Callable[[Bench], Awaitable[None]]) -> None:
    """Do this with a bench for a run, whose cache has all there is; 60 s at most."""

    async def main() -> None:
        connection, metrics = await Connection.load(kubeconfig), Metrics()
        async with connection.session() as session, asyncio.timeout(60):
            bench = Bench(Api(session, connection.server, metrics), Cache(), metrics, Clock(), key, [])
            await bench.observe()
            await work(bench)

    asyncio.run(main())


def child(observed: Observed, kind: str, name: str, **parts: Any) -> dict[str, Any]:
    """A child of the run, for server-side apply."""
    about = observed.run["metadata"]
    owner = {"apiVersion": RUN.api_version, "kind": RUN.name, "name": about["name"], "uid": about["uid"]}
    return {
        "apiVersion": {"ConfigMap": "v1", "Deployment": "apps/v1", "Job": "batch/v1"}[kind],
        "kind": kind,
        "metadata": {
            "namespace": about["namespace"],
            "name": name,
            "labels": names.labels(about["name"]),
            "ownerReferences": [{**owner, "controller": True}],
        },
        **parts,
    }


def pod(observed: Observed, **container: Any) -> dict[str, Any]:
    """A pod to try, with these fields of its container."""
    about = observed.run["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": about["namespace"], "generateName": "try-"},
        "spec": {"containers": [{"name": "it", "image": "example/it", **container}]},
    }
