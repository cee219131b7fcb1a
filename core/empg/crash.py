"""How programs end when something is raised that nobody expected."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

CODE = 1
"""As Python's own."""


def end_at_once_on_crash() -> None:
    """From now on an exception that is not caught ends the process as soon as it is told.

    Python would first wait for its threads and take engines down, which in turn wait for processes that may be gone: a
    rank that crashed would keep the others, and their GPUs, waiting.
    """
    sys.excepthook = _end


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # PyTorch wraps the hook when ranks meet, and puts a buffer that we would not see again in the place of sys.stderr.
    traceback.print_exception(kind, error, trace, file=sys.__stderr__)
    sys.stdout.flush()
    if sys.__stderr__ is not None:
        sys.__stderr__.flush()
    os._exit(CODE)
