"""Programs of the learner in processes forked from one that has made their imports, which take most of their start.

The parent is not the test process, which may have threads, but a server of forks that does nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["empg_trainer.loop", "deepspeed"])


class Learner:
    """`python -m MODULE ARGUMENTS` as one process for each of `environments`, each leading a session."""

    def __init__(
        self, module: str, arguments: Sequence[str], environments: Sequence[Mapping[str, str]], log: Path
    ) -> None:
        self.log = log
        self.processes = [
            FORKS.Process(target=_run, args=(module, tuple(arguments), dict(environment), str(log)), daemon=True)
            for environment in environments
        ]
        for process in self.processes:
            process.start()

    @property
    def running(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def terminate(self) -> None:
        for process in self.processes:
            process.terminate()

    def kill(self) -> None:
        """With all that the processes started themselves."""
        for process in self.processes:
            if process.is_alive():
                os.killpg(process.pid, signal.SIGKILL)
            process.join()

    def ended(self, seconds: float = 240) -> tuple[int, str]:
        """(exit code, which is the same for all processes, and what they said) once all have ended."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        said = self.said
        codes = {process.exitcode for process in self.processes}
        assert len(codes) == 1, said
        (code,) = codes
        assert code is not None, f"it does not end: {said}"
        return code, said


def _run(module: str, arguments: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    import torch

    os.setsid()
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__")
