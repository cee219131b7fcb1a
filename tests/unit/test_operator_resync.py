"""Lists of what is there, from an API server that refuses some or fails midway."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from plan_samples import run

from empg_operator.api import Api, ApiError
from empg_operator.cache import Cache, RunKey
from empg_operator.events import Recorder
from empg_operator.metrics import Metrics
from empg_operator.plan import plan
from empg_operator.queue import Queue
from empg_operator.reconcile import Reconciler
from empg_operator.resync import Resync
from empg_operator.run_metrics import RunCollector
from empg_operator.settings import Settings

GUARD_SECONDS = 30.0
"""What has not come by then never will."""
A, B = RunKey("team-a", "demo"), RunKey("team-b", "demo")


@dataclass
class Server:
    """An API server with a run in each of two namespaces."""

    refused: set[tuple[str, str]] = field(default_factory=set)
    """(Namespace, plural) of what may not be listed; `*` for any."""
    broken: set[str] = field(default_factory=set)
    """Plurals of what can't be listed for another reason."""
    version: int = 1

    async def answer(self, request: web.Request) -> web.Response:
        parts = request.path.split("/")
        if "namespaces" not in parts:
            kind, plural = "EMPGRun", "empgruns"
            return web.json_response({"resources": [{"kind": kind, "name": plural}] if "empg.dev" in parts else []})
        namespace, plural = parts[-2:]
        if self.refused & {(namespace, plural), (namespace, "*"), ("*", plural)}:
            message = f'{plural} is forbidden: User "operator" cannot list resource in the namespace "{namespace}"'
            return web.json_response({"reason": "Forbidden", "message": message}, status=403)
        if plural in self.broken:
            return web.json_response({"reason": "InternalError", "message": "etcd"}, status=500)
        items = [run(namespace=namespace, resourceVersion=str(self.version))] if plural == "empgruns" else []
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})


@dataclass
class Operator:
    resync: Resync
    cache: Cache
    metrics: Metrics
    passes: asyncio.Queue[RunKey]
    """Runs that were queued, in order."""

    def refused(self) -> float | None:
        return self.metrics.registry.get_sample_value("empg_operator_refused_namespaces")


@asynccontextmanager
async def operating(server: Server, **settings: Any) -> AsyncIterator[Operator]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    async with TestServer(application) as running, ClientSession() as session:
        metrics, cache, passes = Metrics(), Cache(), asyncio.Queue[RunKey]()
        api = Api(session, str(running.make_url("")).rstrip("/"), metrics)
        chosen = Settings(**{"namespaces": ("team-a", "team-b"), **settings})
        queue: Queue[RunKey] = Queue(passes.put, 1, metrics)
        recorder = Recorder(api, time.time)
        reconciler = Reconciler(plan, cache, api, chosen, recorder, RunCollector(), time.time, queue.add)
        task = asyncio.create_task(queue.run())
        async with asyncio.timeout(GUARD_SECONDS):
            yield Operator(Resync(api, cache, queue, reconciler, chosen, metrics), cache, metrics, passes)
        task.cancel()
        await asyncio.wait({task})


def test_a_namespace_that_refuses_does_not_take_the_others_along(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with operating(Server(refused={("team-a", "*")})) as operator:
            await operator.resync.fill()
            assert list(operator.cache.runs()) == [B]
            assert await operator.passes.get() == B
            assert operator.refused() == 1

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    [said] = [record.getMessage() for record in caplog.records]
    assert 'cannot list resource in the namespace "team-a"' in said


@pytest.mark.parametrize(
    ("refused", "namespaces"),
    [
        ({("team-a", "*"), ("team-b", "*")}, ("team-a", "team-b")),
        ({("*", "networkpolicies")}, ("team-a", "team-b")),
        ({("team-a", "*")}, ("team-a",)),
    ],
)
def test_what_is_refused_everywhere_is_an_error(refused: set[tuple[str, str]], namespaces: tuple[str, ...]) -> None:
    async def main() -> None:
        async with operating(Server(refused=refused), namespaces=namespaces) as operator:
            await operator.resync.fill()

    with pytest.raises(ApiError, match="cannot list"):
        asyncio.run(main())


def test_a_namespace_that_refused_is_tried_again() -> None:
    server = Server(refused={("team-b", "*")})

    async def main() -> None:
        async with operating(server, resync_seconds=0.05) as operator:
            await operator.resync.fill()
            assert await operator.passes.get() == A
            server.refused.clear()
            task = asyncio.create_task(operator.resync.run())
            assert await operator.passes.get() == B
            while operator.refused():
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(main())


@pytest.mark.parametrize(
    "fail", [lambda server: server.broken.add("jobs"), lambda server: server.refused.add(("*", "jobs"))]
)
def test_what_a_list_showed_is_worked_on_though_the_next_one_fails(fail: Callable[[Server], None]) -> None:
    server = Server()

    async def main() -> None:
        async with operating(server, resync_seconds=0.05) as operator:
            await operator.resync.fill()
            assert {await operator.passes.get(), await operator.passes.get()} == {A, B}
            fail(server)
            server.version += 1
            task = asyncio.create_task(operator.resync.run())
            assert {await operator.passes.get(), await operator.passes.get()} == {A, B}
            task.cancel()

    asyncio.run(main())
