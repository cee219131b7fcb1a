"""A local run directory: its lock, and the manifest that the learner reads."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from empg.api.run import EMPGRun, immutable_difference
from empg.store.base import Store


class AlreadyRunning(ValueError):
    """Another `empg run` works on the directory."""


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Keep a second `empg run` on this machine out of the directory, for as long as this process lives.

    A courtesy to the user, not what keeps the data right: the fenced learner does that, on any machine.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"{root}: another `empg run` is at work here; stop it or name another --run-dir"
            ) from None
        yield
    finally:
        os.close(descriptor)


def write_manifest(store: Store, run: EMPGRun) -> None:
    """Hand the manifest to the learner, which picks up live edits at its next unplanned iteration."""
    store.put("manifest.json", json.dumps(run.manifest(), indent=1, ensure_ascii=False).encode())


def refused_edit(old: EMPGRun, new: EMPGRun) -> str | None:
    """Why an edit of a running manifest can't be taken: the first immutable field that differs."""
    if old.metadata.name != new.metadata.name:
        return "metadata.name is immutable; change it back"
    path = immutable_difference(old.spec, new.spec)
    return f"{path} is immutable; change it back, or start a new run" if path else None
