"""The three commands of a user take the CPU demo to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import ROOT, LiveCluster

from empg.rundir import keys
from empg.rundir.evaluations import greedy_accuracies
from empg.rundir.group import FileEntry, read_manifest
from empg.rundir.plans import read_plans
from empg.rundir.seal import read_sealed

ITERATIONS = 40
SECONDS = 600.0
SHOW = ("empg", "show", "/data/demo")


@dataclass
class Seen:
    """A run that is complete, and what `kubectl get empgrun` printed on the way."""

    run: AppliedRun
    rows: list[dict[str, str]] = field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """What a column had, in order, without repetitions."""
        cells = [row.get(name, "") for row in self.rows]
        return [cell for at, cell in enumerate(cells) if at == 0 or cells[at - 1] != cell]


@pytest.fixture(scope="module")
def seen(release: LiveCluster, namespace: str) -> Seen:
    """The demo, cut to what shows that it learns."""
    changes = {"em": {"iterations": ITERATIONS}, "evaluation": {"every": 20, "prompts": 200}}
    seen = Seen(AppliedRun(release, namespace, demo("demo", **changes)))

    def complete() -> bool:
        seen.rows.append(seen.run.columns())
        return seen.run.condition("Complete").get("status") == "True"

    seen.run.until(complete, "Complete", START_SECONDS + SECONDS)
    seen.run.kubectl("wait", "--for=condition=Complete", "empgrun/demo", "--timeout=5s")
    seen.run.until(lambda: seen.run.columns().get("SAMPLERS") == "0/0", "end of the samplers", 60)
    seen.rows.append(seen.run.columns())
    return seen


def test_the_columns_tell_how_far_it_is(seen: Seen) -> None:
    phases = seen.column("PHASE")
    assert set(phases) >= {"Starting", "Sampling", "Learning", "Complete"}
    assert phases[-1] == "Complete"
    for column in ("ITERATION", "POLICY"):
        numbers = [int(cell) for cell in seen.column(column) if cell]
        assert numbers == sorted(numbers)
        assert len(numbers) > 5  # the learner reports every ten seconds
        assert numbers[-1] == ITERATIONS
    assert "1/1" in seen.column("SAMPLERS")
    assert seen.column("SAMPLERS")[-1] == "0/0"


def test_the_model_gets_better(seen: Seen) -> None:
    accuracies = greedy_accuracies(seen.run.store())
    assert list(accuracies) == [0, 20, ITERATIONS]
    assert accuracies[ITERATIONS] > accuracies[0] + 0.05
    assert float(seen.rows[-1]["EVAL"]) == pytest.approx(accuracies[ITERATIONS], abs=1e-3)
    rewards = [row["reward_mean"] for row in seen.run.metrics()]
    assert sum(rewards[-5:]) > sum(rewards[:5])


def test_policy_and_trajectories_are_on_the_claim(seen: Seen) -> None:
    policies = seen.run.policies()
    assert policies[-1] == ITERATIONS
    store = seen.run.store()
    manifest = read_manifest(store, keys.policy_prefix(ITERATIONS))
    assert manifest is not None
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(manifest.files)
    seals = seen.run.seals()
    assert sorted(seals) == list(range(ITERATIONS))
    for iteration, seal in seals.items():
        rows = read_sealed(store, read_plans(store, "rollout", iteration), seal)
        answers = {(row.prompt_id, row.sample) for row in rows}
        assert len(answers) == len(rows) == 32 * 8
        assert all({version for version, _ in row.policy_versions} == {iteration} for row in rows)


def test_the_reader_shows_the_run_and_brings_its_model_out(seen: Seen, tmp_path: Path) -> None:
    """By the commands of docs/kubernetes.md."""
    run, model = seen.run, tmp_path / "model"
    pod = (ROOT / "manifests/reader.yaml").read_text().replace("image: empg/", f"image: {run.cluster.images}/")
    run.kubectl("apply", "-f", "-", input=pod)
    run.kubectl("wait", "--for=condition=Ready", "pod/reader", "--timeout=100s")
    assert f"demo: done, iteration {ITERATIONS}/{ITERATIONS}" in run.kubectl("exec", "reader", "--", *SHOW)
    run.kubectl("exec", "reader", "--", "empg", "export", "/data/demo", "/tmp/model")
    run.kubectl("cp", "reader:/tmp/model", str(model))
    run.kubectl("delete", "pod", "reader")
    manifest = read_manifest(run.store(), keys.policy_prefix(ITERATIONS))
    assert manifest is not None
    copied = {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    assert {name: FileEntry.of(data) for name, data in copied.items()} == manifest.files


def test_its_conditions_and_events_tell_the_end(seen: Seen) -> None:
    assert seen.run.condition("Failed").get("status") != "True"
    assert seen.run.status()["restarts"] == 0
    assert seen.run.pods("sampler") == []
    job = seen.run.kubectl("get", "job", "demo-learner-1", "-o", "jsonpath={.status.conditions[*].type}")
    assert "Complete" in job.split()
