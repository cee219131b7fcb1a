"""What a user of a cluster holds: a kubeconfig and the programs that take it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hack.controlplane import kubeconfig

_SECONDS = 120


class CommandError(RuntimeError):
    """kubectl or helm failed; the message is what it said."""


@dataclass(frozen=True)
class Access:
    """One user's way into one cluster."""

    kubeconfig: Path
    kubectl_program: Path
    helm_program: Path
    audit_log: Path | None = None
    """Of the API server: one JSON line per answered request. None where the cluster is not ours."""

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Run kubectl, with `input` on its standard input; what it printed.

        Raises:
            CommandError: it failed; the message is its standard error.
        """
        return self._run(self.kubectl_program, arguments, input)

    def helm(self, *arguments: str, input: str | None = None) -> str:
        """Run helm; as `kubectl`."""
        return self._run(self.helm_program, arguments, input)

    def service_account(self, namespace: str, name: str) -> Access:
        """The access of a service account that exists, by a token of one hour."""
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration", "1h").strip()
        path = self.kubeconfig.with_name(f"{namespace}.{name}.kubeconfig")
        kubeconfig.with_users_token(path, self.kubeconfig, token)
        return replace(self, kubeconfig=path)

    def _run(self, program: Path, arguments: tuple[str, ...], text: str | None) -> str:
        done = subprocess.run(
            [str(program), *arguments],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            input=text,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        if done.returncode != 0:
            raise CommandError(f"{program.name} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


@dataclass(frozen=True)
class Call:
    """One answered request, from the audit log."""

    user: str
    verb: str
    """get, list, watch, create, update, patch, delete or deletecollection."""
    resource: str
    """Plural, with subresource: `pods`, `jobs/status`. Empty for a path that is no resource."""
    namespace: str
    name: str
    code: int
    """HTTP status of the answer."""
    agent: str
    """User-Agent of the client."""

    @property
    def writes(self) -> bool:
        """Whether it was to change something."""
        return self.verb not in ("get", "list", "watch")


def read_calls(audit_log: Path, offset: int = 0) -> list[Call]:
    """The requests answered since the log had `offset` bytes, in order; a watch counts when it ends."""
    with audit_log.open("rb") as log:
        log.seek(offset)
        events = [json.loads(line) for line in log if line.endswith(b"\n")]
    return [_call(event) for event in events if event["stage"] == "ResponseComplete"]


def _call(event: dict[str, Any]) -> Call:
    about = event.get("objectRef", {})
    return Call(
        user=event["user"].get("username", ""),
        verb=event["verb"],
        resource="/".join(part for part in (about.get("resource", ""), about.get("subresource", "")) if part),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        agent=event.get("userAgent", ""),
    )
