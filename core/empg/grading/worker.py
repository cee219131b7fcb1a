"""The program of a grading process: `python -m empg.grading.worker FD`, with its end of a connection as FD.

It reads its settings, loads the grader, and then answers one request after the other. `started` goes out before an
answer is graded, so that the other side can time the grading alone.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection

from empg.api.task import GraderSpec
from empg.grading.base import Grader
from empg.grading.make import make_grader
from empg.grading.protocol import OUT_OF_MEMORY, receive, send
from empg.verdict import Grade, Verdict

NEARLY_ALL = 0.95
"""Share of the memory limit from which an answer counts as having reached it."""
_PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Serve until the other side closes the connection."""
    _die_with_parent()
    connection = Connection(descriptor)
    try:
        _serve(connection)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # at once: there may be no memory left to unwind with
    except EOFError:
        pass


def _serve(connection: Connection) -> None:
    setup = receive(connection)
    spec = GraderSpec.model_validate(setup["spec"])
    limit = spec.memory_mib << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        grader = make_grader(spec, setup["task"])
        grader.warm_up()
    except ValueError as error:
        send(connection, {"refused": str(error)})
        return
    _check_memory(limit)
    send(connection, {"ready": True})
    while True:
        request = receive(connection)
        send(connection, {"started": True})
        grade = _grade(grader, request["text"], request["gold"])
        _check_memory(limit)
        send(connection, asdict(grade))


def _grade(grader: Grader, text: str, gold: str) -> Grade:
    try:
        return grader.grade(text, gold)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything; its answer's verdict says what
        return grader.graded(Verdict.ERROR, math.nan, f"{type(error).__name__}: {error}"[:1000])


def _die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends, even by SIGKILL and amid an answer."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _check_memory(limit: int) -> None:
    """Raise `MemoryError` when the address space of this process has come close to `limit` (bytes) at any time.

    math-verify takes a `MemoryError` within a comparison for "not equal", so a grade alone can't be trusted.
    """
    with open("/proc/self/status", encoding="ascii") as status:
        peak = next(line for line in status if line.startswith("VmPeak:"))
    if int(peak.split()[1]) << 10 > NEARLY_ALL * limit:
        raise MemoryError


if __name__ == "__main__":
    main(int(sys.argv[1]))
