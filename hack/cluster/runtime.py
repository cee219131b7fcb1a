"""containerd of the distribution, with the CNI bridge, as the node's container runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hack.cluster.namespaces import Namespaces
from hack.cluster.pause import PAUSE_IMAGE
from hack.controlplane.processes import Group
from hack.tools import ToolError

POD_RANGE = "10.244.0.0/24"
SOCKET = "/run/containerd/containerd.sock"
_PLUGINS = Path("/usr/lib/cni")
_PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
}
"""Program → Debian package."""
_SECONDS = 30.0
_CONFIG = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Lowering a score needs CAP_SYS_RESOURCE, which a container or small virtual machine may not have
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
"""


def require_packages() -> None:
    """See that all packages are installed.

    Raises:
        ToolError: some are missing; the message says how to install them.
    """
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if not _PLUGINS.is_dir():
        missing.add("containernetworking-plugins")
    if missing:
        raise ToolError(
            f"a node needs more packages: apt-get install --no-install-recommends {' '.join(sorted(missing))}"
        )


def start(inside: Namespaces, programs: Group) -> None:
    """Start containerd and wait for its socket.

    Raises:
        ProcessError: it ended, or was not ready in time.
    """
    networks = inside.directory / "networks"
    networks.mkdir()
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_RANGE}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    network = {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}
    (networks / "pods.conflist").write_text(json.dumps(network))
    config = inside.directory / "containerd.toml"
    config.write_text(_CONFIG.format(pause=PAUSE_IMAGE, plugins=_PLUGINS, networks=networks))
    programs.start("containerd", "containerd", "--config", str(config))
    socket = Path(f"/proc/{inside.first}/root{SOCKET}")
    programs.wait("containerd", socket.exists, _SECONDS)


def load(inside: Namespaces, archive: Path) -> None:
    """Give the node the images of an archive, which it can't pull."""
    inside.run("ctr", "--namespace=k8s.io", "images", "import", str(archive.resolve()))
