"""A store on a POSIX file system: local disks, NFSv4, CephFS, Lustre."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from empg.store.base import KeyExists, KeyMissing, Names, StorageFull, StoreError, checked

_TRIES = 20
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that mean StorageFull."""
_STAYS_STALE = "{} stays stale: unmount and mount the NFS volume again"


class PosixStore:
    """Keys are files below `root`.

    `create` writes a temporary file beside the key, fsyncs it and link()s it to its name; `put` rename()s it. Both
    fsync the directory before they return. Temporary names start with a dot and are seen by `sweep` only. Files get
    mode 0644 and directories at least 0755 whatever the umask, because processes of other users read them.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))

    def create(self, key: str, data: bytes) -> None:
        path = self.local(key)
        for attempt in range(_TRIES):
            try:
                with _named(path), _temporary(path, data) as temporary:
                    os.link(temporary, path)
                    _sync_directory(path.parent)
                return
            except FileExistsError:
                # Perhaps it was us: NFS may repeat a link() whose reply got lost.
                with contextlib.suppress(KeyMissing):
                    if self.get(key) == data:
                        _sync_directory(path.parent)
                        return
                    raise KeyExists(key) from None
            except FileNotFoundError:
                pass  # A sweep took the temporary file, or retention the directory.
            time.sleep(0.005 * attempt)
        raise StoreError(f"{path} could not be created in {_TRIES} tries: it or its directory keeps vanishing")

    def put(self, key: str, data: bytes) -> None:
        path = self.local(key)
        for attempt in range(_TRIES):
            try:
                with _named(path), _temporary(path, data) as temporary:
                    os.rename(temporary, path)
                    _sync_directory(path.parent)
                return
            except FileNotFoundError:
                time.sleep(0.005 * attempt)
        raise StoreError(f"{path} could not be written in {_TRIES} tries: its directory keeps vanishing")

    def get(self, key: str) -> bytes:
        path = self.local(key)
        for _ in range(_TRIES):
            try:
                # Unbuffered, so that this is read(2) of the file that was open()ed, whatever replaces it meanwhile.
                with _named(path), open(path, "rb", buffering=0) as file:
                    return file.readall()
            except FileNotFoundError:
                raise KeyMissing(key) from None
            except StoreError as error:
                # On NFS a file that is replaced while it is read turns stale; its successor is there.
                _only_stale(error)
        raise StoreError(_STAYS_STALE.format(path))

    def list(self, prefix: str) -> Names:
        top = self._below(prefix)
        return sorted(path.relative_to(self.root).as_posix() for path in _files(top))

    def children(self, prefix: str) -> Names:
        return sorted(entry.name for entry in _scan(self._below(prefix)) if not entry.name.startswith("."))

    def delete(self, key: str) -> None:
        path = self.local(key)
        with _named(path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            _prune(path.parent, self.root)

    def sweep(self, prefix: str) -> int:
        swept = 0
        for path in _files(self._below(prefix), temporary=True):
            with _named(path), contextlib.suppress(FileNotFoundError):
                path.unlink()
                swept += 1
                _prune(path.parent, self.root)
        return swept

    def local(self, key: str) -> Path:
        return self.root / checked(key)

    def _below(self, prefix: str) -> Path:
        return self.local(prefix.removesuffix("/")) if prefix else self.root


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """OSErrors of the storage become errors that name the path; those that are part of the protocol pass."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in FULL:
            raise StorageFull(str(path), reason) from error
        raise StoreError(f"{path}: {reason}; check the volume and its mount") from error


@contextlib.contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A durable temporary file beside `path`, gone afterwards."""
    _make_directory(path.parent)
    temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            os.fchmod(descriptor, 0o644)
            left = memoryview(data).cast("B")
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _make_directory(path: Path) -> None:
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir()
        except FileExistsError:
            if not directory.is_dir():
                raise StoreError(f"{directory} is in the way: it is no directory") from None
            continue
        directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o755)
        _sync_directory(directory.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _scan(top: Path) -> list[os.DirEntry[str]]:
    for _ in range(_TRIES):
        try:
            with _named(top), os.scandir(top) as entries:
                return list(entries)
        except FileNotFoundError:
            return []
        except StoreError as error:
            _only_stale(error)  # Removed while it was listed, on NFS.
    raise StoreError(_STAYS_STALE.format(top))


def _only_stale(error: StoreError) -> None:
    """Raise an error of the storage again, but for what another try may mend."""
    if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.ESTALE:
        raise error


def _files(top: Path, temporary: bool = False) -> Iterator[Path]:
    for entry in _scan(top):
        hidden = entry.name.startswith(".")
        if entry.is_dir(follow_symlinks=False):
            if not hidden:
                yield from _files(Path(entry.path), temporary)
        elif entry.name.startswith(".tmp-") if temporary else not hidden:
            yield Path(entry.path)


def _prune(directory: Path, root: Path) -> None:
    """Remove directories that became empty; a writer that loses its directory makes it again."""
    while directory != root:
        try:
            directory.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return
            raise
        directory = directory.parent
