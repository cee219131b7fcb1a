"""A proxy before the API server that lets requests fail as a test wishes, and counts them."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web
from api_request import ApiRequest, parse
from faults import REASONS, Delay, DelayReply, DropReply, DropRequest, ExpireWatch, Fault, Respond, Rule, StallWatch
from upstream import Upstream, headers_of

from hack.controlplane.certificates import Authority
from hack.controlplane.kubeconfig import pointed_at

T = TypeVar("T")
_SECONDS = 30.0


@dataclass(frozen=True, eq=False)
class _OpenWatch:
    request: ApiRequest
    connection: web.Request
    stalled: bool = False


class FaultProxy:
    """Stands between clients and the API server while the `with` block lasts.

    Clients use its kubeconfig, a copy of the original one. What they do as its user or with a bearer token, they do
    with the same rights as without the proxy.
    """

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        """Before the API server of `kubeconfig`; `directory` is for its own files."""
        self.kubeconfig = directory / "proxy.kubeconfig"
        self.requests: list[ApiRequest] = []
        """All that clients asked, in order, failed or not."""
        self._original = kubeconfig
        self._authority = Authority.create(directory / "proxy-certificates")
        self._rules: list[Rule] = []
        self._watches: set[_OpenWatch] = set()
        self._upstream = Upstream(kubeconfig)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    def inject(
        self, fault: Fault, verb: str = "", resource: str = "", name: str = "", times: int | None = None, after: int = 0
    ) -> Rule:
        """From now on, requests that match fail: the next `times` of them, or all, but for `after` that pass first.

        The oldest rule goes first.
        """
        rule = Rule(fault, verb, resource, name, times, after)
        self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Nothing fails any more; stalled watches break."""
        self._rules.clear()
        self._call(self._break(watch for watch in self._watches if watch.stalled))

    def partition(self) -> None:
        """Nothing gets through until `heal`; open watches break."""
        self.inject(DropRequest())
        self.cut_watches()

    def cut_watches(self, resource: str = "") -> int:
        """Break the open watches of a resource, or all; how many there were."""
        return self._call(self._break(watch for watch in self._watches if resource in ("", watch.request.resource)))

    def count(self, verb: str = "", resource: str = "") -> int:
        """How many requests matched so far; an empty argument matches any."""
        return sum(verb in ("", asked.verb) and resource in ("", asked.resource) for asked in self.requests)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    async def _open(self) -> None:
        await self._upstream.__aenter__()
        pair = self._authority.issue("proxy", "proxy", hosts=["127.0.0.1"])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.certificate, pair.key)
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        server = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        pointed_at(self.kubeconfig, self._original, server, self._authority.pair("ca").certificate)

    async def _close(self) -> None:
        await self._break(self._watches)
        await self._runner.cleanup()
        await self._upstream.__aexit__()

    async def _break(self, watches: Any) -> int:
        broken = list(watches)
        for watch in broken:
            _abort(watch.connection)
        return len(broken)

    async def _serve(self, connection: web.Request) -> web.StreamResponse:
        request = parse(connection.method, connection.path, connection.query)
        self.requests.append(request)
        rule = next((rule for rule in self._rules if rule.strikes(request)), None)
        match rule and rule.fault:
            case Respond(code, retry_after):
                return _refusal(code, retry_after)
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case DelayReply(seconds):
                async with await self._upstream.forward(connection) as answer:
                    body = b"" if request.verb == "watch" else await answer.read()
                    await asyncio.sleep(seconds)
                    return web.Response(status=answer.status, headers=headers_of(answer), body=body)
            case DropRequest():
                return _abort(connection)
            case DropReply():
                async with await self._upstream.forward(connection) as answer:
                    await answer.read()
                return _abort(connection)
            case ExpireWatch():
                return web.json_response({"type": "ERROR", "object": _status(410)})
            case StallWatch():
                return await self._stall(connection, request)
        async with await self._upstream.forward(connection) as answer:
            if request.verb != "watch":
                return web.Response(status=answer.status, headers=headers_of(answer), body=await answer.read())
            relayed = web.StreamResponse(status=answer.status, headers=headers_of(answer))
            watch = _OpenWatch(request, connection)
            self._watches.add(watch)
            try:
                await relayed.prepare(connection)
                async for piece in answer.content.iter_any():
                    await relayed.write(piece)
            finally:
                self._watches.remove(watch)
            return relayed

    async def _stall(self, connection: web.Request, request: ApiRequest) -> web.StreamResponse:
        silent = web.StreamResponse(headers={"Content-Type": "application/json"})
        watch = _OpenWatch(request, connection, stalled=True)
        self._watches.add(watch)
        try:
            await silent.prepare(connection)
            await asyncio.Event().wait()
        finally:
            self._watches.remove(watch)
        return silent


def _abort(connection: web.Request) -> web.Response:
    """Break the connection; the answer goes nowhere."""
    if connection.transport is not None:
        connection.transport.abort()
    return web.Response()


def _refusal(code: int, retry_after: int | None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.json_response(_status(code), status=code, headers=headers)


def _status(code: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "refused by the fault proxy",
        "reason": REASONS.get(code, "Unknown"),
        "code": code,
    }
