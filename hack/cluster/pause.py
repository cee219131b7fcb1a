"""The image of the process that holds a pod's namespaces, which no registry is asked for."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from hack import tools

PAUSE_IMAGE = "localhost/pause:dev"
_SOURCE = Path(__file__).with_name("pause_program") / "main.go"
_BUILD_SECONDS = 300


def write_archive(path: Path) -> None:
    """Build the program and write an image archive with it.

    Raises:
        ToolError: there is no Go, or it failed.
    """
    program = path.with_suffix(".program")
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(program), str(_SOURCE)]
    built = subprocess.run(command, env=tools.go_environment(), capture_output=True, text=True, timeout=_BUILD_SECONDS)
    if built.returncode != 0:
        raise tools.ToolError(f"`{' '.join(command)}` failed: {built.stderr.strip()}")
    layer = _tar({"pause": program.read_bytes()})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    files = {"config.json": json.dumps(config), "manifest.json": json.dumps(manifest)}
    path.write_bytes(_tar({"layer.tar": layer, **{name: text.encode() for name, text in files.items()}}))


def _tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()
