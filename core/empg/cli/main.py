"""Entry point of `empg`: one subcommand per module of this package."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from empg import __version__
from empg.cli import crd, export, grade, run, show, trajectories, validate
from empg.cli.failures import storage_code, tell
from empg.exit_codes import SPEC
from empg.rundir.records import CorruptFile
from empg.store.base import StoreError

COMMANDS = {
    "run": (run, "run a manifest on this machine, or go on with it"),
    "validate": (validate, "check manifests"),
    "show": (show, "print the table of iterations of a run directory"),
    "trajectories": (trajectories, "print trajectories of a run directory"),
    "export": (export, "copy a policy of a run directory as a model directory"),
    "grade": (grade, "grade the answers of a JSON-lines file"),
    "crd": (crd, "print the CustomResourceDefinition"),
}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(prog="empg", description="EM Policy Gradient training of language models")
    root.add_argument("--version", action="version", version=f"empg {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return root


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns its exit code."""
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # as of `empg trajectories DIR | head`
        _drop_output()
        return 128 + signal.SIGPIPE
    except CorruptFile as error:
        tell(f"empg {args.command}: {error}")
        return SPEC
    except (StoreError, OSError) as error:
        tell(f"empg {args.command}: {error}")
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return storage_code(error)
    return code


def _drop_output() -> None:
    """What is left in the buffer can't be written, and would be tried once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
