"""Starts and ends the programs of a control plane."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hack import tools
from hack.controlplane import kubeconfig
from hack.controlplane.certificates import Authority, Pair
from hack.controlplane.processes import Group, free_port

SERVICE_RANGE = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
"""Of the Service `kubernetes`: the first of the range."""
_READY_SECONDS = 90.0
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane with RBAC, Pod Security admission, priority and fairness, and an audit log."""

    directory: Path
    """All it writes; thrown away with it."""
    server: str
    """URL of the API server."""
    authority: Authority
    processes: Group
    programs: Mapping[str, Path]

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self.directory / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """One JSON line per request that was answered, at level Metadata."""
        return self.directory / "audit.log"

    def close(self) -> None:
        """Kill its programs. What it wrote stays."""
        self.processes.end()


def start(directory: Path, address: str = "127.0.0.1", prefix: Sequence[str] = ()) -> ControlPlane:
    """Start a control plane and wait until it serves.

    `address` is where the API server listens; `prefix` is put before each command, so that it can run in a network
    namespace of its own.

    Raises:
        ToolError: a program can't be had.
        ProcessError: a program ended, or was not ready in time.
    """
    programs = {name: tools.path(name) for name in _PROGRAMS}
    authority = Authority.create(directory / "certificates")
    server = f"https://{address}:{free_port()}"
    plane = ControlPlane(directory, server, authority, Group(directory / "logs", prefix), programs)
    try:
        etcd = _start_etcd(plane)
        _start_api_server(plane, etcd, address)
        _start_controllers(plane)
    except BaseException:
        plane.close()
        raise
    return plane


def _start_etcd(plane: ControlPlane) -> str:
    """Returns its URL. It never flushes to disk: the data is worth nothing after a crash."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    plane.processes.start(
        "etcd",
        str(plane.programs["etcd"]),
        "--name=test",
        f"--data-dir={plane.directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=test={peer}",
        "--unsafe-no-fsync",
    )
    return client


def _start_api_server(plane: ControlPlane, etcd: str, address: str) -> None:
    issue, ca = plane.authority.issue, plane.authority.pair("ca").certificate
    hosts = [address, "127.0.0.1", SERVICE_ADDRESS, "localhost", "kubernetes.default.svc"]
    serving = issue("api-server", "kube-apiserver", hosts=sorted(set(hosts)))
    admin = issue("admin", "admin", groups=["system:masters"])
    front = issue("front-proxy", "front-proxy")
    accounts = issue("service-accounts", "service-accounts").key
    policy = plane.directory / "audit.yaml"
    policy.write_text(yaml.safe_dump(_AUDIT_POLICY))
    loopback = address == "127.0.0.1"
    plane.processes.start(
        "kube-apiserver",
        str(plane.programs["kube-apiserver"]),
        f"--etcd-servers={etcd}",
        f"--bind-address={address}",
        f"--secure-port={plane.server.rpartition(':')[2]}",
        f"--advertise-address={address}",
        *(["--endpoint-reconciler-type=none"] if loopback else []),  # an endpoint must not be a loopback address
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={ca}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={accounts}",
        f"--service-account-signing-key-file={accounts}",
        f"--kubelet-client-certificate={admin.certificate}",
        f"--kubelet-client-key={admin.key}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={ca}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={front.certificate}",
        f"--proxy-client-key-file={front.key}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={plane.audit_log}",
    )
    plane.processes.wait("kube-apiserver", lambda: _answers(f"{plane.server}/readyz", ca, admin), _READY_SECONDS)
    kubeconfig.with_certificate(plane.kubeconfig, plane.server, ca, admin)


def _start_controllers(plane: ControlPlane) -> None:
    ca = plane.authority.pair("ca")
    for program in ("kube-controller-manager", "kube-scheduler"):
        client = plane.authority.issue(program, f"system:{program}")
        access = kubeconfig.with_certificate(
            plane.directory / f"{program}.kubeconfig", plane.server, ca.certificate, client
        )
        flags = [f"--kubeconfig={access}", "--leader-elect=false", "--secure-port=0"]
        if program == "kube-controller-manager":
            flags += [
                "--use-service-account-credentials",
                f"--service-account-private-key-file={plane.authority.pair('service-accounts').key}",
                f"--root-ca-file={ca.certificate}",
                f"--cluster-signing-cert-file={ca.certificate}",
                f"--cluster-signing-key-file={ca.key}",
                f"--service-cluster-ip-range={SERVICE_RANGE}",
                "--allocate-node-cidrs=false",
            ]
        plane.processes.start(program, str(plane.programs[program]), *flags)
    account = f"{plane.server}/api/v1/namespaces/default/serviceaccounts/default"
    admin = plane.authority.pair("admin")
    plane.processes.wait("kube-controller-manager", lambda: _answers(account, ca.certificate, admin), _READY_SECONDS)


def _answers(url: str, authority: Path, client: Pair) -> bool:
    """Whether the API server gives what lies at the URL."""
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(client.certificate, client.key)
    try:
        with urllib.request.urlopen(url, context=context, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):  # not listening yet, or not ready yet
        return False
