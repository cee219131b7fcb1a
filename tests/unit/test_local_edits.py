"""Edits of the manifest while `empg run` goes on: what is wrong with one is said, and the run goes on without it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from empg.api.load import load_run
from empg.cli.run import load_with_overrides, reloader
from empg.local.supervisor import Supervisor, gpus
from empg.rundir import keys
from empg.store.posix import PosixStore

MANIFEST = """\
apiVersion: empg.dev/v1alpha1
kind: EMPGRun
metadata: {name: edited}
spec:
  model: {name: base}
  task: {name: arithmetic}
  em: {iterations: 5, promptsPerIteration: 32, promptsPerUnit: 8}
"""


@pytest.fixture
def edited(tmp_path: Path) -> tuple[Supervisor, list[str], Callable[[str | None], None]]:
    """A supervisor, what it said, and how to edit the manifest (None: remove it)."""
    manifest, said = tmp_path / "run.yaml", list[str]()
    manifest.write_text(MANIFEST)
    overrides = ["em.promptsPerUnit=16"]
    supervisor = Supervisor(
        root=tmp_path / "run",
        store=PosixStore(tmp_path / "run"),
        run=load_with_overrides(manifest, overrides),
        reload=reloader(manifest, overrides),
        base_dir=tmp_path,
        say=said.append,
        restarts=0,
    )
    edits = 0

    def edit(text: str | None) -> None:
        nonlocal edits
        edits += 1
        if text is None:
            manifest.unlink()
        else:
            manifest.write_text(text)
            os.utime(manifest, ns=(edits * 10**9, edits * 10**9))

    return supervisor, said, edit


def test_an_edit_reaches_the_learner(edited: tuple[Supervisor, list[str], Callable[[str | None], None]]) -> None:
    supervisor, said, edit = edited
    edit(MANIFEST.replace("iterations: 5", "iterations: 7"))
    supervisor.take_edit()
    assert len(said) == 1
    assert said[0].startswith("edit taken")
    spec = load_run(supervisor.store.local(keys.MANIFEST)).spec
    assert (spec.em.iterations, spec.em.prompts_per_unit) == (7, 16)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (MANIFEST.replace("promptsPerIteration: 32", "promptsPerIteration: 40"), "must divide"),  # with the override
        (MANIFEST.replace("iterations: 5", "iterations: many"), "spec.em.iterations"),
        (MANIFEST.replace("name: base", "name: other"), "spec.model.name is immutable"),
        (None, "No such file"),
    ],
    ids=["override", "invalid", "immutable", "gone"],
)
def test_an_edit_that_can_not_be_taken_is_told_once_and_changes_nothing(
    edited: tuple[Supervisor, list[str], Callable[[str | None], None]], text: str | None, reason: str
) -> None:
    supervisor, said, edit = edited
    before = supervisor.run
    edit(text)
    for _ in range(3):
        supervisor.take_edit()
    assert len(said) == 1
    assert said[0].startswith("edit not taken")
    assert reason in said[0]
    assert supervisor.run == before
    edit(MANIFEST.replace("iterations: 5", "iterations: 7"))
    supervisor.take_edit()
    assert supervisor.run.spec.em.iterations == 7


@pytest.mark.parametrize(
    ("visible", "found"), [("0,1", (0, 1)), ("3", (3,)), ("", ()), ("-1", ()), ("2, 0", (2, 0)), ("1,-1,0", (1,))]
)
def test_gpus_are_those_that_cuda_would_see(
    monkeypatch: pytest.MonkeyPatch, visible: str, found: tuple[int, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == found


def test_gpus_named_by_uuid_are_refused_and_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
    with pytest.raises(ValueError, match="by index"):
        gpus()


def test_gpus_of_a_container_are_counted_as_cuda_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(tmp_path) == ()
    for name in ("nvidia2", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus(tmp_path) == (0, 1)
