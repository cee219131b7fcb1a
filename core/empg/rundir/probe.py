"""What a file system must do for a run directory, tried at start-up and measured."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from empg.rundir import keys
from empg.store.base import KeyExists, StorageFull, Store
from empg.store.posix import FULL

_SLOW_SECONDS = 1.0


class UnsuitableStorage(ValueError):
    """A run directory can't live on this file system."""


@dataclass(frozen=True)
class Measurements:
    """Median seconds of one operation each."""

    fsync: float
    """Of a file of 4 KiB, just written."""
    link: float
    rename: float
    sync_directory: float

    def warnings(self) -> list[str]:
        """What is slow enough to slow the run down."""
        return [
            f"{name} takes {seconds:.1f} s here: every claim and commit waits for it; use a faster volume"
            for name, seconds in vars(self).items()
            if seconds > _SLOW_SECONDS
        ]


def probe(root: Path, rounds: int = 5) -> Measurements:
    """Try out what claims and commits rely on in a scratch directory below `root`, and time it.

    UnsuitableStorage when hard links are refused, may be made over an existing name or let two writers win, when a
    rename does not replace, or when fsync is not to be had. StorageFull when there is no room to try it. Other failures
    raise OSError.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = root / f".probe-{secrets.token_hex(8)}"
        scratch.mkdir()
        try:
            times = [_round(scratch, number) for number in range(rounds)]
            for number in range(rounds):
                _race(scratch, number)
        finally:
            shutil.rmtree(scratch)
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(str(root), os.strerror(error.errno)) from error
        raise
    return Measurements(*(statistics.median(column) for column in zip(*times, strict=True)))


def _round(scratch: Path, number: int) -> tuple[float, float, float, float]:
    first, second, name = (scratch / f"{part}-{number}" for part in ("first", "second", "name"))
    stops = [time.perf_counter()]
    with _refusing(scratch, "fsync of a file"), open(first, "wb", buffering=0) as file:
        file.write(b"1" * 4096)
        os.fsync(file.fileno())
    stops.append(time.perf_counter())
    with _refusing(scratch, "hard links"):
        os.link(first, name)
    stops.append(time.perf_counter())
    second.write_bytes(b"2")
    with contextlib.suppress(FileExistsError):
        os.link(second, name)
        raise _unsuitable(scratch, "link() over an existing name succeeds")
    with open(name, "rb", buffering=0) as before:
        stops.append(time.perf_counter())
        os.rename(second, name)
        stops.append(time.perf_counter())
        if before.read(1) != b"1" or name.read_bytes() != b"2":
            raise _unsuitable(scratch, "rename() does not replace a file as a whole")
    with _refusing(scratch, "fsync of a directory"):
        descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    stops.append(time.perf_counter())
    return stops[1] - stops[0], stops[2] - stops[1], stops[4] - stops[3], stops[5] - stops[4]


def _race(scratch: Path, number: int, writers: int = 8) -> None:
    """Let several threads link to one name."""
    target = scratch / f"race-{number}"

    def write(writer: int) -> bool:
        own = scratch / f"writer-{number}-{writer}"
        own.write_bytes(str(writer).encode())
        try:
            os.link(own, target)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(writers) as pool:
        winners = [writer for writer, won in enumerate(pool.map(write, range(writers))) if won]
    if winners != [int(target.read_bytes())]:
        raise _unsuitable(scratch, f"of {writers} racing link() calls {len(winners)} succeeded")


@contextlib.contextmanager
def _refusing(scratch: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise _unsuitable(scratch, f"it refuses {what} ({error.strerror})") from error


def _unsuitable(scratch: Path, reason: str) -> UnsuitableStorage:
    return UnsuitableStorage(
        f"{scratch.parent}: {reason}; put the run directory on a local disk, NFSv4, CephFS or Lustre"
    )


def ping(
    store: Store,
    timeout: float,
    *,
    pause: float = 0.05,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> float | None:
    """Seconds until the answer of another process (`echo`) to a new file is seen; None if there is none in time.

    That is two delays of visibility and the other's polling interval: an upper bound that needs no common clock.
    """
    _clear(store)
    token = secrets.token_hex(8)
    call, answer = f"{token}.ping", f"{token}.pong"
    store.create(f"{keys.PROBES}/{call}", token.encode())
    start = clock()
    try:
        # By listing: looking an absent name up would make NFS remember that it is absent.
        while answer not in store.children(keys.PROBES):
            if clock() - start > timeout:
                return None
            sleep(pause)
        return clock() - start
    finally:
        store.delete(f"{keys.PROBES}/{call}")
        store.delete(f"{keys.PROBES}/{answer}")


def _clear(store: Store) -> None:
    """Remove answers that came after their ping had given up."""
    names = set(store.children(keys.PROBES))
    for name in names:
        if name.endswith(".pong") and f"{name.removesuffix('.pong')}.ping" not in names:
            store.delete(f"{keys.PROBES}/{name}")


def echo(store: Store) -> int:
    """Answer the pings of other processes; the number of answers. Call it wherever a process polls."""
    names = set(store.children(keys.PROBES))
    calls = [stem for name in names if (stem := name.removesuffix(".ping")) != name and f"{stem}.pong" not in names]
    for stem in calls:
        with contextlib.suppress(KeyExists):
            store.create(f"{keys.PROBES}/{stem}.pong", stem.encode())
    return len(calls)


def lease_warning(lease_seconds: float, visible_seconds: float) -> str | None:
    """What to say when leases are too short for how late new files are seen; None if they are not."""
    if lease_seconds >= 3 * visible_seconds:
        return None
    return (
        f"new files are seen by other machines after up to {visible_seconds:.1f} s: set sampler.leaseSeconds to "
        f"{3 * visible_seconds:.0f} or more, or mount NFS with lookupcache=none,actimeo=1"
    )
