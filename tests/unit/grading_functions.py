"""Graders that workers import by name in `test_grading_*.py`: each does what a user's function may do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HEAVY = ("torch", "vllm", "transformers", "deepspeed", "pytest", "math_verify")


def act(text: str, gold: str) -> float | None:
    """Do what `text` says with `gold` as its argument."""
    match text:
        case "reward":
            return float(gold)
        case "sleep":
            time.sleep(float(gold))
        case "none":
            return None
        case "text":
            return "18"  # type: ignore[return-value]
        case "raise":
            raise KeyError(gold)
        case "exit":
            sys.exit(int(gold))
        case "kill":
            os.kill(os.getpid(), signal.Signals[gold])
        case "hoard":
            hoard()
        case "hide memory error":
            try:
                hoard()
            except MemoryError:
                return 0.0
        case "print":
            print(gold)
        case "announce":  # its process id, in the file named by gold; then hang
            announce(Path(gold), os.getpid())
            time.sleep(60)
        case "spawn":  # likewise, of a process of its own
            announce(Path(gold), subprocess.Popen(["sleep", "60"]).pid)
            time.sleep(60)
    return 1.0


def announce(path: Path, pid: int) -> None:
    """Write a process id so that a reader never sees half of it."""
    draft = path.with_name(f"draft-{path.name}")
    draft.write_text(str(pid))
    draft.rename(path)


def hoard() -> None:
    """Fill the memory bit by bit."""
    kept = []
    while True:
        kept.append(bytes(1 << 20))


def heavy_modules(text: str, gold: str) -> float:
    """How many of the modules that a worker must not load are loaded."""
    return float(sum(name in sys.modules for name in HEAVY))


def environment(text: str, gold: str) -> float:
    """1 when the variable `text` has the value `gold`; an empty `gold` stands for an unset one too."""
    return float(os.environ.get(text, "") == gold)


not_callable = 18


def slow(text: str, gold: str) -> float:
    """Take a while."""
    time.sleep(1.5)
    return 1.0
