"""Command line of `empg-learner`, shared by the launcher and the ranks that it starts."""

from __future__ import annotations

import argparse
from pathlib import Path

from empg.rundir import keys


def parser() -> argparse.ArgumentParser:
    """Arguments of `empg-learner`."""
    arguments = argparse.ArgumentParser(
        prog="empg-learner",
        description="The DeepSpeed learner of an EMPG run: makes the M-steps and publishes policies until the run is "
        "complete. Start it again after any end but 64 and 65; it goes on where it was.",
        epilog="Exit codes: 0 complete, 64 bad manifest, 65 diverged, 75 try again, 76 samplers first (--alternate), "
        "others: a crash.",
    )
    arguments.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="run directory, shared with the samplers")
    arguments.add_argument(
        "--spec", type=Path, metavar="FILE", help="manifest (EMPGRun, YAML or JSON); default: RUN_DIR/manifest.json"
    )
    arguments.add_argument(
        "--base-dir",
        type=Path,
        metavar="DIR",
        help="directory that relative paths of the manifest are relative to; default: RUN_DIR",
    )
    arguments.add_argument(
        "--processes", type=int, metavar="N", help="ranks on this node; default: learner.processes of the manifest"
    )
    arguments.add_argument(
        "--nodes", type=int, metavar="N", help="nodes that train together; default: learner.nodes of the manifest"
    )
    arguments.add_argument(
        "--samplers-sleep",
        action="store_true",
        help="share the GPU with samplers that run with --sleep-while-learning: train once all of them sleep",
    )
    arguments.add_argument(
        "--alternate",
        action="store_true",
        help="take turns with samplers on the same GPUs: end with 76 where they have to work first",
    )
    arguments.add_argument(
        "--metrics-port", type=int, metavar="PORT", help="of /metrics and /healthz; default: learner.metricsPort"
    )
    arguments.add_argument(
        "--attempt",
        type=int,
        default=0,
        metavar="N",
        help="number of this attempt, for reports; default: our count",
    )
    arguments.add_argument(
        "--report",
        action="store_true",
        help="report progress to the Kubernetes API, on the run that EMPG_NAMESPACE and EMPG_RUN name",
    )
    return arguments


def spec_file(args: argparse.Namespace) -> Path:
    """The manifest that the arguments name."""
    path: Path = args.spec or args.run_dir / keys.MANIFEST
    return path
