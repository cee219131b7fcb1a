"""A look at the pods of runs that have more of them than one request tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from plan_samples import NOW, deployment, job, learner_pod, pod, run

from empg_operator.api import CHUNK, Api
from empg_operator.cache import RunKey
from empg_operator.causes import cause
from empg_operator.decision import Diagnosis
from empg_operator.look import look
from empg_operator.metrics import Metrics
from empg_operator.plan.holding import samplers_run
from empg_operator.plan.times import stamp

KEY = RunKey("team", "demo")
LAST = f"sampler-{CHUNK + 49:04}"


def sampler(number: int, phase: str = "Running") -> Any:
    return pod(f"sampler-{number:04}", "sampler", phase=phase)


def shown(found: list[Any], laggards: Collection[str] = ()) -> tuple[Diagnosis, list[str], int]:
    """What a look shows of these pods, the pods that were asked for one by one, and the number of lists."""
    pods = {each["metadata"]["name"]: each for each in found}
    pods["other"] = pod("other", "sampler", labels={"empg.dev/run": "another"})
    asked: list[str] = []
    lists = 0

    async def answer(request: web.Request) -> web.Response:
        collection, _, name = request.path.removeprefix("/api/v1/namespaces/team/").partition("/")
        if collection == "pods" and not name:
            nonlocal lists
            lists += 1
            assert request.query["labelSelector"] == "empg.dev/run=demo"
            first, size = int(request.query.get("continue", 0)), int(request.query["limit"])
            more = {"continue": str(first + size)} if len(found) > first + size else {}
            chunk = {"metadata": {"resourceVersion": "1", **more}, "items": found[first : first + size]}
            return web.json_response(chunk)
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
            status = {"progress": {"laggards": list(laggards)}}
            return await look(api, KEY, run(status=status), {}, NOW)

    return asyncio.run(main()), asked, lists


def named(diagnosis: Diagnosis) -> list[str]:
    assert all(each["spec"]["containers"] for each in diagnosis.pods)
    return [each["metadata"]["name"] for each in diagnosis.pods]


@pytest.mark.parametrize(
    ("count", "laggards", "asked"),
    [
        (3, ["sampler-0001", "gone"], []),
        (CHUNK + 50, [], []),
        (CHUNK + 50, ["sampler-0001", LAST, "gone", "other"], [LAST, "gone", "other"]),
    ],
)
def test_laggards_are_found_among_many_samplers(count: int, laggards: list[str], asked: list[str]) -> None:
    diagnosis, requests, lists = shown([sampler(number) for number in range(count)], laggards)
    assert (requests, lists) == (asked, 1)
    assert len(named(diagnosis)) == min(count, CHUNK) + (LAST in laggards)
    assert (LAST in named(diagnosis)) == (LAST in laggards)


def test_a_name_leads_to_no_other_kind() -> None:
    """Learners write these names."""
    diagnosis, requests, _ = shown([sampler(number) for number in range(CHUNK)], ["../configmaps/demo-run"])
    assert len(named(diagnosis)) == CHUNK
    assert requests == ["../configmaps/demo-run"], "the name of a pod, however it looks"


@pytest.mark.parametrize(
    ("learners", "samplers", "running", "lists"),
    [
        (1, 1, 0, 1),
        (CHUNK + 20, 1, 0, 2),
        (CHUNK + 20, 1, None, 2),
        (1, 2 * CHUNK + 50, 7, 1),
        (1, 2 * CHUNK + 50, CHUNK + 20, 2),
        (1, 2 * CHUNK + 50, None, 3),
        (2 * CHUNK, 0, None, 2),
    ],
)
def test_a_sampler_that_runs_is_seen_behind_however_many_pods(
    learners: int, samplers: int, running: int | None, lists: int
) -> None:
    """Or that none does: a run is released, and its clocks run, by what a look shows."""
    learner = [pod(f"learner-{number:04}", "learner") for number in range(learners)]
    others = [sampler(number, "Running" if number == running else "Pending") for number in range(samplers)]
    diagnosis, _, asked = shown([*learner, *others])
    assert samplers_run(diagnosis) == (running is not None)
    assert asked == lists
    assert len(named(diagnosis)) == min(learners + samplers, lists * CHUNK)


def looked(pods: Collection[Any], children: Collection[Any], events: Collection[Any]) -> Diagnosis:
    """What a look shows of these children, whatever kind of event it asks for."""

    async def answer(request: web.Request) -> web.Response:
        collection, _, name = request.path.removeprefix("/api/v1/namespaces/team/").partition("/")
        if name:
            return web.json_response({"reason": "NotFound", "message": "no"}, status=404)
        found = list(pods) if collection == "pods" else list(events)
        wanted = request.query.get("fieldSelector", "").partition(",")[0]
        key, _, value = wanted.partition("=")
        if key:
            found = [event for event in found if event["involvedObject"].get(key.rpartition(".")[2]) == value]
        first, size = int(request.query.get("continue", 0)), int(request.query["limit"])
        more = {"continue": str(first + size)} if len(found) > first + size else {}
        return web.json_response({"metadata": {"resourceVersion": "1", **more}, "items": found[first : first + size]})

    async def main() -> Diagnosis:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer)
        async with TestServer(application) as server, ClientSession() as session:
            api = Api(session, str(server.make_url("")).rstrip("/"), Metrics())
            kinds = {(each["kind"], each["metadata"]["name"]): each for each in children}
            return await look(api, KEY, run(), kinds, NOW)

    return asyncio.run(main())


def refusal(kind: str, name: str, uid: str = "") -> Any:
    about = {"kind": kind, "name": name, "uid": uid}
    stamped = {"name": name, "creationTimestamp": stamp(NOW)}
    return {
        "metadata": stamped,
        "involvedObject": about,
        "reason": "FailedCreate",
        "type": "Warning",
        "message": 'Error creating: pods "x" is forbidden: exceeded quota: gpus',
        "lastTimestamp": stamp(NOW),
    }


def test_why_an_attempt_gets_no_pods_is_seen_beside_those_of_an_earlier_one() -> None:
    jobs = [job(1, failed="x"), job(2)]
    events = [refusal("Job", "demo-learner-2", "job-2")]
    diagnosis = looked([learner_pod(attempt=1, exit_code=1)], jobs, events)
    assert cause(diagnosis, "learner", 2).reason == "ExceededQuota"


def test_why_a_gang_gets_only_some_of_its_pods_is_seen() -> None:
    events = [refusal("Job", "demo-learner-1", "job-1")]
    assert looked([learner_pod(0)], [job(1, pods=2)], events).events
    assert not looked([learner_pod(0), learner_pod(1)], [job(1, pods=2)], events).events


@pytest.mark.parametrize("left", [[], [pod("old", "sampler", phase="Failed")]])
def test_why_samplers_are_not_made_is_seen_behind_the_events_of_many_runs(left: list[Any]) -> None:
    others = [refusal("ReplicaSet", f"a{number:03}-sampler-5d9c") for number in range(CHUNK + 50)]
    # Of the samplers of a run that is called like our Deployment.
    others.append(refusal("ReplicaSet", "demo-sampler-sampler-5d9c"))
    events = [*others, refusal("ReplicaSet", "demo-sampler-7f8b")]
    diagnosis = looked(left, [deployment(2)], events)
    assert [event["involvedObject"]["name"] for event in diagnosis.events] == ["demo-sampler-7f8b"]
    assert cause(diagnosis, "sampler").reason == "ExceededQuota"


def test_pods_of_an_earlier_run_of_the_name_are_not_seen() -> None:
    """One on a lost node may go on for hours, and its attempt has the same number."""

    def of(uid: str) -> Any:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "demo-learner-1", "uid": uid, "controller": True}
        return learner_pod(attempt=1, ownerReferences=[owner])

    assert named(looked([of("another")], [job(1, ready=1)], [])) == []
    assert named(looked([of("job-1")], [job(1, ready=1)], [])) == ["demo-learner-1-0"]
