"""`empg grade`: grade the answers of a JSON-lines file; each line needs a `text` and a `gold`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, get_args

from pydantic import ValidationError

from empg.api.task import GraderName, GraderSpec
from empg.exit_codes import OK, RETRY, SPEC
from empg.grading import GradePool
from empg.grading.process import WorkerLost
from empg.verdict import Grade

AHEAD = 16
"""Lines under way for each worker."""
WAIT_SECONDS = 1.0
OPTIONS = {"--tolerance": "tolerance", "--timeout": "timeout_seconds", "--workers": "workers"}
"""Options that are fields of `GraderSpec`."""


class BadLine(ValueError):
    """A line of the file that can't be graded; the message names file and line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `empg grade`."""
    parser.add_argument("file", type=Path, metavar="FILE", help='lines of {"text": …, "gold": …}; other keys are kept')
    parser.add_argument("--grader", required=True, choices=get_args(GraderName), help="rule to grade by")
    parser.add_argument(
        "--function", metavar="MODULE:NAME", help="for --grader function: f(text, gold) -> float | None"
    )
    for option, name in OPTIONS.items():
        field = GraderSpec.model_fields[name]
        kind = type(field.default)
        parser.add_argument(
            option, dest=name, type=kind, default=field.default, metavar="N", help=f"{field.description} (%(default)s)"
        )


def run(args: argparse.Namespace) -> int:
    """Print each line with its verdict and reward; 64 when the file or an option is wrong, 75 when no worker starts."""
    values = {name: getattr(args, name) for name in OPTIONS.values()}
    try:
        grade_file(args.file, GraderSpec(name=args.grader, function=args.function, **values), sys.stdout)
    except ValidationError as error:
        for problem in error.errors():
            print(f"empg grade: {'.'.join(map(str, problem['loc']))}: {problem['msg']}", file=sys.stderr)
        return SPEC
    except (ValueError, OSError) as error:
        print(f"empg grade: {error}", file=sys.stderr)
        return SPEC
    except WorkerLost as error:
        print(f"empg grade: {error}", file=sys.stderr)
        return RETRY
    return OK


def grade_file(path: Path, spec: GraderSpec, out: TextIO) -> None:
    """Write each line of `path` to `out` with `verdict` and `reward` (null when not graded), in order, as they finish.

    A grade without a reward has a `detail` too. `BadLine` is raised after the lines before it were written.
    """
    waiting: deque[tuple[int, dict[str, Any]]] = deque()
    finished: dict[int, Grade] = {}
    with GradePool(spec, task="dataset") as pool:

        def write(left: int) -> None:
            """Write lines until no more than `left` are under way."""
            while len(waiting) > left:
                finished.update((int(str(key)), grade) for key, grade in pool.poll(WAIT_SECONDS))
                while waiting and waiting[0][0] in finished:
                    number, row = waiting.popleft()
                    print(json.dumps(row | _result(finished.pop(number))), file=out, flush=True)

        try:
            for number, row in _rows(path):
                waiting.append((number, row))
                pool.submit(number, row["text"], row["gold"])
                write(left=AHEAD * spec.workers)
        except BadLine:
            write(left=0)
            raise
        write(left=0)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, _row(line, f"{path}:{number}")


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadLine(f"{where}: not a line of JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadLine(f'{where}: not an object; write {{"text": …, "gold": …}}')
    for key in ("text", "gold"):
        if not isinstance(row.get(key), str):
            raise BadLine(f"{where}: `{key}` must be a string")
    return row


def _result(grade: Grade) -> dict[str, Any]:
    result: dict[str, Any] = {"verdict": grade.verdict, "reward": None if math.isnan(grade.reward) else grade.reward}
    return result | ({"detail": grade.detail} if grade.detail else {})
