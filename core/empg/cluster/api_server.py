"""The Kubernetes API server as a pod sees it, for one call: server-side apply of a part of a run's status."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping

# http.client: one small PATCH now and then needs no pool, no proxy of the environment and no further dependency.
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Self

from empg.api.run import API_VERSION, KIND

Fields = Mapping[str, Any]
"""JSON data."""

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ACCOUNT_VARIABLE = "EMPG_SERVICE_ACCOUNT"
"""Names the directory of token and CA where it is another one."""
TIMEOUT_SECONDS = 5.0
"""Of connecting, and of every read."""
ANSWER_BYTES = 1 << 20


class ApiError(Exception):
    """A write did not succeed; the message says why. It may be tried again."""


class RunGone(ApiError):
    """There is no such run any more."""


class RunStatus:
    """Writes what one field manager owns of the status of one run."""

    def __init__(self, host: str, port: int, account: Path, namespace: str, run: str, uid: str | None, manager: str):
        """`account`: directory with `token` and `ca.crt`, both read anew for every write since they rotate.

        `uid`: a later run of the same name is not written to.
        """
        self._host = host
        self._port = port
        self._account = account
        self._run = run
        self._uid = uid
        self._manager = manager
        group, version = API_VERSION.split("/")
        self._path = f"/apis/{group}/{version}/namespaces/{namespace}/{KIND.lower()}s/{run}"

    @classmethod
    def of_this_pod(cls, environment: Mapping[str, str], uid: str | None, manager: str) -> Self:
        """The run that the environment names. ValueError names the variables that are missing."""
        wanted = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "EMPG_NAMESPACE", "EMPG_RUN")
        if missing := [name for name in wanted if not environment.get(name)]:
            raise ValueError(f"--report needs {', '.join(missing)} in the environment, as the operator sets them")
        host, port, namespace, run = (environment[name] for name in wanted)
        return cls(host, int(port), Path(environment.get(ACCOUNT_VARIABLE, ACCOUNT)), namespace, run, uid, manager)

    def apply(self, fields: Fields) -> None:
        """Make `fields` of the status what they are here; those applied before and missing now are removed."""
        # The API server itself looks at the UID in no write to a status.
        if self._uid and (found := self._ask("GET", self._path)["metadata"]["uid"]) != self._uid:
            raise RunGone(f"run {self._run} has UID {found} now; ours had {self._uid}")
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": self._run}, "status": fields}
        self._ask(
            "PATCH",
            f"{self._path}/status?fieldManager={self._manager}&force=true",
            json.dumps(body, allow_nan=False).encode(),
        )

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The metadata of the run after a request."""
        try:
            code, answer = self._send(method, path, body)
        except (OSError, HTTPException) as error:
            raise ApiError(f"the API server at {self._host}:{self._port} does not answer: {error!r}") from error
        if code == 404:
            raise RunGone(_message(answer))
        if not 200 <= code < 300:
            raise ApiError(f"the API server refuses to {method} the run ({code}): {_message(answer)}")
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ApiError(f"the API server at {self._host}:{self._port} does not answer in JSON") from error

    def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        token = (self._account / "token").read_text().strip()
        trusted = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
        connection = HTTPSConnection(self._host, self._port, timeout=TIMEOUT_SECONDS, context=trusted)
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/apply-patch+yaml",
            "Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            "User-Agent": self._manager,
        }
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(ANSWER_BYTES)
        finally:
            connection.close()


def _message(answer: bytes) -> str:
    """What a `Status` of the API server says, or the beginning of any other answer."""
    try:
        return str(json.loads(answer)["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode(errors="replace")
