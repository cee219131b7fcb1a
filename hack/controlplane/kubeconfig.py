"""Kubeconfig files that hold all they need, so that a copy works anywhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from hack.controlplane.certificates import Pair


def with_certificate(path: Path, server: str, authority: Path, client: Pair) -> Path:
    """Write a kubeconfig of a client that proves itself by certificate; its path."""
    cluster = {"server": server, "certificate-authority-data": _encoded(authority)}
    user = {"client-certificate-data": _encoded(client.certificate), "client-key-data": _encoded(client.key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": "local", "user": user}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
        "current-context": "local",
    }
    return _write(path, document)


def pointed_at(path: Path, original: Path, server: str, authority: Path) -> Path:
    """Write a copy of a kubeconfig whose users go to another server; its path."""
    document = yaml.safe_load(original.read_text())
    for cluster in document["clusters"]:
        cluster["cluster"] = {"server": server, "certificate-authority-data": _encoded(authority)}
    return _write(path, document)


def with_users_token(path: Path, original: Path, token: str) -> Path:
    """Write a copy of a kubeconfig whose users prove themselves by this bearer token; its path."""
    document = yaml.safe_load(original.read_text())
    for user in document["users"]:
        user["user"] = {"token": token}
    return _write(path, document)


def _write(path: Path, document: dict[str, Any]) -> Path:
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
