"""A machine within the machine: own network, processes and mounts, gone with its first process."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.controlplane.processes import Group, ProcessError

_SECONDS = 30.0
_POLL_SECONDS = 0.05
_INIT = "sleep infinity & while true; do wait; done"  # as first process, bash reaps whatever is orphaned
_KERNEL = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What a kubelet would set for the whole machine; in here it finds it set already."""


@dataclass(frozen=True)
class Namespaces:
    """Where the programs of one node run."""

    directory: Path
    """Its `var-lib` and `var-log` are /var/lib and /var/log inside."""
    processes: Group
    """Holds the first process; programs inside belong to groups with `prefix`."""
    first: int
    """Process number of the first process, as seen from outside."""
    address: str
    """Of the node, reachable from this machine and from inside."""

    @property
    def prefix(self) -> Sequence[str]:
        """What runs a command inside when put before it."""
        return ("nsenter", f"--target={self.first}", "--net", "--pid", "--mount", "--")

    def run(self, *command: str) -> str:
        """Run a command inside; what it printed.

        Raises:
            ProcessError: it failed.
        """
        return run(*self.prefix, *command)

    def close(self) -> None:
        """Kill all that runs inside and wait until it is gone, with the network and the mounts."""
        cable = name_of(self.directory)
        if Path("/sys/class/net", cable).exists():  # by itself it goes with the last socket, long after all processes
            run("ip", "link", "delete", cable)
        self.processes.end()
        deadline = time.monotonic() + _SECONDS
        while Path(f"/proc/{self.first}").exists():
            if time.monotonic() > deadline:
                raise ProcessError(f"process {self.first} of {self.directory} does not end")
            time.sleep(_POLL_SECONDS)


def create(directory: Path) -> Namespaces:
    """Create the namespaces; there is no route from inside but to this machine."""
    processes = Group(directory / "logs")
    processes.start(
        "namespaces",
        *("unshare", "--net", "--pid", "--mount", "--fork", "--kill-child=KILL", "--mount-proc"),
        *("bash", "-c", _INIT),
    )
    parent = processes.running["namespaces"].pid
    children = Path(f"/proc/{parent}/task/{parent}/children")
    processes.wait("namespaces", lambda: bool(children.read_text().split()), _SECONDS)
    first = int(children.read_text().split()[0])
    made = Namespaces(directory, processes, first, "")
    try:
        processes.wait("namespaces", lambda: made.run("cat", "/proc/1/comm").strip() == "bash", _SECONDS)
        _mount(made)
        return Namespaces(directory, processes, first, _connect(made))
    except BaseException:
        made.close()
        raise


def name_of(directory: Path) -> str:
    """What the machine sees of the namespaces of a work directory is called so: 13 characters, the limit is 15."""
    return f"empg-{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}"


def run(*command: str) -> str:
    """Run a command; what it printed.

    Raises:
        ProcessError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise ProcessError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _mount(inside: Namespaces) -> None:
    """Let programs write to their usual places without the machine seeing it."""
    inside.run("mount", "--make-rshared", "/")
    inside.run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for place in ("var/lib", "var/log"):
        own = inside.directory / place.replace("/", "-")
        own.mkdir()
        inside.run("mount", "--bind", str(own), f"/{place}")
    for name, value in _KERNEL.items():
        own = inside.directory / "kernel" / name
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(f"{value}\n")
        inside.run("mount", "--bind", str(own), f"/proc/sys/{name}")


def _connect(inside: Namespaces) -> str:
    """A cable of two ends between this machine and the namespace; the address of its inner end."""
    outer = name_of(inside.directory)
    taken = run("ip", "-4", "-oneline", "address", "show")
    network = next(network for network in (f"10.231.{i}" for i in range(256)) if f" {network}.1/" not in taken)
    run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", str(inside.first))
    run("ip", "address", "add", f"{network}.1/30", "dev", outer)
    run("ip", "link", "set", outer, "up")
    inside.run("ip", "address", "add", f"{network}.2/30", "dev", "eth0")
    for device in ("lo", "eth0"):
        inside.run("ip", "link", "set", device, "up")
    for name in ("ip_forward", "conf/all/route_localnet"):
        inside.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/{name}")
    return f"{network}.2"
