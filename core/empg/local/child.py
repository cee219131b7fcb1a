"""One local child process: started in a session of its own, logged to a file, never outliving its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from empg.local.restarts import RestartBudget, Role

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """In the child before exec: SIGTERM when the supervisor goes, however it goes."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Child:
    """A program that is to be kept running."""

    name: str
    role: Role
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    budget: RestartBudget
    process: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0
    """Monotonic time of the next start, when it is not running."""
    finished: bool = False
    """It has nothing more to do."""
    retired: bool = False
    """It is not wanted any more: once it has ended, nothing follows."""
    codes: list[int] = field(default_factory=list)
    """Exit codes so far."""

    def start(self) -> None:
        """Start the program; its output is appended to the log. OSError when that, or the program, can't be had."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"--- {self.name}: start {len(self.codes) + 1}: {' '.join(self.command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def exited(self) -> int | None:
        """The exit code, once, when the program has ended since the last call; else None."""
        if self.process is None:
            return None
        code = self.process.poll()
        if code is not None:
            self.process = None
            self.codes.append(code)
        return code

    def terminate(self) -> None:
        """Ask the program to end: SIGTERM to it alone. It still needs what it started, as the workers of an engine."""
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """SIGKILL to the program and all it started."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def last_lines(self, count: int = 15) -> str:
        """The end of the log, for the message when the run ends badly."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 16384))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-count:])


def stop(children: Sequence[Child], grace_seconds: float) -> None:
    """SIGTERM to all, SIGKILL to those that are still there after the grace period."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + grace_seconds
    for child in children:
        if child.process is None:
            continue
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.process.wait()
        child.exited()


def program(module: str, *arguments: str) -> list[str]:
    """Command line of a program of this installation, whatever PATH says."""
    return [sys.executable, "-m", module, *arguments]
