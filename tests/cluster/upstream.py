"""The API server as a proxy sees it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Self

import aiohttp
from aiohttp import web
from kubernetes import client, config

_CONNECT_SECONDS = 10.0
_OF_ONE_CONNECTION = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


class Upstream:
    """Forwards requests to the API server of a kubeconfig.

    A request with a bearer token keeps its identity; one without has the client certificate of the kubeconfig.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=self._settings)

    async def __aenter__(self) -> Self:
        self._of_bearers = self._session(client_certificate=False)
        self._of_user = self._session(client_certificate=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._of_bearers.close()
        await self._of_user.close()

    async def forward(self, request: web.Request) -> aiohttp.ClientResponse:
        """Send the request; the answer's body is still to be read, as it came."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_ONE_CONNECTION}
        session = self._of_bearers if "Authorization" in headers else self._of_user
        address = f"{self._settings.host}{request.raw_path}"
        return await session.request(
            request.method,
            address,
            headers=headers,
            data=await request.read() or None,
            allow_redirects=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )

    def _session(self, client_certificate: bool) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=self._settings.ssl_ca_cert)
        if client_certificate and self._settings.cert_file:
            context.load_cert_chain(self._settings.cert_file, self._settings.key_file)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
            auto_decompress=False,
        )


def headers_of(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """What of an answer's headers is meant for the client."""
    return {name: value for name, value in answer.headers.items() if name.lower() not in _OF_ONE_CONNECTION}
