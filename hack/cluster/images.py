"""The project's images, built by buildah from the Dockerfiles on a base from the distribution, without any registry."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from hack import tools

NAMES = ("operator", "sampler", "trainer")
_ROOT = Path(__file__).parents[2]
_BASE = "localhost/empg-base:bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates"
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_BUILD_SECONDS = 3600


def build(name: str, archive: Path) -> str:
    """Build the image `name` for CPUs and write it to an archive; its reference, as the chart has it.

    Raises:
        ToolError: a package of the distribution is missing, or a step failed.
    """
    needed = {"buildah": "buildah", "debootstrap": "debootstrap"}
    missing = [package for program, package in needed.items() if shutil.which(program) is None]
    if missing:
        raise tools.ToolError(f"images need more packages: apt-get install --no-install-recommends {' '.join(missing)}")
    if not _buildah("images", "--quiet", "--filter", f"reference={_BASE}").strip():
        _build_base()
    version = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]
    reference = f"docker.io/empg/{name}:{version}" + ("-cpu" if name == "sampler" else "")
    _buildah(
        "build",
        *("--isolation", "chroot", "--network", "host", "--layers"),
        # the authorities that this machine trusts sign for its registries
        *("--volume", f"{_AUTHORITIES}:{_AUTHORITIES}:ro"),
        *("--build-arg", f"BASE={_BASE}", "--build-arg", "VARIANT=cpu"),
        *("--file", f"docker/{name}.Dockerfile", "--tag", reference, "."),
    )
    archive.unlink(missing_ok=True)
    _buildah("push", reference, f"docker-archive:{archive}:{reference}")
    return reference


def _build_base() -> None:
    """Debian with Python, as an image of one layer."""
    with tempfile.TemporaryDirectory(prefix="empg-base-") as scratch:
        system = Path(scratch) / "system"
        _run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(system)])
        container = _buildah("from", "scratch").strip()
        _buildah("add", "--quiet", container, str(system), "/")
        _buildah("config", "--env", f"SSL_CERT_FILE={_AUTHORITIES}", "--env", f"PIP_CERT={_AUTHORITIES}", container)
        _buildah("commit", "--rm", container, _BASE)


def _buildah(*arguments: str) -> str:
    """Run buildah with a store of its own, beside the cache of programs."""
    store = tools.root().parent / "images"
    places = ["--root", str(store), "--runroot", str(store / "run"), "--storage-driver", "overlay"]
    return _run(["buildah", *places, *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_BUILD_SECONDS)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise tools.ToolError(f"`{' '.join(command)}` failed: {said}")
    return done.stdout
