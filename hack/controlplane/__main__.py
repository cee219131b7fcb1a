"""`python -m hack.controlplane up|down|status`: a control plane that runs until it is taken down.

`up` prints the line that sets KUBECONFIG, starting the control plane unless it runs; its programs are children of a
process of their own and end with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from hack.background import Background
from hack.controlplane import plane
from hack.controlplane.simulated import add_nodes

_DIRECTORY = Path("build/controlplane")


@contextmanager
def running(directory: Path, simulated_nodes: int) -> Iterator[Callable[[], None]]:
    """A control plane while the block lasts; gives the check of its programs."""
    with closing(plane.start(directory)) as started:
        if simulated_nodes:
            add_nodes(started, simulated_nodes)
        yield started.processes.check


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hack.controlplane", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "serve"])
    parser.add_argument("--dir", type=Path, default=_DIRECTORY, help="work directory (default: %(default)s)")
    parser.add_argument("--kwok", type=int, default=0, metavar="N", help="simulate N nodes")
    chosen = parser.parse_args(arguments)
    background = Background(chosen.dir.resolve())
    access = f"KUBECONFIG={background.directory / 'admin.kubeconfig'}"
    match chosen.command:
        case "up":
            serve = [sys.executable, "-m", "hack.controlplane", "serve", "--dir", str(background.directory)]
            code = background.up([*serve, "--kwok", str(chosen.kwok)])
            if code == 0:
                print(f"export {access}")
            return code
        case "down":
            return background.down()
        case "serve":
            return background.serve(lambda: running(background.directory, chosen.kwok))
    ready = background.ready()
    print(f"running, {access}" if ready else "not running")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())
