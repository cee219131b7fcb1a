"""`empg grade`: order, verdicts and the ways a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from empg.cli.main import main
from empg.exit_codes import OK, SPEC


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_lines_come_back_in_order_with_verdict_and_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": index, "text": f"#### {index}", "gold": str(index // 2 * 2)} for index in range(100)]
    file = write(tmp_path / "answers.jsonl", [*rows, {"text": "\ud800\x00", "gold": "1"}])
    assert main(["grade", file, "--grader", "gsm8k-strict", "--workers", "2"]) == OK
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    odd = {"verdict": "wrong", "reward": 0.0}
    even = {"verdict": "correct", "reward": 1.0}
    assert printed[:-1] == [row | (odd if row["id"] % 2 else even) for row in rows]
    assert printed[-1] == {"text": "\ud800\x00", "gold": "1", "verdict": "unparseable", "reward": 0.0}


def test_answers_without_a_grade_have_no_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "sleep", "gold": "60"}, {"text": "raise", "gold": "18"}, {"text": "reward", "gold": "0.5"}]
    file = write(tmp_path / "answers.jsonl", rows)
    options = ["--grader", "function", "--function", "grading_functions:act", "--timeout", "0.5", "--workers", "1"]
    assert main(["grade", file, *options]) == OK
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["verdict"], row["reward"], row.get("detail")) for row in printed] == [
        ("timeout", None, "time"),
        ("error", None, "KeyError: '18'"),
        ("correct", 0.5, None),
    ]


def test_tolerance_reaches_the_grader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "answers.jsonl", [{"text": "10.4", "gold": "10"}])
    assert main(["grade", file, "--grader", "numeric", "--tolerance", "0.05", "--workers", "1"]) == OK
    assert json.loads(capsys.readouterr().out)["verdict"] == "correct"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"nope", "not a line of JSON"),
        (b"", "not a line of JSON"),
        (b'"\xff"', "not a line of JSON"),
        (b"[1]", "not an object"),
        (b'{"text": "18"}', "`gold` must be a string"),
        (b'{"text": 18, "gold": "18"}', "`text` must be a string"),
    ],
)
def test_bad_line_is_named_after_the_lines_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: bytes, message: str
) -> None:
    good = b'{"text": "#### 18", "gold": "18"}\n'
    file = tmp_path / "answers.jsonl"
    file.write_bytes(good + good + line + b"\n" + good)
    assert main(["grade", str(file), "--grader", "gsm8k-strict", "--workers", "1"]) == SPEC
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert captured.err.startswith(f"empg grade: {file}:3: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grader", "exact", "--workers", "0"], "workers: Input should be greater than or equal to 1"),
        (["--grader", "function"], "task.grader.function goes with task.grader.name: function"),
        (["--grader", "function", "--function", "no_such_module:f"], "no_such_module:f can't be imported"),
    ],
)
def test_bad_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    file = write(tmp_path / "answers.jsonl", [{"text": "18", "gold": "18"}])
    assert main(["grade", file, *options]) == SPEC
    assert message in capsys.readouterr().err


def test_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(tmp_path / "none.jsonl"), "--grader", "exact"]) == SPEC
    assert "none.jsonl" in capsys.readouterr().err
