"""Rows of local files and of the hub."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from empg.tasks.rows import Location, locate


def read(path: Path) -> list[dict[str, object]]:
    return [row.columns for row in Location("task.source", path).rows()]


def test_jsonl_skips_blank_lines_and_knows_places(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "Ü", "n": 1}\n\n{"q": "b"}\n', encoding="utf-8")
    assert read(path) == [{"q": "Ü", "n": 1}, {"q": "b"}]
    assert [row.place for row in Location("task.source", path).rows()] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize("line", ['{"q": ', "[1, 2]", b"\xff\xfe{}".decode("latin-1")])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"q": 1}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:2: "):
        read(path)


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"q": ["a", "b"], "n": [1, None]}), path)
    assert read(path) == [{"q": "a", "n": 1}, {"q": "b", "n": None}]


def test_a_parquet_file_of_many_batches_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"n": range(5000)}), path, row_group_size=700)
    rows = list(locate("task.source", str(path), None, "train", tmp_path).rows())
    assert [row.columns["n"] for row in rows] == list(range(5000))
    assert rows[4999].place == f"{path} row 4999"


def test_what_is_not_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("no")
    with pytest.raises(ValueError, match=r"a\.parquet: not a readable Parquet file"):
        read(path)


def test_a_missing_file_is_named_with_the_manifest_field(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task\.evalSource: no file .*gone\.jsonl"):
        list(locate("task.evalSource", "gone.jsonl", None, "train", tmp_path).rows())


def test_files_are_relative_to_the_manifest(tmp_path: Path) -> None:
    assert locate("task.source", "sub/a.jsonl", None, "train", tmp_path).source == (tmp_path / "sub/a.jsonl").resolve()


def test_hub_ids_keep_configuration_and_split(tmp_path: Path) -> None:
    assert locate("task.source", "owner/name", "main", "test", tmp_path) == Location(
        "task.source", "owner/name", "main", "test"
    )


@pytest.mark.parametrize("source", ["./data", "/data/set", "a/b/c", "notes.txt"])
def test_what_is_neither_file_nor_hub_id_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"task\.source: .* is neither a \.jsonl or \.parquet file nor a hub id"):
        locate("task.source", source, None, "train", tmp_path)


HUB = """
import sys, time
from empg.hub import HubAway
from empg.tasks.hub import hub_rows
import datasets
started = time.monotonic()
try:
    list(hub_rows("task.source", "openai/gsm8k", "main", "train"))
except (ValueError, HubAway) as error:
    print(type(error).__name__)
    print(error)
print(time.monotonic() - started < 10)
"""


@pytest.mark.parametrize(
    ("environment", "kind", "reason"),
    [
        # Nothing listens on the discard port: the same refusal on every machine, with or without a network.
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "HubAway", "http://127.0.0.1:9 cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "ValueError", "offline mode is on (HF_HUB_OFFLINE)"),
    ],
)
def test_an_unreachable_hub_is_one_clear_error_at_once(
    tmp_path: Path, environment: dict[str, str], kind: str, reason: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUB],
        env={**os.environ, "HF_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    raised, message, quick = done.stdout.strip().splitlines()
    assert raised == kind
    assert quick == "True"
    assert message.startswith("task.source: cannot read split 'train' of openai/gsm8k (main): not in the local cache")
    assert reason in message
    assert message.endswith("Name a local .jsonl or .parquet file instead, or point HF_HOME to a cache that holds it")
