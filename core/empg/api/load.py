"""Manifest files to `EMPGRun`, with the line and the field of every error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from empg.api.run import API_VERSION, KIND, EMPGRun
from empg.api.wire import as_received

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a manifest."""

    line: int
    """Line in the file, from 1."""
    field: str
    """Dotted path, as a user writes it (`spec.em.iterations`)."""
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field}: {self.message}" if self.field else f"line {self.line}: {self.message}"


class InvalidManifest(ValueError):
    """The manifest can't be used; `problems` says all that is wrong with it."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{path}:{problem}" for problem in problems))


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which YAML forbids and PyYAML would let pass."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue  # Its keys may be given again: that is how one of them is changed.
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | None):
            kind = "a mapping or list" if isinstance(key, dict | list) else type(key).__name__
            problem = f"{kind} can't be a key; put a text that YAML takes for one, as of {{ or [, in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UNREADABLE = (yaml.YAMLError, ValueError, AttributeError, RecursionError)
"""What PyYAML raises; the latter for impossible dates and numbers, wrong tags and endless nesting."""
_MERGE = "tag:yaml.org,2002:merge"


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1 as PyYAML reads it takes `1e-4` for a string; kubectl, and every user, takes it for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_run(path: Path) -> EMPGRun:
    """Read the one `EMPGRun` of a YAML or JSON file; documents of other kinds beside it are passed over.

    Raises InvalidManifest with every problem found, and OSError when the file can't be read.
    """
    text = path.read_text(encoding="utf-8")
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidManifest(path, [Problem(mark.line + 1 if mark else 1, "", _reason(error))]) from error
    except _UNREADABLE as error:
        raise InvalidManifest(path, [Problem(1, "", f"not valid YAML: {error}")]) from error
    runs = [
        (node, document)
        for node, document in zip(nodes, documents, strict=True)
        if isinstance(document, dict) and document.get("kind") == KIND
    ]
    if len(runs) != 1:
        found = f"{len(runs)} documents" if runs else "no document"
        raise InvalidManifest(
            path, [Problem(1, "", f"{found} of kind {KIND} found; one with apiVersion {API_VERSION} is needed")]
        )
    node, document = runs[0]
    try:
        return _validate(document)
    except ValidationError as error:
        problems = [_problem(node, details) for details in error.errors(include_url=False)]
        raise InvalidManifest(path, sorted(problems, key=lambda problem: problem.line)) from error


def parse_value(text: str) -> Any:
    """A value as it may stand in a manifest. ValueError when it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except _UNREADABLE as error:
        reason = _reason(error) if isinstance(error, yaml.MarkedYAMLError) else error
        raise ValueError(f"not valid YAML: {reason}") from error


def _reason(error: yaml.MarkedYAMLError) -> str:
    return error.problem or "not valid YAML"


def parse_run(data: bytes, source: str) -> EMPGRun:
    """The `EMPGRun` in JSON that a program wrote; InvalidManifest names `source`."""
    try:
        return _validate(json.loads(data))
    except json.JSONDecodeError as error:
        raise InvalidManifest(Path(source), [Problem(error.lineno, "", f"not valid JSON: {error.msg}")]) from error
    except ValidationError as error:
        problems = [Problem(1, _dotted(details["loc"]), _message(details)) for details in error.errors()]
        raise InvalidManifest(Path(source), problems) from error


def _validate(document: Any) -> EMPGRun:
    # JSON mode is strict about numbers and texts, as the API server is, and takes lists for tuples.
    received = json.dumps(as_received(document, EMPGRun), default=str)
    return EMPGRun.model_validate_json(received, strict=True, by_alias=True, by_name=False)


def _problem(node: yaml.Node, details: ErrorDetails) -> Problem:
    location = details["loc"]
    return Problem(_line(node, location), _dotted(location), _message(details))


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _message(details: ErrorDetails) -> str:
    kind, message = details["type"], details["msg"]
    if kind == "extra_forbidden":
        return "unknown key; remove it or correct its spelling"
    if kind == "missing":
        return "required, but absent; add it"
    message = message.removeprefix("Value error, ")
    given = details.get("input")
    if kind != "value_error" and isinstance(given, str | int | float | bool):
        message += f" (given: {given!r})"
    return message


def _line(node: yaml.Node, location: Location) -> int:
    """Line of the deepest part of `location` that the file has, from 1."""
    line = int(node.start_mark.line) + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            below = {key.value: (key, value) for key, value in node.value}
            if part not in below:
                break
            key, node = below[part]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
