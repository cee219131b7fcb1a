"""What a grading process and its user say to each other: JSON objects, and one exit code."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

OUT_OF_MEMORY = 86
"""Exit code of a worker that reached its memory limit."""


def send(connection: Connection, message: dict[str, Any]) -> None:
    """Send a message. JSON escapes NUL bytes and lone surrogates; unlike a pickle it can't run code when it is read."""
    connection.send_bytes(json.dumps(message).encode("ascii"))


def receive(connection: Connection) -> dict[str, Any]:
    """Wait for the next message. `EOFError` when the other side has closed the connection."""
    message: dict[str, Any] = json.loads(connection.recv_bytes())
    return message
