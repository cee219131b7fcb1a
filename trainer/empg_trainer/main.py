"""`empg-learner`: check cheaply whether there is anything to do, then start the ranks."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from empg import exit_codes
from empg.api.load import InvalidManifest, load_run
from empg.api.run import EMPGRun
from empg.cluster.account import name_user
from empg.cluster.termination import STOPPED, leave_word
from empg.crash import end_at_once_on_crash
from empg.rundir.final import read_final
from empg.store.base import Store
from empg.store.posix import PosixStore
from empg_trainer.arguments import parser, spec_file
from empg_trainer.logs import log_to_stderr
from empg_trainer.signals import leave_on_sigterm


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; ends the process with a code of `empg.exit_codes` or that of a crash."""
    end_at_once_on_crash()
    code = run_node(sys.argv[1:] if argv is None else argv)
    logging.shutdown()
    sys.stderr.flush()
    # Not sys.exit: taking torch down takes seconds, and all that matters is on the storage.
    os._exit(code)


def run_node(argv: Sequence[str]) -> int:
    """Run the learner on this node; returns the exit code."""
    leave_on_sigterm(lambda: leave_word(STOPPED))
    name_user()
    args = parser().parse_args(argv)
    try:
        manifest = load_run(spec_file(args))
    except (InvalidManifest, OSError) as error:
        return refuse(str(error))
    log_to_stderr(manifest.spec.logging.level)
    processes = args.processes or manifest.spec.learner.processes
    nodes = args.nodes or manifest.spec.learner.nodes
    if min(processes, nodes) < 1:
        return refuse("--processes and --nodes must be at least 1")
    if finished(PosixStore(args.run_dir), manifest):
        print("empg-learner: the run is complete", file=sys.stderr)
        return exit_codes.OK
    if "CUDA_VISIBLE_DEVICES" not in os.environ and manifest.spec.learner.devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, manifest.spec.learner.devices))
    if processes * nodes == 1:
        from empg_trainer.worker import run

        args.processes, args.nodes = processes, nodes  # whatever the manifest says when it is read again
        return run(args)
    from empg_trainer.launcher import launch

    name = f"{manifest.metadata.uid or manifest.metadata.name}-{args.attempt}"
    try:
        return launch(list(argv), processes, nodes, name)
    except ValueError as error:
        return refuse(str(error))


def refuse(reason: str) -> int:
    """Say what is wrong with the manifest or the command line."""
    print(f"empg-learner: {reason}", file=sys.stderr)
    leave_word(reason)
    return exit_codes.SPEC


def finished(store: Store, manifest: EMPGRun) -> bool:
    """Whether the run is complete, and no more iterations were asked for since."""
    final = read_final(store)
    return final is not None and final.iterations >= manifest.spec.em.iterations


if __name__ == "__main__":
    main()
