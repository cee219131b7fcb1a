"""Whose directory it is."""

from pathlib import Path

import pytest

from empg.api.run import EMPGRun
from empg.rundir.identity import ForeignRun
from empg.rundir.prepare import prepare_directory
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
