"""What the command says when a run directory, or whoever reads its output, lets it down."""

import subprocess
import sys
from pathlib import Path

import pytest

from empg.cli.main import main
from empg.exit_codes import SPEC
from empg.rundir import keys
from empg.rundir.identity import Identity, prepare
from empg.rundir.metrics import write_metrics
from empg.store.posix import PosixStore


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    store = PosixStore(tmp_path)
    prepare(store, Identity(uid="u", name="n", spec_digest="d"))
    write_metrics(store, 0, {"reward_mean": 0.5})
    return store


def test_a_damaged_file_is_named(store: PosixStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.put(keys.metrics_key(0), b"{")
    assert main(["show", str(store.root)]) == SPEC
    assert capsys.readouterr().err.startswith("empg show: metrics/000000.jsonl: no line of JSON")


def test_a_reader_that_has_seen_enough_causes_no_traceback(store: PosixStore) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "empg.cli.main", "show", str(store.root), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert (process.wait(60), said) == (141, b"")
