"""Tasks kept in the run directory."""

from pathlib import Path

import pytest

from empg.api.task import TaskSpec
from empg.rundir.group import CorruptGroup, group_dir, read_manifest
from empg.rundir.identity import Identity, prepare
from empg.rundir.owner import Fenced, LearnerOwner
from empg.store.posix import PosixStore
from empg.tasks.snapshot import TRAIN, open_task, read_snapshot, snapshot_prefix
from empg.tasks.source import Task

LINES = [f'{{"question": "{n} – plus 1?", "answer": "{n + 1}"}}\n' for n in range(20)]
SPEC = TaskSpec.model_validate(
    {"name": "dataset", "source": "a.jsonl", "grader": {"name": "exact"}, "maxPromptTokens": 13}
)


def encode(text: str) -> list[int]:
    """One token per byte."""
    return list(text.encode())


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    store = PosixStore(tmp_path / "run")
    prepare(store, Identity(uid="u", name="test", spec_digest="d"))
    (tmp_path / "a.jsonl").write_text("".join(LINES), encoding="utf-8")
    return store


def opened(store: PosixStore, base_dir: Path, owner: LearnerOwner | None = None, spec: TaskSpec = SPEC) -> Task:
    owner = owner or LearnerOwner.acquire(store, "learner")
    return open_task(store, owner, spec, seed=0, heldout=4, base_dir=base_dir, encode=encode, chat=None)


def test_a_restart_needs_no_data_set(store: PosixStore, tmp_path: Path) -> None:
    first = opened(store, tmp_path)
    (tmp_path / "a.jsonl").unlink()
    again = opened(store, tmp_path)
    assert again == first
    assert again.train.size == 6
    assert [prompt.gold for prompt in again.heldout] == ["7", "8", "9", "10"]
    assert again.dropped == {"prompt too long": 10}


def test_another_task_or_split_is_another_snapshot(store: PosixStore, tmp_path: Path) -> None:
    opened(store, tmp_path)
    assert read_snapshot(store, SPEC, 5, encode) is None
    assert read_snapshot(store, SPEC.model_copy(update={"max_prompt_tokens": 14}), 4, encode) is None
    live = SPEC.model_copy(update={"grader": SPEC.grader.model_copy(update={"timeout_seconds": 1.0})})
    assert read_snapshot(store, live, 4, encode) is not None


def test_a_damaged_snapshot_is_not_read(store: PosixStore, tmp_path: Path) -> None:
    opened(store, tmp_path)
    prefix = snapshot_prefix(SPEC, 4)
    manifest = read_manifest(store, prefix)
    assert manifest is not None
    path = group_dir(store, prefix, manifest) / TRAIN
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptGroup, match=r"train\.parquet"):
        read_snapshot(store, SPEC, 4, encode)


def test_a_learner_that_was_replaced_keeps_nothing(store: PosixStore, tmp_path: Path) -> None:
    replaced = LearnerOwner.acquire(store, "old")
    LearnerOwner.acquire(store, "new")
    with pytest.raises(Fenced):
        opened(store, tmp_path, replaced)
    assert read_snapshot(store, SPEC, 4, encode) is None


def test_an_endless_task_is_not_kept(store: PosixStore, tmp_path: Path) -> None:
    task = opened(store, tmp_path, spec=TaskSpec(name="arithmetic"))
    assert task.train.size is None
    assert store.list("data") == []
