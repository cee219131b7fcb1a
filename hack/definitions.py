"""Definitions of kinds that other projects own, from the Go module proxy and cached by version like the programs."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from hack import tools

_MODULE = "github.com/prometheus-operator/prometheus-operator"
_VERSION = "0.85.0"
_SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
_FOLDER = Path("example/prometheus-operator-crd")


def monitoring(plural: str) -> Path:
    """The definition of a kind of the Prometheus operator, as a file.

    Raises:
        tools.ToolError: it cannot be had.
    """
    target = tools.root() / f"prometheus-operator-{_VERSION}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tools.locked(target.with_name(f"{target.name}.lock")):
            if not target.is_dir():
                _fetch(target)
    return target / f"monitoring.coreos.com_{plural}.yaml"


def _fetch(target: Path) -> None:
    workplace = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        command = ["go", "mod", "download", "-json", f"{_MODULE}@v{_VERSION}"]
        module = json.loads(tools.run(command, workplace, tools.go_environment()))
        if module["Sum"] != _SUM:
            raise tools.ToolError(
                f"{_MODULE} {_VERSION} has the checksum {module['Sum']}, not {_SUM}; clean Go's cache"
            )
        files = workplace / "files"
        files.mkdir()
        for file in (Path(module["Dir"]) / _FOLDER).glob("*.yaml"):
            shutil.copyfile(file, files / file.name)  # the module's own are read-only
        files.rename(target)
    finally:
        shutil.rmtree(workplace)
