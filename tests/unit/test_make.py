"""What the Makefile gives the programs that it starts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """#!/bin/sh
echo "$(basename "$0") sees GPUs [${CUDA_VISIBLE_DEVICES-all}]"
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "unit", "integration", "test", "exhaustive"])
def test_gpus_are_hidden_from_the_demo_and_from_tests(tmp_path: Path, target: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("empg", "mypy", "python", "ruff"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    (tmp_path / ".installed").touch()
    done = subprocess.run(
        ["make", "-s", target, f"VENV={tmp_path}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        | {"CUDA_VISIBLE_DEVICES": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = [line for line in done.stdout.splitlines() if " sees GPUs " in line]
    assert seen
    assert [line for line in seen if not line.endswith("[]")] == []
