"""`empg trajectories`: what was sampled, and how it was graded."""

from __future__ import annotations

import argparse
import heapq
import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from empg.exit_codes import OK, SPEC
from empg.rundir.plans import planned, read_plans
from empg.rundir.seal import read_seal, read_sealed
from empg.store.base import Store
from empg.store.posix import PosixStore
from empg.trajectory import Trajectory
from empg.verdict import Verdict

LIMIT = 20
"""Trajectories printed where nothing is said."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `empg trajectories`."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument(
        "--iteration", type=int, metavar="T", help="only this iteration (default: the newest sealed one)"
    )
    parser.add_argument("--all", action="store_true", help="all sealed iterations")
    parser.add_argument("--verdict", choices=[str(verdict) for verdict in Verdict], help="only this verdict")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--best", type=int, metavar="N", help="the N with the highest reward")
    order.add_argument("--worst", type=int, metavar="N", help="the N with the lowest reward")
    parser.add_argument(
        "--limit", type=int, metavar="N", help=f"print N at most (default: {LIMIT}; with --best or --worst all of them)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with token ids and log-probs")


def run(args: argparse.Namespace) -> int:
    """Print the trajectories of sealed iterations; 64 when there are none to print from."""
    store = PosixStore(args.run_dir)
    sealed = [t for t in planned(store, "rollout") if read_seal(store, "rollout", t) is not None]
    if args.iteration is not None:
        sealed = [t for t in sealed if t == args.iteration]
    elif not args.all:
        sealed = sealed[-1:]
    if not sealed:
        what = "no sealed iteration" if args.iteration is None else f"iteration {args.iteration} is not sealed, or gone"
        print(f"empg trajectories: {args.run_dir}: {what}", file=sys.stderr)
        return SPEC
    rows = (row for row in _read(store, sealed) if args.verdict in (None, str(row.verdict)))
    limit = LIMIT if args.limit is None and args.best is None and args.worst is None else args.limit
    for row in islice(_select(rows, args.best, args.worst), limit):
        if args.json:
            parts = {name: _or_null(part) for name, part in row.rewards.items()}
            data = {**asdict(row), "reward": _or_null(row.reward), "rewards": parts}
            print(json.dumps(data, ensure_ascii=False, allow_nan=False))
        else:
            _print(row)
    return OK


def _or_null(reward: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(reward) else reward


def _read(store: Store, iterations: list[int]) -> Iterator[Trajectory]:
    for iteration in iterations:
        seal = read_seal(store, "rollout", iteration)
        if seal is not None:
            yield from read_sealed(store, read_plans(store, "rollout", iteration), seal)


def _select(rows: Iterable[Trajectory], best: int | None, worst: int | None) -> Iterable[Trajectory]:
    """The best or worst by reward; ungraded answers have no reward and count as neither."""
    graded = (row for row in rows if not math.isnan(row.reward))
    if best is not None:
        return heapq.nlargest(best, graded, key=lambda row: row.reward)
    if worst is not None:
        return heapq.nsmallest(worst, graded, key=lambda row: row.reward)
    return rows


COLOURS = {Verdict.CORRECT: "green", Verdict.WRONG: "red"}


def _print(row: Trajectory) -> None:
    versions = ", ".join(str(version) for version, _ in row.policy_versions)
    head = (
        f"iteration {row.iteration} · {row.prompt_id} · sample {row.sample} · policy {versions} · "
        f"{len(row.response_ids)} tokens, {row.finish_reason} · reward {row.reward:g} · "
    )
    console = Console(soft_wrap=True)
    verdict = Verdict(row.verdict)
    console.print(Text(head, style="dim") + Text(str(verdict), style=COLOURS.get(verdict, "yellow")))
    console.print(Text(row.prompt) + Text(row.response, style="bold"))
    console.print()
