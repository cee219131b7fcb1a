"""The operations that the run directory is built on, and nothing a POSIX file system or an object store lacks."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Names = list[str]

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=-]{0,199}(/[A-Za-z0-9_][A-Za-z0-9._+@=-]{0,199})*")


class StoreError(Exception):
    """The storage failed; the message names the key or path and what to do."""


class KeyExists(StoreError):
    """`create` found other content under the key."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"{key} exists already with other content")


class KeyMissing(StoreError):
    """There is nothing under the key."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"{key} does not exist")


class StorageFull(StoreError):
    """No space or quota was left. Nothing became visible; the same call may be made again."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        super().__init__(f"{path} could not be written ({reason}): free space on its volume, or enlarge it")


class Store(Protocol):
    """Bytes under slash-separated keys.

    A write is visible as a whole or not at all, and durable when the call returns. Keys are relative, and no part of
    one starts with a dot; a prefix may end with a slash. Any method may raise StoreError; writes may raise StorageFull.
    """

    def create(self, key: str, data: bytes) -> None:
        """Write a key that does not exist. KeyExists if it does; the same content found there is success."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace a key that has a single writer."""

    def get(self, key: str) -> bytes:
        """The whole content. KeyMissing if there is none."""

    def list(self, prefix: str) -> Names:
        """All keys below `prefix/` ("" for all), sorted, recursive. Empty if there are none."""

    def children(self, prefix: str) -> Names:
        """The next part of every key below `prefix/`, sorted, each once: names of keys and of deeper prefixes.

        A name may stand for a prefix that holds nothing yet.
        """

    def delete(self, key: str) -> None:
        """Remove a key; nothing happens if it does not exist. For retention alone."""

    def sweep(self, prefix: str) -> int:
        """Remove what interrupted writes left below `prefix/`; the number of removed pieces.

        A write that is under way starts again by itself, so this is safe at any time, if wasteful.
        """

    def local(self, key: str) -> Path:
        """A path under which other programs can read the key or the keys below it."""


def checked(key: str) -> str:
    """`key` itself. ValueError if it is not a valid key or prefix: absolute, with `..`, or with odd characters."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a valid key: use parts of letters, digits and ._+@=- joined by '/'")
    return key


def retry_when_full(
    action: Callable[[], Result],
    seconds: float,
    *,
    pause: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Result:
    """Call `action` until it does not raise StorageFull, for `seconds` at most; then the last StorageFull is raised.

    Every refusal is logged as an error, so that somebody makes room. `sleep` may raise to give up earlier.
    """
    deadline = clock() + seconds
    while True:
        try:
            return action()
        except StorageFull as error:
            left = deadline - clock()
            if left <= 0:
                raise
            log.error("%s; trying again for %.0f s", error, left)
            sleep(min(pause, left))
