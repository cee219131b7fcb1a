"""What an edit may change, and who works in a directory."""

from pathlib import Path

import pytest

from empg.api.run import EMPGRun
from empg.cli.run import load_with_overrides
from empg.local.prepare import AlreadyRunning, exclusive, refused_edit


def run(name: str = "demo", **em: int) -> EMPGRun:
    spec = {"model": {"name": "x"}, "task": {"name": "arithmetic"}, "em": {"iterations": 1, **em}}
    return EMPGRun.model_validate(
        {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": name}, "spec": spec}
    )


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
    changed = load_with_overrides(path, ["sampler.engineArgs.rope=1e-3", "task.template='Q: {{ prompt }}'"])
    assert changed.spec.sampler.engine_args == {"rope": 1e-3}
    assert changed.spec.task.template == "Q: {{ prompt }}"
    for override, said in (
        ("em.seed", "write KEY=VALUE"),
        ("em.sed=3", "em.sed"),
        ("em.seed.x=3", "no section"),
        ("em.seed=x", "em.seed"),
        ("task.template={{ prompt }}", "not valid YAML: a mapping or list can't be a key.* may need quotes of its own"),
        ("task.template=Q: {{ prompt }}", "not valid YAML"),
        ("task.template=a: b: c", "not valid YAML: mapping values are not allowed here"),
    ):
        with pytest.raises(ValueError, match=said):
            load_with_overrides(path, [override])
