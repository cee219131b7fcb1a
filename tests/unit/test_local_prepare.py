"""Whose directory it is, what an edit may change, and who works in it."""

from pathlib import Path

import pytest

from empg.api.run import EMPGRun
from empg.cli.run import load_with_overrides
from empg.local.prepare import AlreadyRunning, exclusive, prepare_directory, refused_edit
from empg.rundir.identity import ForeignRun
from empg.rundir.specs import write_spec
from empg.store.posix import PosixStore


def run(uid: str | None = None, name: str = "demo", **em: int) -> EMPGRun:
    spec = {"model": {"name": "x"}, "task": {"name": "arithmetic"}, "em": {"iterations": 1, **em}}
    metadata = {"name": name} | ({"uid": uid} if uid else {})
    return EMPGRun.model_validate(
        {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": metadata, "spec": spec}
    )


def test_a_local_run_gets_a_uid_and_keeps_it(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    first = prepare_directory(store, run())
    assert prepare_directory(store, run(iterations=5)) == first


def test_another_run_is_refused_by_uid_name_or_seed_and_adopted_on_request(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    mine = prepare_directory(store, run(uid="one"))
    for other in (run(uid="two"), run(uid="one", name="other"), run(uid="one", seed=7)):
        with pytest.raises(ForeignRun, match="adopt"):
            prepare_directory(store, other)
    document = run(uid="two").manifest()
    document["spec"]["storage"]["adopt"] = True
    assert prepare_directory(store, EMPGRun.model_validate(document)).uid == mine.uid


def test_an_immutable_edit_since_the_start_is_named(tmp_path: Path) -> None:
    store, first = PosixStore(tmp_path), run(uid="one")
    prepare_directory(store, first)
    with pytest.raises(ForeignRun, match=r"run.json: a field of spec is immutable"):
        prepare_directory(store, run(uid="one", seed=7))
    write_spec(store, 0, first.spec)
    with pytest.raises(ForeignRun, match=r"spec\.em\.seed is immutable"):
        prepare_directory(store, run(uid="one", seed=7))
    assert prepare_directory(store, run(uid="one", iterations=9)).uid == "one"


def test_one_empg_run_at_a_time(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(AlreadyRunning, match="another `empg run`"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_edits_of_immutable_fields_are_named() -> None:
    assert refused_edit(run(), run(iterations=9)) is None
    assert refused_edit(run(), run(name="other")) == "metadata.name is immutable; change it back"
    assert str(refused_edit(run(), run(seed=3))).startswith("spec.em.seed is immutable")


def test_overrides_reach_the_spec_and_bad_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "apiVersion: empg.dev/v1alpha1\nkind: EMPGRun\nmetadata: {name: demo}\n"
        "spec:\n  model: {name: x}\n  task: {name: arithmetic}\n  em: {iterations: 1}\n"
    )
    changed = load_with_overrides(path, ["em.seed=3", "objective.preset=grpo", "optimizer.learningRate=1e-3"])
    assert (changed.spec.em.seed, changed.spec.objective.preset) == (3, "grpo")
    assert changed.spec.optimizer.learning_rate == 1e-3
    for override, said in (
        ("em.seed", "write KEY=VALUE"),
        ("em.sed=3", "em.sed"),
        ("em.seed.x=3", "no section"),
        ("em.seed=x", "em.seed"),
    ):
        with pytest.raises(ValueError, match=said):
            load_with_overrides(path, [override])
