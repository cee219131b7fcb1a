"""The image of the process that holds a pod's namespaces, which no registry is asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hack import tools
from hack.cluster import archive

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
    archive.write(path, PAUSE_IMAGE, {"pause": program}, ["/pause"])
