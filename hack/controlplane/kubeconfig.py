"""Kubeconfig files that hold all they need, so that a copy works anywhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from hack.controlplane.certificates import Pair


def with_certificate(path: Path, server: str, authority: Path, client: Pair) -> Path:
    """Write a kubeconfig of a client that proves itself by certificate; its path."""
    user = {"client-certificate-data": _encoded(client.certificate), "client-key-data": _encoded(client.key)}
    return _write(path, server, authority, user)


def with_token(path: Path, server: str, authority: Path, token: str) -> Path:
    """Write a kubeconfig of a client that proves itself by bearer token; its path."""
    return _write(path, server, authority, {"token": token})


def _write(path: Path, server: str, authority: Path, user: dict[str, str]) -> Path:
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "local", "cluster": {"server": server, "certificate-authority-data": _encoded(authority)}}
        ],
        "users": [{"name": "local", "user": user}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
        "current-context": "local",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
