"""``empg-learner``: check cheaply whether there is anything to do, then start the ranks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from empg import exit_codes
from empg.api.load import InvalidManifest, load_run
from empg.api.run import EMPGRun
from empg.rundir.final import read_final
from empg.store.posix import PosixStore
from empg_trainer.arguments import parser, spec_file


def main(argv: Sequence[str] | None = None) -> int:
    """Run the learner on this node; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        manifest = load_run(spec_file(args))
    except (InvalidManifest, OSError) as error:
        print(f"empg-learner: {error}", file=sys.stderr)
        return exit_codes.SPEC
    processes = args.processes or manifest.spec.learner.processes
    if processes < 1:
        print("empg-learner: --processes must be at least 1", file=sys.stderr)
        return exit_codes.SPEC
    if finished(PosixStore(args.run_dir), manifest):
        print("empg-learner: the run is complete", file=sys.stderr)
        return exit_codes.OK
    if "CUDA_VISIBLE_DEVICES" not in os.environ and manifest.spec.learner.devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, manifest.spec.learner.devices))
    if processes * manifest.spec.learner.nodes == 1:
        from empg_trainer.worker import run

        return run(args)
    from empg_trainer.launcher import launch

    return launch(list(argv if argv is not None else sys.argv[1:]), processes, manifest)


def finished(store: PosixStore, manifest: EMPGRun) -> bool:
    """Whether the run is complete, and no more iterations were asked for since."""
    final = read_final(store)
    return final is not None and final.iterations >= manifest.spec.em.iterations


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
