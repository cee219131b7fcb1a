"""The fault proxy lets exactly the chosen requests fail, and the API server's state shows how far they got."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from api_request import ApiRequest, parse
from fault_proxy import FaultProxy
from faults import Delay, DelayReply, DropReply, DropRequest, ExpireWatch, Respond, StallWatch
from urllib3.exceptions import HTTPError
from waiting import eventually

from hack.controlplane.access import Access, CommandError
from hack.rest import ApiError, Rest, Watch


@pytest.fixture
def proxy(control_plane: Access, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(control_plane.kubeconfig, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: FaultProxy) -> Rest:
    """A client that never tries again."""
    return Rest(proxy.kubeconfig, "test")


def maps(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps" + (f"/{name}" if name else "")


def named(name: str) -> dict[str, object]:
    return {"metadata": {"name": name}}


def names(cluster: Access, namespace: str) -> list[str]:
    found = cluster.kubectl("get", "configmaps", "-n", namespace, "-o", "name").split()
    return [name.removeprefix("configmap/") for name in found if "kube-root-ca" not in name]


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/namespaces/a/pods/p", {}, ("get", "pods", "a", "p")),
        ("GET", "/api/v1/namespaces/a/pods", {}, ("list", "pods", "a", "")),
        ("GET", "/apis/batch/v1/jobs", {"watch": "true"}, ("watch", "jobs", "", "")),
        ("PATCH", "/apis/batch/v1/namespaces/a/jobs/j/status", {}, ("patch", "jobs/status", "a", "j")),
        ("POST", "/api/v1/namespaces/a/pods/p/eviction", {}, ("create", "pods/eviction", "a", "p")),
        ("DELETE", "/api/v1/namespaces/a/pods", {}, ("deletecollection", "pods", "a", "")),
        ("DELETE", "/api/v1/namespaces/a", {}, ("delete", "namespaces", "", "a")),
        ("PUT", "/api/v1/namespaces/a/finalize", {}, ("update", "namespaces/finalize", "", "a")),
        ("PATCH", "/api/v1/nodes/n/status", {}, ("patch", "nodes/status", "", "n")),
        ("GET", "/readyz", {}, ("get", "", "", "")),
        ("GET", "/apis/batch/v1", {}, ("get", "", "", "")),
    ],
)
def test_requests_are_named_as_in_the_audit_log(
    method: str, path: str, query: dict[str, str], expected: tuple[str, str, str, str]
) -> None:
    assert parse(method, path, query) == ApiRequest(*expected, path)


def test_without_rules_all_gets_through_and_is_counted(
    control_plane: Access, namespace: str, proxy: FaultProxy, through: Rest
) -> None:
    for name in ("a", "b"):
        through.create(maps(namespace), named(name))
    through.patch(maps(namespace, "a"), {"data": {"k": "v"}})
    assert through.get(maps(namespace, "a"))["data"] == {"k": "v"}
    through.delete(maps(namespace, "b"))
    assert names(control_plane, namespace) == ["a"]
    counted = {verb: proxy.count(verb, "configmaps") for verb in ("create", "patch", "get", "delete", "list")}
    assert counted == {"create": 2, "patch": 1, "get": 1, "delete": 1, "list": 0}


def test_a_bearer_token_keeps_its_rights(control_plane: Access, namespace: str, tmp_path: Path) -> None:
    nobody = control_plane.service_account(namespace, "default")
    with FaultProxy(nobody.kubeconfig, tmp_path) as proxy, pytest.raises(ApiError, match="system:serviceaccount"):
        Rest(proxy.kubeconfig, "test").get(maps(namespace))


def test_kubectl_works_through_the_proxy_and_obeys_retry_after(
    control_plane: Access, namespace: str, proxy: FaultProxy
) -> None:
    rule = proxy.inject(Respond(429, retry_after=1), verb="create", resource="configmaps", times=1)
    kubectl = Access(proxy.kubeconfig, control_plane.kubectl_program, control_plane.helm_program).kubectl
    began = time.monotonic()
    kubectl("create", "configmap", "a", "-n", namespace)
    assert time.monotonic() - began > 1
    assert rule.hits == 1
    assert names(control_plane, namespace) == ["a"]


@pytest.mark.parametrize("code", [409, 410, 429, 500])
def test_only_the_next_requests_that_match_are_refused(
    control_plane: Access, namespace: str, proxy: FaultProxy, through: Rest, code: int
) -> None:
    rule = proxy.inject(Respond(code), verb="create", resource="configmaps", times=2)
    through.get(maps(namespace))
    for _ in range(2):
        with pytest.raises(ApiError, match=f"^{code}: ") as caught:
            through.create(maps(namespace), named("a"))
        assert caught.value.code == code
    through.create(maps(namespace), named("a"))
    assert rule.hits == 2


def test_a_dropped_request_never_happened(
    control_plane: Access, namespace: str, proxy: FaultProxy, through: Rest
) -> None:
    proxy.inject(DropRequest(), verb="create", times=1)
    with pytest.raises(HTTPError):
        through.create(maps(namespace), named("a"))
    assert names(control_plane, namespace) == []


def test_a_dropped_reply_hides_what_happened(
    control_plane: Access, namespace: str, proxy: FaultProxy, through: Rest
) -> None:
    proxy.inject(DropReply(), verb="create", times=1)
    with pytest.raises(HTTPError):
        through.create(maps(namespace), named("a"))
    assert names(control_plane, namespace) == ["a"]
    with pytest.raises(ApiError, match="AlreadyExists"):
        through.create(maps(namespace), named("a"))


@pytest.mark.parametrize(("fault", "arrived"), [(Delay(1.0), []), (DelayReply(1.0), ["b"])], ids=["request", "reply"])
def test_a_delayed_request_arrives_late_or_is_answered_late(
    control_plane: Access,
    namespace: str,
    proxy: FaultProxy,
    through: Rest,
    fault: Delay | DelayReply,
    arrived: list[str],
) -> None:
    """Of those that match, the first one is let pass."""
    rule = proxy.inject(fault, resource="configmaps", times=1, after=1)
    through.create(maps(namespace), named("a"))
    assert rule.hits == 0
    began = time.monotonic()
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(through.create, maps(namespace), named("b"))
        time.sleep(0.5)
        assert names(control_plane, namespace) == ["a", *arrived]
        asked.result(10)
    assert time.monotonic() - began > 1.0
    assert names(control_plane, namespace) == ["a", "b"]


class Follower:
    """Reads one watch in a thread until it ends, and keeps what it saw."""

    def __init__(self, rest: Rest, path: str) -> None:
        self.seen: list[str] = []
        self.broken = False
        self.watch = Watch()
        self._thread = threading.Thread(target=self._follow, args=(rest, path))
        self._thread.start()

    def _follow(self, rest: Rest, path: str) -> None:
        try:
            for _, document in rest.watch(path, self.watch):
                self.seen.append(document["metadata"]["name"])
        except HTTPError:
            self.broken = True

    def ended(self) -> bool:
        return not self._thread.is_alive()


def test_a_cut_watch_breaks_in_the_middle(namespace: str, proxy: FaultProxy, through: Rest) -> None:
    follower = Follower(through, maps(namespace))
    through.create(maps(namespace), named("a"))
    eventually(lambda: "a" in follower.seen, "event")
    assert proxy.cut_watches("pods") == 0
    assert proxy.cut_watches("configmaps") == 1
    eventually(follower.ended, "end of the watch")
    assert follower.broken


def test_an_expired_watch_ends_and_the_next_one_starts_over(namespace: str, proxy: FaultProxy, through: Rest) -> None:
    through.create(maps(namespace), named("a"))
    proxy.inject(ExpireWatch(), verb="watch", times=1)
    expired = Follower(through, maps(namespace))
    eventually(expired.ended, "end of the watch")
    assert (expired.seen, expired.broken) == ([], False)
    again = Follower(through, maps(namespace))
    eventually(lambda: "a" in again.seen, "event")
    again.watch.end()
    eventually(again.ended, "end of the watch")


def test_a_stalled_watch_says_nothing_until_it_breaks(namespace: str, proxy: FaultProxy, through: Rest) -> None:
    through.create(maps(namespace), named("a"))
    proxy.inject(StallWatch(), verb="watch", times=1)
    follower = Follower(through, maps(namespace))
    eventually(lambda: proxy.count("watch") == 1, "watch")
    time.sleep(0.3)
    assert (follower.seen, follower.ended()) == ([], False)
    proxy.heal()
    eventually(follower.ended, "end of the watch")
    assert follower.broken


def test_in_a_partition_nothing_gets_through(
    control_plane: Access, namespace: str, proxy: FaultProxy, through: Rest
) -> None:
    follower = Follower(through, maps(namespace))
    eventually(lambda: follower.seen, "event")
    proxy.partition()
    eventually(follower.ended, "end of the watch")
    with pytest.raises(HTTPError):
        through.create(maps(namespace), named("a"))
    proxy.heal()
    through.create(maps(namespace), named("b"))
    assert names(control_plane, namespace) == ["b"]


def test_an_error_of_the_api_server_reaches_the_client(
    control_plane: Access, namespace: str, proxy: FaultProxy
) -> None:
    kubectl = Access(proxy.kubeconfig, control_plane.kubectl_program, control_plane.helm_program).kubectl
    with pytest.raises(CommandError, match='configmaps "absent" not found'):
        kubectl("get", "configmap", "absent", "-n", namespace)
