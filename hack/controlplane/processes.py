"""Long-running programs that end with the process that started them."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_POLL_SECONDS = 0.05
_END_SECONDS = 10.0
_TAIL_CHARACTERS = 2000
_UNPRIVILEGED_PORTS = range(20000, 32000)
"""Below the range from which the kernel takes ports of outgoing connections, so that a free port stays free."""


class ProcessError(RuntimeError):
    """A program ended, or was not ready in time; the message has the end of its log."""


@dataclass
class Group:
    """Programs started together, in order, and ended together in reverse order.

    They are killed by the kernel when the thread that started them ends, so start them from one that lives as long.
    """

    logs: Path
    prefix: Sequence[str] = ()
    """Put before every command, such as `nsenter --net=…`."""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        """Start a program; its output goes to `NAME.log`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, name: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until the program called `name` is ready.

        Raises:
            ProcessError: a program of the group ended, or `seconds` passed.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessError(f"{name} is not ready after {seconds:.0f} s: {self._tail(name)}")
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """See that all programs of the group run.

        Raises:
            ProcessError: one has ended.
        """
        for name, process in self.running.items():
            if process.poll() is not None:
                raise ProcessError(f"{name} ended with code {process.returncode}: {self._tail(name)}")

    def end(self) -> None:
        """Kill all programs: nothing they hold outlives them."""
        for process in reversed(self.running.values()):
            process.kill()
            process.wait(_END_SECONDS)
        self.running.clear()

    def _tail(self, name: str) -> str:
        log = self.logs / f"{name}.log"
        return f"{log}: …{log.read_text(errors='replace')[-_TAIL_CHARACTERS:]}"


def free_port(address: str = "127.0.0.1") -> int:
    """A port on which nothing listens."""
    for port in random.sample(_UNPRIVILEGED_PORTS, k=100):
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise ProcessError(f"found no free port on {address}")
