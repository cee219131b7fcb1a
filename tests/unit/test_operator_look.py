"""A look at the pods of runs that have more of them than one request tells of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from plan_samples import NOW, pod, run

from empg_operator.api import CHUNK, Api
from empg_operator.cache import RunKey
from empg_operator.look import look
from empg_operator.metrics import Metrics

KEY = RunKey("team", "demo")
LAST = f"sampler-{CHUNK + 49:04}"


def looked_at(count: int, laggards: list[str]) -> tuple[list[str], list[str]]:
    """Names of the pods that a look shows where there are so many, and the pods that were asked for one by one."""
    pods = {f"sampler-{number:04}": pod(f"sampler-{number:04}", "sampler") for number in range(count)}
    pods["other"] = pod("other", "sampler", labels={"empg.dev/run": "another"})
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        collection, _, name = request.path.removeprefix("/api/v1/namespaces/team/").partition("/")
        if collection == "pods" and not name:
            some = [each for each in pods.values() if each is not pods["other"]][:CHUNK]
            more = {"continue": "x"} if count > CHUNK else {}
            return web.json_response({"metadata": {"resourceVersion": "1", **more}, "items": some})
        if collection == "pods":
            asked.append(name)
        if collection != "pods" or name not in pods:
            return web.json_response({"reason": "NotFound", "message": "no"}, status=404)
        return web.json_response(pods[name])

    async def main() -> Any:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer)
        async with TestServer(application) as server, ClientSession() as session:
            api = Api(session, str(server.make_url("")).rstrip("/"), Metrics())
            status = {"progress": {"laggards": laggards}}
            return await look(api, KEY, run(status=status), {}, NOW)

    diagnosis = asyncio.run(main())
    assert all(each["spec"]["containers"] for each in diagnosis.pods)
    return [each["metadata"]["name"] for each in diagnosis.pods], asked


@pytest.mark.parametrize(
    ("count", "laggards", "asked"),
    [
        (3, ["sampler-0001", "gone"], []),
        (CHUNK + 50, [], []),
        (CHUNK + 50, ["sampler-0001", LAST, "gone", "other"], [LAST, "gone", "other"]),
    ],
)
def test_laggards_are_found_among_many_samplers(count: int, laggards: list[str], asked: list[str]) -> None:
    shown, requests = looked_at(count, laggards)
    assert requests == asked
    assert len(shown) == min(count, CHUNK) + (LAST in laggards)
    assert (LAST in shown) == (LAST in laggards)


def test_a_name_leads_to_no_other_kind() -> None:
    """Learners write these names."""
    shown, requests = looked_at(CHUNK, ["../configmaps/demo-run"])
    assert len(shown) == CHUNK
    assert requests == ["../configmaps/demo-run"], "the name of a pod, however it looks"
