"""One rank of the learner, from command line to exit code."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from empg import exit_codes
from empg.api.load import load_run
from empg.rundir.owner import Fenced
from empg.store.base import StorageFull
from empg.store.posix import PosixStore
from empg_trainer.arguments import parser, spec_file
from empg_trainer.stop import Stop

logger = logging.getLogger("empg_trainer")

PR_SET_PDEATHSIG = 1
"""From Linux's sys/prctl.h."""


def run(args: argparse.Namespace) -> int:
    """Run this process's rank to its end; returns the exit code."""
    path = spec_file(args)
    manifest = load_run(path)
    logging.basicConfig(
        level=manifest.spec.logging.level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    leave_on_sigterm()
    # Not before here: this takes seconds.
    import torch

    from empg_trainer.distributed import Ranks, initialise
    from empg_trainer.loop import Start, learn

    if "OMP_NUM_THREADS" not in os.environ:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    start = Start(
        store=PosixStore(args.run_dir),
        run=manifest,
        spec_file=path,
        base_dir=args.base_dir or Path(args.run_dir),
        name=f"{socket.gethostname()}:{os.getpid()}",
        samplers_sleep=args.samplers_sleep,
    )
    try:
        device = initialise()
        learn(start, Ranks(), device)
    except Stop as stop:
        logger.error("%s", stop)
        return stop.code
    except (Fenced, StorageFull) as error:
        logger.error("%s", error)
        return exit_codes.RETRY
    return exit_codes.OK


def leave_on_sigterm() -> None:
    """End with 75 as soon as SIGTERM comes, even inside a long operation of a library.

    Nothing has to be put in order first: what is half written is invisible, and the next attempt goes on from here.
    Python runs signal handlers between its own instructions only, so a thread reads the signal instead.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def wait() -> None:
        while os.read(reading, 1)[0] != signal.SIGTERM:
            pass
        os._exit(exit_codes.RETRY)

    threading.Thread(target=wait, name="sigterm", daemon=True).start()


def die_with_launcher() -> None:
    """Have the kernel kill this rank when its launcher dies, so that a killed launcher leaves no rank on the GPUs."""
    launcher = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(exit_codes.RETRY)  # It died just before.


def main() -> None:
    """Entry point of a rank that the launcher started."""
    die_with_launcher()
    code = run(parser().parse_args())
    logging.shutdown()
    # Interpreter shutdown would wait for peers that may be gone.
    os._exit(code)


if __name__ == "__main__":
    main()
