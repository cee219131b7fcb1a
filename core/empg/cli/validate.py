"""`empg validate`: check manifests before anything starts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from empg.api.load import InvalidManifest, load_run
from empg.exit_codes import OK, SPEC


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `empg validate`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="manifest in YAML or JSON")


def run(args: argparse.Namespace) -> int:
    """Print `FILE: valid` or each problem as `FILE:line N: field: message`; 64 when any file has one."""
    code = OK
    for path in args.files:
        try:
            load_run(path)
        except InvalidManifest as error:
            print(error, file=sys.stderr)
            code = SPEC
        except (OSError, UnicodeDecodeError) as error:
            print(f"{path}: can't be read: {error}", file=sys.stderr)
            code = SPEC
        else:
            print(f"{path}: valid")
    return code
