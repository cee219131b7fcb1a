"""`empg show`: the table of iterations of a run directory."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from empg.exit_codes import OK, SPEC
from empg.local.progress import iterations_table
from empg.rundir.evaluations import greedy_accuracies
from empg.rundir.identity import read_identity
from empg.rundir.metrics import read_metrics
from empg.rundir.progress import read_progress
from empg.store.base import KeyMissing
from empg.store.posix import PosixStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `empg show`."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--last", type=int, metavar="N", help="the last N iterations only")
    parser.add_argument("--json", action="store_true", help="all metrics, one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """Print the table; 64 when the directory is no run directory."""
    store = PosixStore(args.run_dir)
    try:
        identity = read_identity(store)
    except KeyMissing:
        print(f"empg show: {args.run_dir} is no run directory: it has no run.json", file=sys.stderr)
        return SPEC
    rows = read_metrics(store)
    if args.last is not None:
        rows = rows[-args.last :] if args.last > 0 else []
    if args.json:
        for row in rows:
            print(json.dumps(row))
        return OK
    console = Console(width=None if sys.stdout.isatty() else 160)
    accuracies = greedy_accuracies(store)
    progress = read_progress(store)
    state = f"{progress.phase}, iteration {progress.iteration}/{progress.iterations}" if progress else "not started"
    console.print(f"{identity.name}: {state}")
    console.print(iterations_table(rows, accuracies))
    if accuracies:
        last = max(accuracies)
        console.print(
            f"held-out greedy accuracy {accuracies[min(accuracies)]:.3f} -> {accuracies[last]:.3f} (policy {last})"
        )
    return OK
