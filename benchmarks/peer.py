"""Another loop over the prompts of a finished run, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from demo_run import LIMIT_SECONDS, WARM_UP


def seconds_of(program: str, root: Path, iterations: int, *arguments: str) -> list[float]:
    """Seconds of each iteration that `program` of this folder prints as its last line, without the first ones."""
    command = [sys.executable, str(Path(__file__).with_name(program)), str(root), str(iterations), *arguments]
    done = subprocess.run(command, check=True, timeout=LIMIT_SECONDS, stdout=subprocess.PIPE, text=True)
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    assert len(seconds) == iterations, f"{program} made {len(seconds)} of {iterations} iterations"
    return seconds[WARM_UP:]
