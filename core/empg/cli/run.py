"""`empg run`: start a manifest on this machine, or go on with it. Ctrl-C stops it; the same command resumes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from empg.api.load import load_run, parse_value
from empg.api.run import EMPGRun
from empg.exit_codes import OK, SPEC
from empg.local.curves import draw
from empg.local.prepare import exclusive, write_manifest
from empg.local.progress import LiveView, PlainView, View
from empg.local.restarts import BUDGET
from empg.local.supervisor import Supervisor
from empg.local.watch import Watch
from empg.rundir.prepare import prepare_directory
from empg.store.base import Store
from empg.store.posix import PosixStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `empg run`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="manifest of one EMPGRun")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="run directory (default: runs/<name>)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a field of the spec, as in --set em.seed=1; may be given several times",
    )
    parser.add_argument("--plain", action="store_true", help="plain lines even on a terminal")
    parser.add_argument(
        "--restarts",
        type=int,
        default=BUDGET,
        metavar="N",
        help="failures of one process to get over between two finished iterations (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run to the end; the exit code is that of the run (0 done, 64 bad manifest, 65 diverged, 75 call it again)."""
    try:
        manifest = load_with_overrides(args.file, args.set)
        root = (args.run_dir or Path("runs") / manifest.metadata.name).absolute()
        with exclusive(root):
            store = PosixStore(root)
            prepare_directory(store, manifest)
            write_manifest(store, manifest)
            return _supervise(args, manifest, root, store)
    except ValueError as error:
        print(f"empg run: {error}", file=sys.stderr)
        return SPEC


def _supervise(args: argparse.Namespace, manifest: EMPGRun, root: Path, store: Store) -> int:
    def supervise(view: View) -> int:
        view.say(f"run directory {root}")
        supervisor = Supervisor(
            root=root,
            store=store,
            run=manifest,
            reload=reloader(args.file, args.set),
            base_dir=args.file.absolute().parent,
            say=view.say,
            restarts=args.restarts,
        )
        return supervisor.supervise(view.refresh)

    watch, console = Watch(store), Console()
    if args.plain or not console.is_terminal:
        code = supervise(PlainView(watch))
    else:
        with LiveView(watch, console, title=f"EMPGRun {manifest.metadata.name}") as view:
            code = supervise(view)
    if code == OK:
        conclude(watch, root, manifest.metadata.name)
    return code


def conclude(watch: Watch, root: Path, name: str) -> None:
    """Draw the curves of a finished run, and print the held-out accuracy of its first and its last policy."""
    if watch.rows:
        path = root / "curves.png"
        try:
            draw(watch.rows, watch.accuracies, name, path)
        except OSError as error:  # the run is complete, whatever becomes of a picture of it
            print(f"curves: {path} could not be saved: {error}")
        else:
            print(f"curves: {path}")
    if watch.accuracies:
        first, last = watch.accuracies[min(watch.accuracies)], watch.accuracies[max(watch.accuracies)]
        print(f"held-out greedy accuracy {first:.3f} -> {last:.3f}")


def load_with_overrides(path: Path, overrides: list[str]) -> EMPGRun:
    """The manifest with `--set` applied on top; ValueError names the override that can't be used."""
    manifest = load_run(path)
    if not overrides:
        return manifest
    data = manifest.manifest()
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {override}: write KEY=VALUE, as in --set em.seed=1")
        *parents, last = key.removeprefix("spec.").split(".")
        part: Any = data["spec"]
        for parent in parents:
            part = part.setdefault(parent, {}) if isinstance(part, dict) else None
        if not isinstance(part, dict):
            raise ValueError(f"--set {override}: spec.{'.'.join(parents)} is no section")
        try:
            part[last] = parse_value(text)
        except ValueError as error:
            raise ValueError(f"--set {override}: {error}; a text may need quotes of its own") from error
    try:
        return EMPGRun.model_validate(data, by_alias=True, by_name=False)
    except ValueError as error:
        raise ValueError(f"--set {' '.join(overrides)}: {error}") from error


def reloader(path: Path, overrides: list[str]) -> Callable[[], EMPGRun | None]:
    """Reads the manifest again when its modification time changed. What is wrong with it is raised once."""
    seen: int | None = path.stat().st_mtime_ns

    def reload() -> EMPGRun | None:
        nonlocal seen
        now = path.stat().st_mtime_ns if path.exists() else None
        if now == seen:
            return None
        seen = now
        return load_with_overrides(path, overrides)

    return reload
