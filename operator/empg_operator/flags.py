"""The command line: one flag for each field of the settings, and where to connect and how to log."""

from __future__ import annotations

import argparse
import json
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from empg_operator.settings import Settings


def parse(arguments: Sequence[str] | None) -> tuple[Settings, argparse.Namespace]:
    """The settings, and what is not one: `kubeconfig`, `log_format`, `log_level`. Exits with 2 on errors.

    Lists take a flag per item; booleans are `--flag` and `--no-flag`; what has structure is JSON.
    """
    parser = argparse.ArgumentParser(prog="empg-operator", description="Operator of EMPGRun objects.")
    parser.add_argument(
        "--kubeconfig", type=Path, help="kubeconfig file (default: the service account of the pod that this runs in)"
    )
    parser.add_argument("--log-format", choices=["json", "text"], default="json", help="default: %(default)s")
    parser.add_argument(
        "--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], default="INFO", help="default: %(default)s"
    )
    group = parser.add_argument_group("settings")
    for name, field in Settings.model_fields.items():
        help = (field.description or "").replace("\n", " ").replace("`", "").replace("%", "%%")
        group.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=f"{help} Default: {json.dumps(field.default)}".strip(),
            **_action(field.annotation),
        )
    chosen = vars(parser.parse_args(arguments))
    others = {name: chosen.pop(name) for name in ("kubeconfig", "log_format", "log_level")}
    try:
        return Settings.model_validate(chosen), argparse.Namespace(**others)
    except ValidationError as error:
        parser.error("; ".join(_said(one["loc"], one["msg"]) for one in error.errors()))


def _said(where: tuple[int | str, ...], message: str) -> str:
    """An error of one flag, or of several, which its message then names."""
    if not where:
        return message.removeprefix("Value error, ")
    return f"--{str(where[0]).replace('_', '-')}: {message}"


def _action(annotation: Any) -> dict[str, Any]:
    """How values of a type are read; pydantic checks them afterwards."""
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(annotation) is tuple:
        item = typing.get_args(annotation)[0]
        return {"action": "append", "type": str if item is str else _json, "metavar": "ITEM" if item is str else "JSON"}
    if typing.get_origin(annotation) is dict:
        return {"type": _json, "metavar": "JSON"}
    return {"metavar": "VALUE"}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error
