"""kopf's part: it lists and watches, and every event goes into the cache and its run into the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import kopf

from empg_operator.api import CHUNK
from empg_operator.cache import Cache, RunKey
from empg_operator.connection import CONNECT_SECONDS, Connection
from empg_operator.kinds import WATCHED, Kind
from empg_operator.queue import Queue
from empg_operator.watches import Watches

SERVER_SECONDS = 300
"""Time after which the API server ends a watch, and another one begins."""
_CLIENT_SECONDS = SERVER_SECONDS + 20
_INACTIVITY_SECONDS = 70.0
"""Longest silence of a watch: the API server sends a bookmark every minute."""
_IDLE_SECONDS = 0.1
"""Time that kopf keeps a task for an object, and with it the object, after its event."""
_LOGIN_PAUSE_SECONDS = 2.0
_LONGEST_BACKOFF_SECONDS = 30.0


class _Backoffs:
    """Waits between tries of kopf's requests, without end: an API server that is away is waited for, not mourned."""

    def __iter__(self) -> Iterator[float]:
        delay = 1.0
        while True:
            yield delay
            delay = min(2 * delay, _LONGEST_BACKOFF_SECONDS)


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf copies each object twice to find out what changed since its last handler; nobody asks here."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("kopf is to watch only")


def settings() -> kopf.OperatorSettings:
    """How kopf is to behave: it watches and does nothing else, least of all write."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True
    chosen.posting.enabled = False
    # Kinds come with the cluster or the chart; looking out for more would need rights on all namespaces.
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = SERVER_SECONDS
    chosen.watching.client_timeout = _CLIENT_SECONDS
    chosen.watching.connect_timeout = CONNECT_SECONDS
    chosen.watching.inactivity_timeout = _INACTIVITY_SECONDS
    chosen.watching.chunk_size = CHUNK
    chosen.persistence.diffbase_storage = _NoDiffs()
    chosen.queueing.idle_timeout = _IDLE_SECONDS
    chosen.networking.request_timeout = 60.0
    chosen.networking.connect_timeout = CONNECT_SECONDS
    chosen.networking.error_backoffs = _Backoffs()
    for kind in WATCHED:
        if kind.selector:
            chosen.watching.label_selectors[_resource(kind)] = kind.selector
    return chosen


def registry(connection: Connection, cache: Cache, queue: Queue[RunKey], watches: Watches) -> kopf.OperatorRegistry:
    """The handlers of the watched kinds, and the login."""
    handlers = kopf.OperatorRegistry()
    for kind in WATCHED:
        _handle(handlers, kind, cache, queue, watches)

    again = False

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        """A session with fresh credentials; asked for at the start and after each 401, when kopf closes the old one."""
        nonlocal again
        if again:
            await asyncio.sleep(_LOGIN_PAUSE_SECONDS)
        again = True
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=connection.session([watches.trace()]))

    return handlers


def _handle(handlers: kopf.OperatorRegistry, kind: Kind, cache: Cache, queue: Queue[RunKey], watches: Watches) -> None:
    @kopf.on.event(*_resource(kind), registry=handlers, id=kind.plural)
    async def note(event: Any, **_: Any) -> None:
        watches.heard(kind)
        manifest = {**event["object"], "apiVersion": kind.api_version, "kind": kind.name}
        concerned = cache.remove(manifest) if event["type"] == "DELETED" else cache.put(manifest)
        for key in concerned:
            queue.add(key)


def _resource(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return group, version, kind.plural
