"""The way to the API server: address, trust, and credentials that are renewed as they rotate.

Credentials are read by the official client, which knows kubeconfig files, their plugins and service accounts. Requests
are made with aiohttp itself, as kopf makes its own: objects stay the JSON that they are, without the client's models.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 15.0
"""Longest time for one request that is not a list."""
_RENEW_SECONDS = 60.0
"""Time after which a kubeconfig file is read again: tokens of files and of plugins expire."""

AGENT = "empg-operator"


class Connection:
    """One API server and one identity there."""

    def __init__(self, configuration: Configuration, renew: Callable[[], Awaitable[None]] | None) -> None:
        self._configuration = configuration
        self._renew = renew
        self._renewed = asyncio.get_running_loop().time()
        self._renewing = asyncio.Lock()
        self.server: str = configuration.host

    @classmethod
    async def load(cls, kubeconfig: Path | None) -> Connection:
        """Of a kubeconfig file, or of the service account of this pod.

        ValueError: there is no such file or account, or it asks for what is not supported.
        """
        configuration = Configuration()
        renew = None
        try:
            if kubeconfig is None:
                config.load_incluster_config(configuration)
            else:
                loader = await config.load_kube_config(
                    str(kubeconfig), client_configuration=configuration, persist_config=False
                )

                async def renew() -> None:
                    await loader.load_and_set(configuration)

        except config.ConfigException as error:
            where = f"kubeconfig {kubeconfig}" if kubeconfig else "no service account (use --kubeconfig outside a pod)"
            raise ValueError(f"{where}: {error}") from error
        if configuration.tls_server_name:
            raise ValueError(
                f"kubeconfig {kubeconfig}: tls-server-name is not supported; use a name of the certificate"
            )
        return cls(configuration, renew)

    def session(self, traces: Sequence[aiohttp.TraceConfig] = ()) -> aiohttp.ClientSession:
        """A new session, to be closed by the caller. Every request of it carries the credentials of its moment."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl()),
            headers={"User-Agent": AGENT},
            proxy=self._configuration.proxy,
            middlewares=(self._authorize,),
            trace_configs=list(traces),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS),
        )

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        loop = asyncio.get_running_loop()
        if self._renew and loop.time() - self._renewed > _RENEW_SECONDS:
            async with self._renewing:
                if loop.time() - self._renewed > _RENEW_SECONDS:
                    await self._renew()
                    self._renewed = loop.time()
        credentials = await self._configuration.get_api_key_with_prefix("BearerToken")
        if credentials:
            request.headers["Authorization"] = credentials
        return await handler(request)

    def _ssl(self) -> ssl.SSLContext:
        settings = self._configuration
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        # Clusters' own authorities often lack extensions that Python 3.13 began to insist on; no other client does.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        if not settings.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
