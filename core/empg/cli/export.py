"""`empg export`: a published policy as a model directory, for `from_pretrained`, vLLM or an upload."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from empg.exit_codes import OK, SPEC
from empg.rundir import keys
from empg.rundir.group import policies, read_file, read_manifest
from empg.store.base import KeyMissing, Store
from empg.store.posix import PosixStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `empg export`."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="where the model goes; made, or empty")
    parser.add_argument("--policy", type=int, metavar="VERSION", help="which policy (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Copy a policy's files, verified against their manifest; 64 when there is none or no place for it."""
    store = PosixStore(args.run_dir)
    known = policies(store)
    version = args.policy if args.policy is not None else max(known, default=None)
    if version not in known:
        there = f"there are {', '.join(map(str, known))}" if known else "it has none"
        wanted = "no policy" if version is None else f"no policy {version}"
        print(f"empg export: {args.run_dir}: {wanted}; {there}", file=sys.stderr)
        return SPEC
    if args.model.exists() and any(args.model.iterdir()):
        print(f"empg export: {args.model} is not empty; name another directory", file=sys.stderr)
        return SPEC
    export(store, version, args.model)
    print(f"policy {version} is in {args.model}")
    return OK


def export(store: Store, version: int, directory: Path) -> None:
    """Write the files of a published policy to a directory.

    Raises:
        CorruptGroup: a file is not what was published.
        KeyMissing: the policy is not there, or no longer.
    """
    prefix = keys.policy_prefix(version)
    manifest = read_manifest(store, prefix)
    if manifest is None:  # retention was faster
        raise KeyMissing(keys.group_manifest(prefix))
    for name in manifest.files:
        data = read_file(store, prefix, manifest, name)  # first: it refuses names that lead elsewhere
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
