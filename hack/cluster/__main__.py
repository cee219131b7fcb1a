"""`python -m hack.cluster up|down|status|build|load`: a cluster of one real node that runs until it is taken down.

`up` prints the line that sets KUBECONFIG, starting the cluster unless it runs; `build` prints the archives of images
that it builds for CPUs, and `load` gives archives to the node, which can't pull. `down` leaves nothing of it behind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from hack.background import Background
from hack.cluster import images, namespaces, node, pause, runtime
from hack.cluster.namespaces import Namespaces
from hack.controlplane import plane
from hack.controlplane.processes import Group
from hack.tools import ToolError

_DIRECTORY = Path("build/cluster")
_IMAGES = Path("build/images")


@contextmanager
def running(directory: Path) -> Iterator[Callable[[], None]]:
    """A cluster while the block lasts; gives the check of its programs."""
    runtime.require_packages()
    archive = directory / "pause.tar"
    pause.write_archive(archive)
    with closing(namespaces.create(directory)) as inside:
        (directory / "first").write_text(str(inside.first))
        programs = Group(directory / "logs", inside.prefix)
        with closing(plane.start(directory, inside.address, inside.prefix)) as control:
            runtime.start(inside, programs)
            runtime.load(inside, archive)
            node.start(inside, control, programs)
            provisioner = [sys.executable, "-m", "hack.volumes", str(control.kubeconfig), str(directory / "volumes")]
            inside.processes.start("volumes", *provisioner)

            def check() -> None:
                for group in (inside.processes, control.processes, programs):
                    group.check()

            yield check


def load(directory: Path, archives: Sequence[Path]) -> int:
    """Give the running node images; the exit code."""
    first = int((directory / "first").read_text())
    inside = Namespaces(directory, Group(directory / "logs"), first, "")
    for archive in archives:
        runtime.load(inside, archive)
    return 0


def build(names: Sequence[str]) -> int:
    """Build images and print their archives; the exit code."""
    _IMAGES.mkdir(parents=True, exist_ok=True)
    try:
        for name in names:
            archive = (_IMAGES / f"{name}.tar").resolve()
            print(f"{archive} {images.build(name, archive)}", flush=True)
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hack.cluster", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "build", "load", "serve"])
    parser.add_argument("what", nargs="*", help=f"of build: {', '.join(images.NAMES)}; of load: image archives")
    parser.add_argument("--dir", type=Path, default=_DIRECTORY, help="work directory (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    background = Background(chosen.dir.resolve(), node.remove_cgroups)
    directory = background.directory
    access = f"KUBECONFIG={directory / 'admin.kubeconfig'}"
    match chosen.command:
        case "up":
            code = background.up([sys.executable, "-m", "hack.cluster", "serve", "--dir", str(directory)])
            if code == 0:
                print(f"export {access}")
            return code
        case "down":
            return background.down()
        case "load":
            if not background.ready():
                print(f"no cluster runs in {directory}; start it with up", file=sys.stderr)
                return 1
            return load(directory, [Path(archive) for archive in chosen.what])
        case "build":
            if set(chosen.what) - set(images.NAMES):
                parser.error(f"there are images of {', '.join(images.NAMES)}")
            return build(chosen.what or images.NAMES)
        case "serve":
            return background.serve(lambda: running(directory))
    ready = background.ready()
    print(f"running, {access}" if ready else "not running")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())
