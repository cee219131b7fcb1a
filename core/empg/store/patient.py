"""A store that waits for room where a volume is full."""

from __future__ import annotations

import functools
from pathlib import Path

from empg.store.base import retry_when_full
from empg.store.posix import PosixStore


class PatientStore(PosixStore):
    """A POSIX store whose writes are tried again for `seconds` when no space is left, and then raise StorageFull."""

    def __init__(self, root: Path, seconds: float, pause: float = 5.0) -> None:
        super().__init__(root)
        self._retry = functools.partial(retry_when_full, seconds=seconds, pause=pause)

    def create(self, key: str, data: bytes) -> None:
        self._retry(lambda: PosixStore.create(self, key, data))

    def put(self, key: str, data: bytes) -> None:
        self._retry(lambda: PosixStore.put(self, key, data))
