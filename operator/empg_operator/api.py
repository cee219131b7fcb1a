"""Requests to the API server: the only module that makes any, but for kopf's own lists and watches.

Each call is one request (a list: one per chunk) that ends in time. Nothing is tried again here: whoever asked repeats
its whole decision, which by then may be another one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import aiohttp

from empg_operator import names
from empg_operator.connection import CONNECT_SECONDS, REQUEST_SECONDS
from empg_operator.decision import Manifest, Reference
from empg_operator.kinds import EVENT, POD, RUN, Kind, by_name
from empg_operator.metrics import Metrics

CHUNK = 100
"""Objects per request of a list; parsed, a chunk takes ten times the room of what is kept of it."""
_LIST_SECONDS = 60.0
ABSENT, CONFLICT = 404, 409
_FORBIDDEN = 403
_REFUSALS = (400, _FORBIDDEN, 422)
_DENIED = re.compile(r'User "[^"]*" cannot |is attempting to grant RBAC permissions not currently held')
"""How the API server words it, for a role too that would give more than we have; quotas and admission are told by the
same code and reason."""
UNDECLARED = "failed to create typed patch object"
"""How the API server words, with code 500, that a definition lacks a field that is applied: it is older than we are."""
WEBHOOK_AWAY = "failed calling webhook"
"""How it words, with code 500, that a webhook does not answer without which nothing is allowed."""
_NAMESPACE_TERMINATING = "NamespaceTerminating"
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MESSAGE_CHARACTERS = 500


class ApiError(Exception):
    """The API server refused a request, or did not answer."""

    def __init__(
        self,
        what: str,
        code: int,
        reason: str,
        message: str,
        retry_after: float | None = None,
        causes: Collection[str] = (),
    ) -> None:
        super().__init__(f"{what}: {code or 'no answer'} {reason}: {message}"[:_MESSAGE_CHARACTERS])
        self.code = code
        """HTTP status; 0: no answer came."""
        self.reason = reason
        self.message = message[:_MESSAGE_CHARACTERS]
        self.retry_after = retry_after
        """Seconds that the server asks to be left alone."""
        self.namespace_ends = _NAMESPACE_TERMINATING in causes
        """Whether the namespace is being deleted: what was to be made in it is no longer wanted."""

    @property
    def is_refusal(self) -> bool:
        """Whether the same request would be refused again: it is wrong or not allowed, or nobody can be asked who has
        to allow it. Others may go through meanwhile, as those that give resources back."""
        return self.code in _REFUSALS or self.message.startswith(UNDECLARED) or WEBHOOK_AWAY in self.message

    @property
    def is_denial(self) -> bool:
        """Whether the request was refused because we have no right to it, and not for what it asks."""
        return self.code == _FORBIDDEN and _DENIED.search(self.message) is not None


class Api:
    """One identity's requests to one API server."""

    def __init__(self, session: aiohttp.ClientSession, server: str, metrics: Metrics) -> None:
        self._session = session
        self._server = server
        self._metrics = metrics

    async def chunks(
        self, kind: Kind, namespace: str | None, *, labels: str | None = None, fields: str = "", limit: int = CHUNK
    ) -> AsyncIterator[tuple[list[Manifest], int]]:
        """Chunks of a collection, each with the resource version that the whole list is of.

        `labels` stands in for the selector of the kind.
        """
        query = {"limit": str(limit)}
        if selector := kind.selector if labels is None else labels:
            query["labelSelector"] = selector
        if fields:
            query["fieldSelector"] = fields
        while True:
            answer = await self._request("list", "GET", kind.path(namespace), query, seconds=_LIST_SECONDS)
            items = answer.get("items") or []
            for item in items:
                item["apiVersion"], item["kind"] = kind.api_version, kind.name
            yield items, int(answer["metadata"]["resourceVersion"])
            following = answer["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """An object, or None where there is none."""
        try:
            return await self._request("get", "GET", kind.path(namespace, name))
        except ApiError as error:
            if error.code == ABSENT:
                return None
            raise

    async def serves(self, kind: Kind) -> bool:
        """Whether the cluster has this kind."""
        try:
            found = await self._request("get", "GET", f"/apis/{kind.api_version}")
        except ApiError as error:
            if error.code == ABSENT:
                return False
            raise
        return any(resource["name"] == kind.plural for resource in found["resources"])

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply under our field manager, taking over fields of others; the object as it is then."""
        kind, about = by_name(manifest["kind"]), manifest["metadata"]
        return await self._patch("apply", kind.path(about["namespace"], about["name"]), manifest)

    async def apply_status(self, run: Manifest, status: Manifest) -> Manifest | None:
        """Make `status` all that is ours of a run's status; the run as it is then, or None if it is gone.

        ApiError with code 409: the run is not as it was observed. In writes to a status the API server looks at the
        resource version alone, not at the UID: a later run of the same name would inherit the status of this one.
        """
        about = {key: run["metadata"][key] for key in ("namespace", "name", "resourceVersion")}
        body = {"apiVersion": RUN.api_version, "kind": RUN.name, "metadata": about, "status": status}
        try:
            return await self._patch("apply_status", RUN.path(about["namespace"], about["name"], "status"), body)
        except ApiError as error:
            if error.code == ABSENT:
                return None
            raise

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Create an object; the object, or None if one of its name exists."""
        kind, about = by_name(manifest["kind"]), manifest["metadata"]
        try:
            return await self._post("create", kind.path(about["namespace"]), manifest)
        except ApiError as error:
            if error.code == CONFLICT:
                return None
            raise

    async def try_pod(self, manifest: Manifest) -> str:
        """Create a pod in a dry run: why it is refused; empty if it is not."""
        try:
            await self._post("dry_run", POD.path(manifest["metadata"]["namespace"]), manifest, {"dryRun": "All"})
        except ApiError as error:
            if error.code == CONFLICT:  # a pod of this name exists, which is found out after admission
                return ""
            if error.is_refusal and not error.namespace_ends:
                return error.message
            raise
        return ""

    async def delete(self, reference: Reference, namespace: str) -> Manifest | None:
        """Delete an object. One that is gone, or of another UID, is left at that.

        The object, if it is still there because something must be done before it may go.
        """
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": reference.propagation,  # without one, old clients' defaults orphan running pods
        }
        if reference.uid:
            options["preconditions"] = {"uid": reference.uid}
        try:
            path = by_name(reference.kind).path(namespace, reference.name)
            answer = await self._request("delete", "DELETE", path, {}, options)
        except ApiError as error:
            if error.code in (ABSENT, CONFLICT):
                return None
            raise
        return answer if answer["kind"] == reference.kind else None

    async def create_event(self, manifest: Manifest) -> None:
        """Create an event (core/v1)."""
        await self._post("create_event", EVENT.path(manifest["metadata"]["namespace"]), manifest)

    async def put(self, kind: Kind, manifest: Manifest) -> Manifest | None:
        """Replace an object, or create it where it has no resource version; None if somebody else was faster."""
        about = manifest["metadata"]
        try:
            if "resourceVersion" in about:
                path = kind.path(about["namespace"], about["name"])
                return await self._request("update", "PUT", path, {}, manifest)
            return await self._post("create", kind.path(about["namespace"]), manifest)
        except ApiError as error:
            if error.code == CONFLICT:
                return None
            raise

    async def _patch(self, verb: str, path: str, body: Manifest) -> Manifest:
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        return await self._request(verb, "PATCH", path, query, body, _APPLY)

    async def _post(self, verb: str, path: str, body: Manifest, query: Mapping[str, str] | None = None) -> Manifest:
        query = {"fieldManager": names.FIELD_MANAGER, "fieldValidation": "Strict", **(query or {})}
        return await self._request(verb, "POST", path, query, body)

    async def _request(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = _JSON,
        seconds: float = REQUEST_SECONDS,
    ) -> dict[str, Any]:
        """One request; the answer's JSON.

        ApiError: any status but success, no answer, or none in time.
        """
        begun = time.monotonic()
        code = 0
        try:
            async with self._session.request(
                method,
                f"{self._server}{path}",
                params=query,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Accept": _JSON, **({"Content-Type": content_type} if body is not None else {})},
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
            ) as answer:
                text = await answer.read()
                code = answer.status
                if answer.ok:
                    found: dict[str, Any] = json.loads(text)
                    return found
                raise _error(f"{verb} {path}", answer, text)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(f"{verb} {path}", code, type(error).__name__, str(error) or "timed out") from error
        finally:
            self._metrics.api_requests.labels(verb, str(code) if code else "none").inc()
            self._metrics.api_request_seconds.labels(verb).observe(time.monotonic() - begun)


def _error(what: str, answer: aiohttp.ClientResponse, text: bytes) -> ApiError:
    """What the server says about a failure; proxies on the way may say it in other formats."""
    try:
        said = json.loads(text)
        message = str(said["message"])
        reason = str(said.get("reason") or answer.reason or "")  # internal errors have none
        causes = [str(cause.get("reason")) for cause in (said.get("details") or {}).get("causes") or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        reason, message, causes = answer.reason or "", text.decode(errors="replace"), []
    after = answer.headers.get("Retry-After", "")
    # The header may hold a date instead, which no API server sends.
    return ApiError(what, answer.status, reason, message, float(after) if after.isdecimal() else None, causes)
