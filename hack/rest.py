"""The Kubernetes API as JSON documents: what hack/ and the tests need of it, no more."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config

Document = dict[str, Any]
_SECONDS = urllib3.Timeout(connect=5, read=60)
_WATCH_SECONDS = 300
PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class ApiError(Exception):
    """The API server refused a request; `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Watch:
    """One stream of changes, which another thread may end at any time."""

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._answer: urllib3.BaseHTTPResponse | None = None

    def end(self) -> None:
        """End the stream, also while its reader waits."""
        with self._lock:
            self.ended = True
            if self._answer is not None:
                self._answer.shutdown()

    def hold(self, answer: urllib3.BaseHTTPResponse | None) -> None:
        """What `end` is to end from now on."""
        with self._lock:
            self._answer = answer


class Rest:
    """One user's requests to one API server. Threads may share it."""

    def __init__(self, kubeconfig: Path, agent: str) -> None:
        """`agent` is the User-Agent, by which the audit log can tell its requests from others."""
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        token = settings.get_api_key_with_prefix("BearerToken")
        self._server = settings.host
        self._headers = {"User-Agent": agent, **({"Authorization": token} if token else {})}
        self._pool = urllib3.PoolManager(
            maxsize=8,
            ca_certs=settings.ssl_ca_cert,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            timeout=_SECONDS,
            retries=False,
        )

    def get(self, path: str, **query: str) -> Document:
        """An object, or a list."""
        return self._request("GET", path, None, query)

    def create(self, path: str, document: Mapping[str, Any]) -> Document:
        """Create an object in the collection at the path."""
        return self._request("POST", path, document)

    def replace(self, path: str, document: Mapping[str, Any], **query: str) -> Document:
        """Put a document in the place of an object."""
        return self._request("PUT", path, document, query)

    def patch(self, path: str, document: Mapping[str, Any], kind: str = "merge", **query: str) -> Document:
        """Change an object; `kind` is one of PATCH_TYPES."""
        return self._request("PATCH", path, document, query, PATCH_TYPES[kind])

    def delete(self, path: str, **options: Any) -> Document:
        """Delete an object, or all of a collection, with DeleteOptions."""
        return self._request("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})

    def watch(self, path: str, watch: Watch, **query: str) -> Iterator[tuple[str, Document]]:
        """Changes of a collection, as (type, object), beginning with ADDED for all there is.

        It ends when the server ends it, which happens every few minutes, or when `watch` is ended.
        """
        query = {"watch": "true", "timeoutSeconds": str(_WATCH_SECONDS), **query}
        answer = self._send("GET", path, None, query, timeout=urllib3.Timeout(connect=5, read=None))
        watch.hold(answer)
        rest = b""
        try:
            while not watch.ended and (piece := answer.read1()):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":  # such as 410: a new watch begins with all there is
                        return
                    yield event["type"], event["object"]
        except urllib3.exceptions.HTTPError:
            if not watch.ended:
                raise
        finally:
            watch.hold(None)
            answer.close()

    def _request(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Document:
        return json.loads(self._send(method, path, document, query, content_type).data)

    def _send(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: urllib3.Timeout | None = None,
    ) -> urllib3.BaseHTTPResponse:
        address = f"{self._server}{path}" + (f"?{urlencode(query)}" if query else "")
        answer = self._pool.request(
            method,
            address,
            body=None if document is None else json.dumps(document),
            headers={**self._headers, "Content-Type": content_type},
            preload_content=timeout is None,
            timeout=timeout or _SECONDS,
        )
        if answer.status >= 400:
            raise ApiError(answer.status, answer.data.decode(errors="replace"))
        return answer
