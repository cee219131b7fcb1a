"""What the commands say, and end with, when a run directory, a volume, or whoever reads the output lets them down."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_volume import small_volume

from empg.cli.main import main
from empg.cli.run import conclude
from empg.exit_codes import RETRY, SPEC
from empg.local.watch import Watch
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


MANIFEST = """\
apiVersion: empg.dev/v1alpha1
kind: EMPGRun
metadata: {name: n}
spec: {model: {name: base}, task: {name: arithmetic}, em: {iterations: 5}}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MANIFEST)
    return path


def test_a_full_volume_is_no_mistake_of_the_manifest(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "volume").mkdir()
    with small_volume(tmp_path / "volume") as volume:
        with pytest.raises(OSError, match="No space left"):
            (volume / "ballast").write_bytes(b"x" * (2 << 20))
        assert main(["run", str(manifest), "--run-dir", str(volume)]) == RETRY
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "free space on its volume" in said


def test_a_log_on_a_full_volume_is_no_mistake_of_the_manifest(tmp_path: Path, manifest: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "empg.cli.main",
        "run",
        str(manifest),
        "--run-dir",
        str(tmp_path / "run"),
        "--plain",
    ]
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run(command, stdout=full, stderr=full, timeout=120, check=False).returncode == RETRY
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (RETRY, "empg run: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_can_not_be_one_is_a_mistake(
    tmp_path: Path, manifest: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["run", str(manifest), "--run-dir", str(tmp_path / name)]) == SPEC
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_curves_that_can_not_be_saved_leave_a_finished_run_finished(
    store: PosixStore, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(store)
    watch.look()
    (store.root / "curves.png").symlink_to("/dev/full")
    conclude(watch, store.root, "n")
    said = capsys.readouterr().out
    assert f"curves: {store.root / 'curves.png'} could not be saved: [Errno 28] No space left on device" in said
