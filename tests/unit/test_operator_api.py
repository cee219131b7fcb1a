from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from empg_operator import api as api_module
from empg_operator import connection
from empg_operator.api import UNDECLARED, Api, ApiError
from empg_operator.connection import Connection
from empg_operator.decision import Event, Reference
from empg_operator.events import Recorder
from empg_operator.kinds import JOB, POD_MONITOR, RUN
from empg_operator.leader import Election
from empg_operator.metrics import Metrics

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
JOB_MANIFEST = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"namespace": "team", "name": "demo-learner-1", "resourceVersion": "7"},
}
RUN_MANIFEST = {
    "apiVersion": "empg.dev/v1alpha1",
    "kind": "EMPGRun",
    "metadata": {"namespace": "team", "name": "demo", "uid": "u-1", "resourceVersion": "8"},
    "status": {},
}


@asynccontextmanager
async def _api(answer: Answer, metrics: Metrics | None = None) -> AsyncIterator[Api]:
    """The API of a server that answers everything like this."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        yield Api(session, str(server.make_url("")).rstrip("/"), metrics or Metrics())


def _refused(code: int, reason: str = "Refused", **headers: str) -> web.Response:
    said = {"kind": "Status", "code": code, "reason": reason, "message": "spec.x: no"}
    return web.json_response(said, status=code, headers=headers)


def _raised(answer: Answer, call: Callable[[Api], Awaitable[Any]]) -> ApiError:
    async def main() -> ApiError:
        async with _api(answer) as api:
            with pytest.raises(ApiError) as caught:
                await call(api)
            return caught.value

    return asyncio.run(main())


def _result(answer: Answer, call: Callable[[Api], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with _api(answer) as api:
            return await call(api)

    return asyncio.run(main())


def _always(response: Callable[[], web.Response]) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return response()

    return answer


def test_what_is_applied_is_forced_strict_and_ours() -> None:
    seen: dict[str, Any] = {}

    async def answer(request: web.Request) -> web.Response:
        seen.update(path=request.path, query=dict(request.query), type=request.content_type, body=await request.json())
        return web.json_response(JOB_MANIFEST)

    assert _result(answer, lambda api: api.apply(JOB_MANIFEST)) == JOB_MANIFEST
    assert seen["path"] == "/apis/batch/v1/namespaces/team/jobs/demo-learner-1"
    assert seen["query"] == {"fieldManager": "empg-operator", "force": "true", "fieldValidation": "Strict"}
    assert seen["type"] == "application/apply-patch+yaml"
    assert seen["body"] == JOB_MANIFEST


def test_a_status_is_for_the_run_as_it_was_observed() -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.path, await request.json()))
        return web.json_response(RUN_MANIFEST)

    _result(answer, lambda api: api.apply_status(RUN_MANIFEST, {"phase": "Failed"}))
    [(path, body)] = seen
    assert path == "/apis/empg.dev/v1alpha1/namespaces/team/empgruns/demo/status"
    assert body == {
        "apiVersion": "empg.dev/v1alpha1",
        "kind": "EMPGRun",
        "metadata": {"namespace": "team", "name": "demo", "resourceVersion": "8"},
        "status": {"phase": "Failed"},
    }


def test_the_status_of_a_run_that_is_gone_is_nobodys() -> None:
    assert _result(_always(lambda: _refused(404)), lambda api: api.apply_status(RUN_MANIFEST, {})) is None
    assert _raised(_always(lambda: _refused(409)), lambda api: api.apply_status(RUN_MANIFEST, {})).code == 409


def test_every_deletion_says_what_becomes_of_dependents() -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response({"kind": "Status", "status": "Success"})

    for reference in (Reference("Job", "a"), Reference("Job", "a", "u-1", "Foreground")):
        assert _result(answer, lambda api, it=reference: api.delete(it, "team")) is None
    assert [(said["propagationPolicy"], said.get("preconditions")) for said in seen] == [
        ("Background", None),
        ("Foreground", {"uid": "u-1"}),
    ]


def test_a_deletion_tells_what_is_still_there() -> None:
    left = {"kind": "Job", "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    reference = Reference("Job", "a")
    assert _result(_always(lambda: web.json_response(left)), lambda api: api.delete(reference, "team")) == left
    for code in (404, 409):
        assert _result(_always(lambda code=code: _refused(code)), lambda api: api.delete(reference, "team")) is None


def test_an_object_that_exists_is_not_created() -> None:
    assert _result(_always(lambda: _refused(409, "AlreadyExists")), lambda api: api.create(JOB_MANIFEST)) is None


@pytest.mark.parametrize(("code", "said"), [(403, "spec.x: no"), (422, "spec.x: no"), (400, "spec.x: no"), (409, "")])
def test_a_dry_run_tells_why_a_pod_is_refused(code: int, said: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "team", "generateName": "x-"}}
    assert _result(_always(lambda: _refused(code)), lambda api: api.try_pod(pod)) == said


def test_a_dry_run_that_the_server_has_no_time_for_is_no_answer() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "team", "generateName": "x-"}}
    assert _raised(_always(lambda: _refused(500)), lambda api: api.try_pod(pod)).code == 500


def test_an_error_says_what_was_asked_and_what_the_server_said() -> None:
    error = _raised(_always(lambda: _refused(422, "Invalid")), lambda api: api.apply(JOB_MANIFEST))
    where = "/apis/batch/v1/namespaces/team/jobs/demo-learner-1"
    assert str(error) == f"apply {where}: 422 Invalid: spec.x: no"
    assert error.is_refusal
    assert error.retry_after is None


def test_a_namespace_that_is_being_deleted_is_told_from_a_refusal() -> None:
    said = {"reason": "Forbidden", "message": "no", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    going = _always(lambda: web.json_response(said, status=403))
    assert _raised(going, lambda api: api.create(JOB_MANIFEST)).namespace_ends
    assert _raised(going, lambda api: api.try_pod(JOB_MANIFEST)).namespace_ends
    assert not _raised(_always(lambda: _refused(403)), lambda api: api.create(JOB_MANIFEST)).namespace_ends


@pytest.mark.parametrize(
    ("code", "message", "denied"),
    [
        (403, 'jobs.batch "a" is forbidden: User "system:serviceaccount:empg:o" cannot patch resource "jobs"', True),
        (403, 'user "system:serviceaccount:empg:o" is attempting to grant RBAC permissions not currently held:', True),
        (403, 'jobs.batch "a" is forbidden: exceeded quota: none, requested: count/jobs.batch=1', False),
        (403, 'admission webhook "policy.example.com" denied the request: images come from elsewhere', False),
        (422, 'Job.batch "a" is invalid: User "x" cannot y', False),
    ],
)
def test_a_right_that_lacks_is_told_from_what_is_not_taken(code: int, message: str, denied: bool) -> None:
    said = {"reason": "Forbidden", "message": message}
    error = _raised(_always(lambda: web.json_response(said, status=code)), lambda api: api.create(JOB_MANIFEST))
    assert (error.is_denial, error.is_refusal) == (denied, True)


def test_a_candidate_without_rights_to_the_lease_does_not_stand_by_for_ever() -> None:
    message = 'leases.coordination.k8s.io "empg" is forbidden: User "o" cannot get resource "leases"'
    refused = _always(lambda: web.json_response({"reason": "Forbidden", "message": message}, status=403))

    async def stand(api: Api) -> None:
        async with asyncio.timeout(10):
            await Election(api, "team", "empg", "first").win()

    assert _raised(refused, stand).is_denial


def test_what_a_quota_refuses_is_told_once_whatever_it_counts() -> None:
    told = []

    async def answer(request: web.Request) -> web.Response:
        told.append((await request.json())["message"])
        return web.json_response({})

    async def tell(api: Api) -> None:
        recorder = Recorder(api, lambda: 1000.0)
        run = {"metadata": {"namespace": "team", "name": "demo", "uid": "u"}}
        for used in (56, 57):
            await recorder.tell(run, Event("Warning", "ApplyFailed", f"Job demo: exceeded quota, used: {used}"))
        for attempt in (1, 2):
            await recorder.tell(run, Event("Normal", "Started", f"attempt {attempt}"))

    _result(answer, tell)
    assert told == ["Job demo: exceeded quota, used: 56", "attempt 1", "attempt 2"]


def test_a_webhook_that_does_not_answer_refuses_what_others_need_not_wait_for() -> None:
    said = {"message": 'Internal error occurred: failed calling webhook "mjob.kb.io": failed to call webhook: Post "x"'}
    error = _raised(_always(lambda: web.json_response(said, status=500)), lambda api: api.apply(JOB_MANIFEST))
    assert (error.is_refusal, error.is_denial) == (True, False)


def test_a_definition_that_lacks_a_field_is_told_from_a_server_that_fails() -> None:
    undeclared = {"message": f"{UNDECLARED} (a/b; empg.dev/v1alpha1, Kind=EMPGRun): .status.x: field not declared"}
    error = _raised(_always(lambda: web.json_response(undeclared, status=500)), lambda api: api.apply(JOB_MANIFEST))
    assert error.is_refusal
    assert not _raised(_always(lambda: _refused(500)), lambda api: api.apply(JOB_MANIFEST)).is_refusal


def test_long_messages_are_cut() -> None:
    long = json.dumps({"reason": "Invalid", "message": "x" * 5000})
    error = _raised(_always(lambda: web.Response(status=422, text=long)), lambda api: api.apply(JOB_MANIFEST))
    assert len(error.message) == 500
    assert len(str(error)) <= 500


def test_an_answer_of_a_proxy_is_understood_as_far_as_possible() -> None:
    page = "<html>upstream is away</html>"
    error = _raised(_always(lambda: web.Response(status=502, text=page)), lambda api: api.apply(JOB_MANIFEST))
    assert (error.code, error.reason, error.message) == (502, "Bad Gateway", page)
    assert not error.is_refusal


def test_the_time_a_server_asks_for_is_told() -> None:
    busy = _always(lambda: _refused(429, "TooManyRequests", **{"Retry-After": "7"}))
    error = _raised(busy, lambda api: api.create(JOB_MANIFEST))
    assert (error.code, error.retry_after) == (429, 7.0)


def test_no_answer_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.json_response({})

    async def call(api: Api) -> list[Any]:
        return [chunk async for chunk in api.chunks(JOB, None)]

    monkeypatch.setattr(api_module, "_LIST_SECONDS", 0.1)
    error = _raised(answer, call)
    assert (error.code, error.is_refusal) == (0, False)


def test_a_broken_connection_is_an_error() -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    assert _raised(answer, lambda api: api.create(JOB_MANIFEST)).code == 0


def test_lists_come_in_chunks_of_one_version() -> None:
    queries: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        queries.append(dict(request.query))
        page = int(request.query.get("continue", "0"))
        about = {"resourceVersion": "40", "continue": str(page + 1) if page < 2 else ""}
        return web.json_response({"metadata": about, "items": [{"metadata": {"name": f"job-{page}"}}]})

    async def call(api: Api) -> list[Any]:
        return [chunk async for chunk in api.chunks(JOB, None, limit=1)]

    chunks = _result(answer, call)
    assert [version for _, version in chunks] == [40, 40, 40]
    assert [item["metadata"]["name"] for items, _ in chunks for item in items] == ["job-0", "job-1", "job-2"]
    assert {(item["apiVersion"], item["kind"]) for items, _ in chunks for item in items} == {("batch/v1", "Job")}
    assert [query.get("continue") for query in queries] == [None, "1", "2"]
    assert {query["labelSelector"] for query in queries} == {"empg.dev/run"}


def test_a_kind_is_served_or_not() -> None:
    served = {"resources": [{"name": "podmonitors"}]}
    assert _result(_always(lambda: web.json_response(served)), lambda api: api.serves(POD_MONITOR)) is True
    assert _result(_always(lambda: web.json_response({"resources": []})), lambda api: api.serves(RUN)) is False
    assert _result(_always(lambda: _refused(404)), lambda api: api.serves(RUN)) is False


def test_requests_are_counted_by_what_came_of_them() -> None:
    metrics = Metrics()
    codes = iter([201, 409, 500])

    async def answer(_: web.Request) -> web.Response:
        code = next(codes)
        return web.json_response(JOB_MANIFEST, status=code) if code == 201 else _refused(code)

    async def main() -> None:
        async with _api(answer, metrics) as api:
            await api.create(JOB_MANIFEST)
            await api.create(JOB_MANIFEST)
            with pytest.raises(ApiError):
                await api.create(JOB_MANIFEST)

    asyncio.run(main())
    for code in ("201", "409", "500"):
        labels = {"verb": "create", "code": code}
        assert metrics.registry.get_sample_value("empg_operator_api_requests_total", labels) == 1
    assert metrics.registry.get_sample_value("empg_operator_api_request_seconds_count", {"verb": "create"}) == 3


def test_a_token_that_rotates_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({})

    async def main() -> None:
        application = web.Application()
        application.router.add_get("/{path:.*}", answer)
        async with TestServer(application) as server:
            path = _kubeconfig(tmp_path, str(server.make_url("")).rstrip("/"))
            way = await Connection.load(path)
            async with way.session() as session:
                for token in ("one", "two"):
                    (tmp_path / "token").write_text(token)
                    await session.get(f"{way.server}/x")
                monkeypatch.setattr(connection, "_RENEW_SECONDS", 0.0)
                await session.get(f"{way.server}/x")

    asyncio.run(main())
    assert seen == ["Bearer one", "Bearer one", "Bearer two"]


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kubeconfig .*nothing"):
        asyncio.run(Connection.load(tmp_path / "nothing"))


def test_outside_a_pod_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ValueError, match="use --kubeconfig outside a pod"):
        asyncio.run(Connection.load(None))


def _kubeconfig(directory: Path, server: str) -> Path:
    (directory / "token").write_text("one")
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": server}}],
        "users": [{"name": "it", "user": {"tokenFile": str(directory / "token")}}],
    }
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path
