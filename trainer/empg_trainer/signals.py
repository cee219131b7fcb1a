"""How processes of the learner end on SIGTERM, and with each other."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from empg import exit_codes
from empg_trainer.background import SETTLE_SECONDS, settle

PR_SET_PDEATHSIG = 1
"""From Linux's sys/prctl.h."""


def leave_on_sigterm(farewell: Callable[[], None] = lambda: None) -> None:
    """End with 75 when SIGTERM comes, even inside a long operation of a library.

    What is written in the background, here or by a rank that this process started, is finished first if that is soon
    done. Nothing else has to be put in order: what is half written is invisible, and the next attempt goes on from
    here. Python runs signal handlers between its own instructions only, so a thread reads the signal instead.
    `farewell` is called in it, and must be quick.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def wait() -> None:
        while os.read(reading, 1)[0] != signal.SIGTERM:
            pass
        farewell()
        _end_children()
        settle()
        os._exit(exit_codes.RETRY)

    threading.Thread(target=wait, name="sigterm", daemon=True).start()


def _end_children() -> None:
    """SIGTERM to the processes that this one started; returns when they are gone, or when they had time to settle."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGTERM)
    deadline = time.monotonic() + SETTLE_SECONDS
    while any(Path("/proc", child).exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)


def die_with_launcher() -> None:
    """Have the kernel kill this rank when its launcher dies, so that a killed launcher leaves no rank on the GPUs."""
    launcher = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(exit_codes.RETRY)  # It died just before.
