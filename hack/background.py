"""Something that runs in the background for a work directory, and is taken down again with all it wrote."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from hack.controlplane.processes import ProcessError
from hack.tools import ToolError

_START_SECONDS = 3600.0
"""Covers a build of the programs; the start itself has deadlines of its own."""
_END_SECONDS = 30.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Background:
    """The server of one work directory: a process that holds the lock of its file `pid` as long as it lives."""

    directory: Path
    """Absolute."""
    clean: Callable[[Path], None] = lambda directory: None
    """Undoes what a server did outside its directory, also after it was killed."""

    def up(self, command: Sequence[str]) -> int:
        """Start the server by `command` unless it runs, and wait until it is ready; the exit code."""
        if self.running():
            return 0
        self._remove()
        if self.directory.exists():
            print(f"{self.directory} exists and is not of this command; name another with --dir", file=sys.stderr)
            return 1
        self.directory.mkdir(parents=True)
        with (self.directory / "serve.log").open("wb") as log:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + _START_SECONDS
        while not self.ready():
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                print((self.directory / "serve.log").read_text(), file=sys.stderr)
                return 1
            time.sleep(_POLL_SECONDS)
        return 0

    def down(self) -> int:
        """End the server and remove its directory; the exit code. Nothing to do is success."""
        deadline = time.monotonic() + _END_SECONDS
        while self.running():
            forced = time.monotonic() > deadline
            os.kill(int((self.directory / "pid").read_text()), signal.SIGKILL if forced else signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        self._remove()
        return 0

    def serve(self, start: Callable[[], AbstractContextManager[Callable[[], None]]]) -> int:
        """Be the server until SIGTERM, SIGINT or trouble; the exit code.

        What `start` returns is entered and left; it gives a function that raises ProcessError if something ended.
        """
        stopping = False

        def stop(*_: object) -> None:
            nonlocal stopping
            stopping = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        with (self.directory / "pid").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                with start() as check:
                    (self.directory / "ready").touch()
                    while not stopping:
                        check()
                        time.sleep(_POLL_SECONDS)
            except (ToolError, ProcessError) as error:
                print(error, flush=True)
                return 1
        return 0

    def running(self) -> bool:
        """Whether a server holds the lock."""
        try:
            with (self.directory / "pid").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def ready(self) -> bool:
        """Whether it runs and has started everything."""
        return self.running() and (self.directory / "ready").exists()

    def _remove(self) -> None:
        """Remove what a server left; a directory that no server made is not touched."""
        if (self.directory / "pid").exists():
            self.clean(self.directory)
            shutil.rmtree(self.directory)
