"""The HTTP endpoint of a program: `/metrics` for Prometheus, `/healthz` and `/readyz` for the kubelet."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

REQUEST_SECONDS = 10.0
"""Longest time that a client may take for its request."""
_TEXT = "text/plain; version=0.0.4"
"""The one format of answers, whatever a client prefers: OpenMetrics would have vLLM's `vllm:…` as `vllm_…`."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # Clusters may have IPv6 alone, and some machines have none of it.
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: probes and scrapes come every few seconds."""

    def address_string(self) -> str:
        return str(self.client_address[0])


def serve(
    port: int,
    registry: CollectorRegistry,
    *,
    alive: Callable[[], bool] = lambda: True,
    ready: Callable[[], bool] = lambda: True,
) -> None:
    """Answer on `port` of all addresses, in a thread, until the process ends.

    `/healthz` and `/readyz` are 200 or 503 by what `alive` and `ready` say. OSError if the port is taken.
    """
    metrics = make_wsgi_app(registry)
    probes = {"/healthz": alive, "/readyz": ready}

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            page: Iterable[bytes] = metrics({**environ, "HTTP_ACCEPT": _TEXT}, start)
            return page
        if path not in probes:
            status, text = "404 Not Found", b"/metrics, /healthz or /readyz\n"
        elif probes[path]():
            status, text = "200 OK", b"ok\n"
        else:
            status, text = "503 Service Unavailable", b"no\n"
        start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))])
        return [text]

    try:
        server = _Server(("", port), _Handler)
    except OSError as error:
        raise OSError(error.errno, f"metrics port {port}: {error.strerror}; choose another") from error
    server.set_app(answer)
    threading.Thread(target=server.serve_forever, name="endpoint", daemon=True).start()
