"""``python -m hack.controlplane up|down|status``: a control plane that runs until it is taken down.

`up` prints the line that sets KUBECONFIG, starting the control plane unless it runs; its programs are children of a
process of their own and end with it.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from hack.controlplane import plane
from hack.controlplane.processes import ProcessError
from hack.controlplane.simulated import add_nodes
from hack.tools import ToolError

_DIRECTORY = Path("build/controlplane")
_START_SECONDS = 3600.0
"""Covers a build of the programs; the start itself has deadlines of its own."""
_END_SECONDS = 20.0
_POLL_SECONDS = 0.1


def up(directory: Path, simulated_nodes: int) -> int:
    """Start in the background unless running, and print how to use it; the exit code."""
    if not _running(directory):
        _remove(directory)
        if directory.exists():
            print(f"{directory} exists and is no control plane's; name another with --dir", file=sys.stderr)
            return 1
        directory.mkdir(parents=True)
        command = [sys.executable, "-m", "hack.controlplane", "serve", "--dir", str(directory)]
        with (directory / "serve.log").open("wb") as log:
            server = subprocess.Popen(
                [*command, "--kwok", str(simulated_nodes)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not (directory / "ready").exists():
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                print((directory / "serve.log").read_text(), file=sys.stderr)
                return 1
            time.sleep(_POLL_SECONDS)
    print(f"export KUBECONFIG={directory / 'admin.kubeconfig'}")
    return 0


def down(directory: Path) -> int:
    """End it and remove its directory; the exit code. Nothing to do is success."""
    deadline = time.monotonic() + _END_SECONDS
    while _running(directory):
        forced = time.monotonic() > deadline
        os.kill(int((directory / "pid").read_text()), signal.SIGKILL if forced else signal.SIGTERM)
        time.sleep(_POLL_SECONDS)
    _remove(directory)
    return 0


def status(directory: Path) -> int:
    """Say whether it runs; 0 if so, 1 if not."""
    ready = _running(directory) and (directory / "ready").exists()
    print(f"running, KUBECONFIG={directory / 'admin.kubeconfig'}" if ready else "not running")
    return 0 if ready else 1


def serve(directory: Path, simulated_nodes: int) -> int:
    """Run in the foreground until SIGTERM, SIGINT or the end of one of the programs; the exit code."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with (directory / "pid").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            with closing(plane.start(directory)) as running:
                if simulated_nodes:
                    add_nodes(running, simulated_nodes)
                (directory / "ready").touch()
                while not stopping:
                    running.processes.check()
                    time.sleep(_POLL_SECONDS)
        except (ToolError, ProcessError) as error:
            print(error, flush=True)
            return 1
    return 0


def _remove(directory: Path) -> None:
    """Remove what a server left; a directory that no server made is not touched."""
    if (directory / "pid").exists():
        shutil.rmtree(directory)


def _running(directory: Path) -> bool:
    """Whether a server holds the lock of the directory."""
    try:
        with (directory / "pid").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hack.controlplane", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "serve"])
    parser.add_argument("--dir", type=Path, default=_DIRECTORY, help="work directory (default: %(default)s)")
    parser.add_argument("--kwok", type=int, default=0, metavar="N", help="simulate N nodes")
    chosen = parser.parse_args(arguments)
    directory = chosen.dir.resolve()
    if chosen.command == "down":
        return down(directory)
    if chosen.command == "status":
        return status(directory)
    return {"up": up, "serve": serve}[chosen.command](directory, chosen.kwok)


if __name__ == "__main__":
    sys.exit(main())
