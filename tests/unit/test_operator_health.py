from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from empg_operator.health import BEAT_SECONDS, SILENCE_SECONDS, Health
from empg_operator.kinds import JOB, RUN, WATCHED, Kind
from empg_operator.metrics import Metrics
from empg_operator.watches import Watches


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _beat_once(health: Health) -> None:
    async def main() -> None:
        task = asyncio.create_task(health.beat())
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())


def test_an_event_loop_that_is_stuck_is_not_alive(clock: Clock) -> None:
    health = Health(clock)
    clock.now += BEAT_SECONDS
    assert health.alive()
    clock.now += 3600
    assert not health.alive()
    _beat_once(health)
    assert health.alive()


def test_a_watch_that_hangs_is_not_alive_but_one_that_tries_in_vain_is(clock: Clock) -> None:
    health, watches = Health(clock), Watches(Metrics(), lambda kind: None, clock)
    health.watches = watches
    clock.now += SILENCE_SECONDS + 1
    _beat_once(health)
    assert not health.alive()
    for kind in WATCHED:
        watches.heard(kind)
    assert health.alive()
    asyncio.run(_ask(watches, f"/apis/empg.dev/v1alpha1/{RUN.plural}", 503))
    clock.now += SILENCE_SECONDS / 2
    asyncio.run(_ask(watches, JOB.path(None), 503))
    asyncio.run(_ask(watches, "/apis/apps/v1/deployments", 503))
    clock.now += SILENCE_SECONDS / 2 + 1
    _beat_once(health)
    assert not health.alive(), "two watches that try do not make up for one that hangs"
    asyncio.run(_ask(watches, RUN.path("team"), 503))
    assert health.alive()


def test_it_is_ready_when_the_cache_is_full_and_all_watches_were_answered(clock: Clock) -> None:
    health, watches = Health(clock), Watches(Metrics(), lambda kind: None, clock)
    assert not health.ready()
    health.is_filled = True
    health.watches = watches
    for kind in WATCHED[:-1]:
        asyncio.run(_ask(watches, kind.path(None), 200, watch="true"))
    asyncio.run(_ask(watches, WATCHED[-1].path(None), 403, watch="true"))
    assert not health.ready()
    asyncio.run(_ask(watches, WATCHED[-1].path(None), 200, watch="true"))
    assert health.ready()


def test_one_that_stands_by_is_ready() -> None:
    health = Health()
    health.stands_by = True
    assert health.ready()


def test_a_new_list_puts_what_is_cached_in_doubt(clock: Clock) -> None:
    doubted: list[Kind] = []
    watches = Watches(Metrics(), doubted.append, clock)
    asyncio.run(_ask(watches, JOB.path("team"), 200, watch="true"))
    asyncio.run(_ask(watches, JOB.path("team"), 500))
    asyncio.run(_ask(watches, "/apis/batch/v1", 200))
    assert doubted == []
    asyncio.run(_ask(watches, JOB.path("team"), 200, limit="100"))
    assert doubted == [JOB]


def test_the_age_of_a_watch_is_that_of_its_last_answer(clock: Clock) -> None:
    metrics = Metrics()
    watches = Watches(metrics, lambda kind: None, clock)

    def age() -> float | None:
        return metrics.registry.get_sample_value("empg_operator_watch_last_event_age_seconds", {"resource": "jobs"})

    clock.now += 30
    asyncio.run(_ask(watches, JOB.path(None), 503))
    assert age() == 30
    watches.heard(JOB)
    clock.now += 5
    assert age() == 5


async def _ask(watches: Watches, path: str, code: int, **query: str) -> None:
    """A request of kopf's session to a server that answers with this code."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=code)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    async with (
        TestServer(application) as server,
        aiohttp.ClientSession(trace_configs=[watches.trace()]) as session,
        session.get(server.make_url(path), params=query),
    ):
        pass
