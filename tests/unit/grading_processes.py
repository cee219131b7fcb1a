"""Grading workers as the kernel shows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def workers(parent: int) -> list[int]:
    """Process ids of the grading workers of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and status(int(entry.name), "PPid") == str(parent):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if b"empg.grading.worker" in command:
                found.append(int(entry.name))
    return found


def running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    state = status(pid, "State")
    return state is not None and not state.startswith("Z")


def peak_rss_mib(pid: int) -> int | None:
    """Most physical memory that a process has had, in MiB; None when it is gone, or about to."""
    peak = status(pid, "VmHWM")
    return None if peak is None else int(peak.split()[0]) >> 10


def status(pid: int, key: str) -> str | None:
    """One value of /proc/PID/status; None when the process is gone or has no such value."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:")), None)


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
