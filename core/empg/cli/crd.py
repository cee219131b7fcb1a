"""`empg crd`: print the CustomResourceDefinition of EMPGRun in YAML, for `kubectl apply -f -`."""

from __future__ import annotations

import argparse

from empg.api.crd.definition import definition_yaml
from empg.exit_codes import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`empg crd` has no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print it."""
    print(definition_yaml(), end="")
    return OK
