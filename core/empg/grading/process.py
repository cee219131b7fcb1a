"""One grading process, seen from the program that uses it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from types import TracebackType
from typing import Any, Self

from empg.api.task import GraderSpec
from empg.grading.make import make_grader
from empg.grading.protocol import OUT_OF_MEMORY, receive, send
from empg.verdict import Grade, Verdict

START_SECONDS = 120.0
"""Longest wait for a worker to load its grader (a user's module may import much), or to take up an answer."""
EXIT_SECONDS = 5.0
"""Longest wait for a process to end that has closed its connection or was killed."""
ENGINE_VARIABLES = (
    "CUDA_",
    "GOMP_",
    "KMP_",
    "LD_PRELOAD",
    "MKL_",
    "NCCL_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "PYTORCH_",
    "TORCH_",
    "VLLM_",
)
"""Environment variables, by prefix, that set up an engine or its threads; a grader gets none of them."""


class WorkerLost(RuntimeError):
    """A worker ended before it was ready."""


class GradingProcess:
    """A worker with a clean interpreter. It grades one answer at a time and is killed when that takes too long.

    For one thread, apart from `kill`. The process ends with the thread that made it.
    """

    def __init__(self, spec: GraderSpec, task: str) -> None:
        self._grader = make_grader(spec, task)
        self._setup = {"spec": spec.model_dump(mode="json"), "task": task}
        self._timeout = spec.timeout_seconds
        self._given_up = False
        """It was killed and does not end, as in a system call that can't be interrupted."""
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                # -P: what lies in the working directory must not replace a module.
                [sys.executable, "-P", "-m", "empg.grading.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a user's function prints must not mix with this program's output
                start_new_session=True,  # Ctrl-C is for this program, and `kill` reaches what a function has started
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._connection.close()

    @property
    def alive(self) -> bool:
        """Whether it can take another answer."""
        return self._process.returncode is None and not self._given_up

    def kill(self) -> None:
        """Kill the process, and those it has started, whatever they do. Any thread may call this."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait_ready(self) -> None:
        """Wait until the grader is loaded. `ValueError` when its settings are wrong, `WorkerLost` when it ended."""
        try:
            send(self._connection, self._setup)
            reply = self._receive(START_SECONDS)
        except (EOFError, OSError) as error:
            raise WorkerLost(f"while it loaded the grader, {self._ending()}") from error
        if reply is None:
            raise WorkerLost(f"the worker did not load the grader within {START_SECONDS:.0f} s")
        if "refused" in reply:
            raise ValueError(reply["refused"])

    def grade(self, text: str, gold: str) -> Grade:
        """Grade one answer within the limits. When that cost the worker its life it is no longer `alive`."""
        try:
            send(self._connection, {"text": text, "gold": gold})
            if self._receive(START_SECONDS) is None:
                self._end()
                return self._failed(Verdict.ERROR, f"the worker did not take up the answer in {START_SECONDS:.0f} s")
            reply = self._receive(self._timeout)
        except (EOFError, OSError):
            ending = self._ending()
            if self._process.returncode == OUT_OF_MEMORY:
                return self._failed(Verdict.TIMEOUT, "memory")
            return self._failed(Verdict.ERROR, ending)
        if reply is None:
            self._end()
            return self._failed(Verdict.TIMEOUT, "time")
        return Grade(Verdict(reply["verdict"]), reply["reward"], reply["parts"], reply["detail"])

    def _failed(self, verdict: Verdict, detail: str) -> Grade:
        return self._grader.graded(verdict, math.nan, detail)

    def _ending(self) -> str:
        """How the worker ended, after it closed the connection."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_SECONDS)
        self._end()
        code = self._process.returncode
        if code is None:
            return "the worker does not end although it was killed"
        if code == OUT_OF_MEMORY:
            return "the worker ran out of memory; raise task.grader.memoryMib"
        if code < 0:
            return f"the worker was killed by {signal.Signals(-code).name}"
        return f"the worker ended with exit code {code}"

    def _end(self) -> None:
        self.kill()
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._given_up = True

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        """The next message; None after `timeout` seconds without one."""
        return receive(self._connection) if self._connection.poll(timeout) else None


def _environment() -> dict[str, str]:
    """The environment of a worker: this one's, without an engine's variables, and with this one's module path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENGINE_VARIABLES)}
    return kept | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",  # sympy goes through sets; the same answer is to take the same path in each worker
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
