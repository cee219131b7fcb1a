"""One rank of the learner, from command line to exit code."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from contextlib import ExitStack
from pathlib import Path

from empg import exit_codes
from empg.api.load import load_run
from empg.cluster.account import name_user
from empg.cluster.api_server import RunStatus
from empg.cluster.reporter import StatusReporter
from empg.cluster.termination import leave_word
from empg.crash import end_at_once_on_crash
from empg.rundir.owner import Fenced
from empg.store.base import StorageFull
from empg.store.patient import PatientStore
from empg_trainer.arguments import parser, spec_file
from empg_trainer.background import settle
from empg_trainer.logs import log_to_stderr
from empg_trainer.report import FIELD_MANAGER
from empg_trainer.signals import die_with_launcher, leave_on_sigterm
from empg_trainer.start import Start
from empg_trainer.stop import BadSpec, Stop

FULL_SECONDS = 60.0
"""How long the learner waits for room on a full volume before it ends with 75, by which a user comes to hear of it."""

logger = logging.getLogger("empg_trainer")


def run(args: argparse.Namespace) -> int:
    """Run this process's rank to its end; returns the exit code."""
    try:
        _learn(args)
    except Stop as stop:
        logger.log(logging.INFO if stop.code == exit_codes.WAITING else logging.ERROR, "%s", stop)
        leave_word(str(stop))
        return stop.code
    except (Fenced, StorageFull) as error:
        logger.error("%s", error)
        leave_word(str(error))
        return exit_codes.RETRY
    return exit_codes.OK


def _learn(args: argparse.Namespace) -> None:
    path = spec_file(args)
    manifest = load_run(path)
    log_to_stderr(manifest.spec.logging.level)
    processes = args.processes or manifest.spec.learner.processes
    nodes = args.nodes or manifest.spec.learner.nodes
    if "RANK" not in os.environ and processes * nodes > 1:
        raise BadSpec(
            f"learner.processes {processes} x learner.nodes {nodes} make {processes * nodes} ranks, but RANK is not "
            "set and this process would train as 1; start empg-learner, which starts them all"
        )
    try:
        status = RunStatus.of_this_pod(os.environ, manifest.metadata.uid, FIELD_MANAGER) if args.report else None
    except ValueError as error:
        raise BadSpec(str(error)) from error
    # Not before here: this takes seconds.
    import torch

    from empg_trainer.distributed import Ranks, initialise
    from empg_trainer.loop import learn

    if "OMP_NUM_THREADS" not in os.environ:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    device = initialise()
    ranks = Ranks()
    if ranks.leads:
        logger.info("training on %s, ranks: %d", device, ranks.world)
    port = manifest.spec.learner.metrics_port if args.metrics_port is None else args.metrics_port
    with ExitStack() as stack:
        stack.callback(settle)
        start = Start(
            store=PatientStore(args.run_dir, FULL_SECONDS),
            run=manifest,
            spec_file=path,
            base_dir=args.base_dir or Path(args.run_dir),
            name=f"{socket.gethostname()}:{os.getpid()}",
            samplers_sleep=args.samplers_sleep,
            alternate=args.alternate,
            metrics_port=port or 0,
            attempt=args.attempt,
            reporter=stack.enter_context(StatusReporter(status.apply)) if status and ranks.leads else None,
        )
        learn(start, ranks, device)


def main() -> None:
    """Entry point of a rank that the launcher started."""
    end_at_once_on_crash()
    die_with_launcher()
    leave_on_sigterm()
    name_user()
    code = run(parser().parse_args())
    logging.shutdown()
    os._exit(code)  # for the same reason as at a crash


if __name__ == "__main__":
    main()
