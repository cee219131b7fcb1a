"""The kubelet of the node, and what pods expect around it: Services and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hack import tools
from hack.cluster.namespaces import Namespaces, name_of
from hack.cluster.runtime import POD_RANGE, SOCKET
from hack.controlplane import kubeconfig
from hack.controlplane.plane import ControlPlane
from hack.controlplane.processes import Group
from hack.rest import ApiError, Rest

NODE = "node-0"
DOMAIN = "cluster.local"
_READY_SECONDS = 120.0
_CGROUPS = Path("/sys/fs/cgroup")


def start(inside: Namespaces, plane: ControlPlane, programs: Group) -> None:
    """Start CoreDNS, kube-proxy and the kubelet, and wait until the node takes pods.

    Raises:
        ToolError: a program can't be had.
        ProcessError: one ended, or the node was not ready in time.
    """
    _start_dns(inside, plane, programs)
    _start_proxy(inside, plane, programs)
    _start_kubelet(inside, plane, programs)
    rest = Rest(plane.kubeconfig, "hack")

    def ready() -> bool:
        try:
            return not rest.get(f"/api/v1/nodes/{NODE}")["spec"].get("taints")
        except ApiError as error:
            if error.code == 404:  # not registered yet
                return False
            raise

    programs.wait("kubelet", ready, _READY_SECONDS)


def create_cgroups(directory: Path) -> str:
    """A control group for the node's pods in each hierarchy; its name."""
    for hierarchy in _hierarchies():
        (hierarchy / name_of(directory)).mkdir(exist_ok=True)
    return f"/{name_of(directory)}"


def remove_cgroups(directory: Path) -> None:
    """Remove what `create_cgroups` and the kubelet made below it; nothing runs there any more."""
    for hierarchy in _hierarchies():
        top = hierarchy / name_of(directory)
        for path in sorted(top.rglob("*/"), reverse=True) if top.exists() else ():
            path.rmdir()
        if top.exists():
            top.rmdir()


def _hierarchies() -> list[Path]:
    """Of version 1, one per controller; of version 2, one in all."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _start_dns(inside: Namespaces, plane: ControlPlane, programs: Group) -> None:
    corefile = inside.directory / "Corefile"
    corefile.write_text(
        f".:53 {{\n  bind {inside.address}\n  errors\n"
        f"  kubernetes {DOMAIN} in-addr.arpa {{\n    kubeconfig {plane.kubeconfig}\n  }}\n}}\n"
    )
    programs.start("coredns", str(tools.path("coredns")), "-conf", str(corefile))


def _start_proxy(inside: Namespaces, plane: ControlPlane, programs: Group) -> None:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": NODE,
        "clientConnection": {"kubeconfig": str(_access(plane, "kube-proxy", "system:kube-proxy"))},
        # limits of the whole machine, which are left alone
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    programs.start("kube-proxy", str(tools.path("kube-proxy")), f"--config={_written(inside, 'kube-proxy', config)}")


def _start_kubelet(inside: Namespaces, plane: ControlPlane, programs: Group) -> None:
    user, groups = f"system:node:{NODE}", ["system:nodes"]
    serving = plane.authority.issue("kubelet-serving", user, groups, [NODE, inside.address])
    (inside.directory / "resolv.conf").touch()  # pods learn no name server of this machine
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "address": inside.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plane.authority.pair("ca").certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "clusterDNS": [inside.address],
        "clusterDomain": DOMAIN,
        "resolvConf": str(inside.directory / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": create_cgroups(inside.directory),
        "failCgroupV1": False,
        "failSwapOn": False,
        # no registry could give back an image that was collected
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }
    programs.start(
        "kubelet",
        str(tools.path("kubelet")),
        f"--config={_written(inside, 'kubelet', config)}",
        f"--kubeconfig={_access(plane, 'kubelet', user, groups)}",
        f"--hostname-override={NODE}",
        f"--node-ip={inside.address}",
    )


def _access(plane: ControlPlane, name: str, user: str, groups: list[str] | None = None) -> Path:
    client = plane.authority.issue(name, user, groups or [])
    authority = plane.authority.pair("ca").certificate
    return kubeconfig.with_certificate(plane.directory / f"{name}.kubeconfig", plane.server, authority, client)


def _written(inside: Namespaces, name: str, config: dict[str, Any]) -> Path:
    path = inside.directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
