"""`empg export`: a policy leaves the run directory whole, or not at all."""

from pathlib import Path

import pytest
from rundir_samples import new_run

from empg.cli.main import main
from empg.exit_codes import OK, SPEC
from empg.rundir.group import publish_policy
from empg.rundir.owner import LearnerOwner
from empg.store.posix import PosixStore

FILES = {"config.json": b"{}", "weights/model.safetensors": bytes(range(256))}


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    """Two policies."""
    store = new_run(tmp_path / "run")
    owner = LearnerOwner.acquire(store, "learner")
    for version in (3, 4):
        publish_policy(store, owner, version, [*FILES.items(), ("version", str(version).encode())], {})
    return store


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("options", "version"), [((), "4"), (("--policy", "3"), "3")])
def test_the_files_of_a_policy_are_copied(store: PosixStore, tmp_path: Path, options: tuple[str], version: str) -> None:
    assert main(["export", str(store.root), str(tmp_path / "a" / "model"), *options]) == OK
    assert contents(tmp_path / "a" / "model") == FILES | {"version": version.encode()}


def test_a_policy_that_is_not_there_is_named_with_those_that_are(
    store: PosixStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(store.root), str(tmp_path / "model"), "--policy", "5"]) == SPEC
    assert "no policy 5; there are 3, 4" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "elsewhere"), str(tmp_path / "model")]) == SPEC
    assert "no policy; it has none" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_nothing_is_written_into_a_directory_that_is_in_use(
    store: PosixStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("mine")
    assert main(["export", str(store.root), str(tmp_path)]) == SPEC
    assert "is not empty; name another directory" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == "mine"


def test_a_damaged_file_is_told(store: PosixStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [weights] = (store.root / "policy/000004").rglob("*.safetensors")
    weights.write_bytes(bytes(256))
    assert main(["export", str(store.root), str(tmp_path / "model")]) == SPEC
    assert "differs from its manifest" in capsys.readouterr().err
