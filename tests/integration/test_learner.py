"""The learner program with scripted samplers: whole runs, restarts, guards and exit codes."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from learner_runs import Directory, free_port, until
from scripted_sampler import ScriptedSampler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from empg.rundir import keys
from empg.rundir.evaluations import read_results
from empg.rundir.final import read_final
from empg.rundir.group import policies, states
from empg.rundir.metrics import read_metrics
from empg.rundir.plans import read_plans
from empg.rundir.progress import read_progress
from empg.rundir.specs import read_spec
from empg.verdict import Verdict
from empg_trainer.objectives.metrics import MEANS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = Directory(tmp_path_factory.mktemp("undisturbed"), logging={"tensorboard": True})
    code, said = directory.learn()
    assert code == 0, said
    return directory


def test_a_run_leaves_policies_states_figures_and_evaluations(undisturbed):
    store = undisturbed.store
    assert policies(store) == [0, 1, 2, 3]
    assert len(set(undisturbed.weights().values())) == 4
    assert states(store) == [2, 3]
    rows = read_metrics(store)
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert row["logprob_mismatch"] < 1e-5
        assert row["kl_behaviour"] == pytest.approx(0, abs=1e-5)
        assert row["ratio_min"] == pytest.approx(1, abs=1e-3)
        assert row["policy"] == row["iteration"] + 1
        assert row["tokens"] > 0
        assert row["grad_norm"] > 0
        assert row["staleness_max"] == 0
        assert row["accuracy"] == row["reward_mean"]
        assert row["verdict_correct"] + row["verdict_wrong"] == 8
        assert row["optimizer_steps"] == 1
        assert row["replayed"] == row["diverged"] == 0
        parts = sum(row[f"seconds_{phase}"] for phase in ("sampling", "sealing", "learning", "publishing", "state"))
        assert 0 < parts <= row["seconds_total"]
    # A learner that starts from a state does not come back to record the iteration before.
    for state in states(store):
        recorded, written = keys.metrics_key(state - 1), keys.group_manifest(keys.state_prefix(state))
        assert store.local(recorded).stat().st_mtime_ns < store.local(written).stat().st_mtime_ns
    assert sorted(read_results(store)) == [0, 2, 3]
    final = read_final(store)
    assert (final.policy, sorted(final.evaluations)) == (3, [0, 2, 3])
    assert read_progress(store).phase == "done"


def test_every_figure_is_explained(undisturbed):
    table = (Path(__file__).parents[2] / "docs/training.md").read_text().split("| figure | meaning |")[1]
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE))))
    figures = {name for row in read_metrics(undisturbed.store) for name in row}
    assert figures <= explained
    assert explained - {"KL"} <= figures | MEANS.keys() | {
        "clip_ratio_min",
        "clip_ratio_mean",
        "clip_ratio_max",
        "kl_loss",
    }


def test_figures_are_there_for_tensorboard(undisturbed):
    shown = {}
    for place in (keys.TENSORBOARD, keys.TENSORBOARD_EVAL):
        events = EventAccumulator(str(undisturbed.store.local(place)))
        events.Reload()
        shown |= {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for row in read_metrics(undisturbed.store):
        numbers = {name for name, value in row.items() if value is not None} - {"iteration"}
        assert numbers <= {tag.removeprefix("train/") for tag in shown}
        for name in numbers:
            assert dict(shown[f"train/{name}"])[row["iteration"]] == pytest.approx(row[name]), name
    accuracies = {policy: result.greedy for policy, result in read_results(undisturbed.store).items()}
    assert dict(shown["eval/greedy"]) == pytest.approx(accuracies)


def test_a_finished_run_ends_at_once_without_importing_torch(undisturbed):
    before = time.monotonic()
    code = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "empg_trainer.main", str(undisturbed.root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert code.returncode == 0
    assert not any(line.split("|")[-1].strip() == "torch" for line in code.stderr.splitlines())
    assert time.monotonic() - before < 30


@pytest.mark.parametrize(
    ("ranks", "learner"),
    [
        (2, {"zeroStage": 3}),
        (2, {"zeroStage": 2, "tokensPerMicroBatch": 90}),
        (1, {"zeroStage": 0, "tokensPerMicroBatch": 1}),
    ],
    ids=["2-ranks-zero-3", "2-ranks-small-micro-batches", "single-sequences"],
)
def test_ranks_and_micro_batches_change_nothing(undisturbed, tmp_path, ranks, learner):
    directory = Directory(tmp_path, learner=learner, em={"iterations": 2})
    code, said = directory.learn(ranks)
    assert code == 0, said
    for ours, theirs in zip(read_metrics(directory.store), read_metrics(undisturbed.store), strict=False):
        for figure in ("loss", "grad_norm", "entropy", "reward_mean", "advantage_std"):
            assert ours[figure] == pytest.approx(theirs[figure], rel=1e-4, abs=1e-6), figure


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_learner_repeats_m_steps_to_the_very_weights(tmp_path, ranks):
    """Killed with policy 2 published and no training state yet: the restart repeats two M-steps from the base model."""
    changes = {"learner": {"zeroStage": 2}, "retention": {"stateEvery": 3}}
    calm, killed = Directory(tmp_path / "calm", **changes), Directory(tmp_path / "killed", **changes)
    code, said = calm.learn(ranks)
    assert code == 0, said
    with ScriptedSampler(killed.store):
        learner = killed.start_ranks(ranks)
        until(lambda: 2 in policies(killed.store), learner)
        learner.kill()
        left = killed.weights()
        assert 2 in left
        assert states(killed.store) == []
        code, said = killed.start_ranks(ranks).ended()
    assert code == 0, said
    assert killed.weights() == calm.weights()
    assert left.items() <= killed.weights().items()
    rows = read_metrics(killed.store)
    assert rows[0]["replayed"] == 1
    assert all(row["diverged"] == 0 for row in rows)


def test_presets_that_need_old_and_reference_log_probs_agree_over_ranks(tmp_path):
    for preset in ("rloo", "ppo-clip"):
        figures = []
        for ranks, stage in ((1, 0), (2, 3)):
            directory = Directory(
                tmp_path / preset / str(ranks),
                learner={"zeroStage": stage},
                em={"iterations": 2},
                objective={"preset": preset},
                evaluation={"prompts": 0},
            )
            code, said = directory.learn(ranks)
            assert code == 0, said
            figures.append(read_metrics(directory.store))
        for one, two in zip(*figures, strict=True):
            assert one["optimizer_steps"] == two["optimizer_steps"] == (4 if preset == "ppo-clip" else 1)
            for figure in ("loss", "grad_norm", "advantage_std", "clip_ratio_max"):
                assert one[figure] == pytest.approx(two[figure], rel=1e-3, abs=1e-5), (preset, figure)


def test_log_probs_that_disagree_end_the_run_before_a_policy_is_published(tmp_path):
    for name, shift in (("far", 2.0), ("nan", float("nan"))):
        directory = Directory(tmp_path / name)
        code, said = directory.learn(logprob_shift=shift)
        assert code == 65
        assert "guards.maxLogprobMismatch" in said
        assert policies(directory.store) == [0]


def test_log_probs_of_a_truncated_distribution_are_compared_with_nothing(tmp_path):
    changes = {"em": {"iterations": 1}, "sampler": {"topK": 5}, "evaluation": {"prompts": 0}}
    directory = Directory(tmp_path, **changes)
    code, said = directory.learn(logprob_shift=2.0)
    assert code == 0, said
    (row,) = read_metrics(directory.store)
    assert row["logprob_mismatch"] is None
    assert row["kl_behaviour"] == pytest.approx(2.0, abs=1e-4)


def test_ungradable_answers_end_the_run_on_every_rank(tmp_path):
    directory = Directory(tmp_path, learner={"processes": 2})
    code, said = directory.learn(verdict=lambda *_: Verdict.TIMEOUT)
    assert code == 65
    assert "guards.maxErrorShare" in said
    assert policies(directory.store) == [0]


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_ends_with_75(tmp_path, processes):
    directory = Directory(tmp_path, learner={"processes": processes})
    learner = directory.start()
    until(lambda: directory.phase() == "sampling", learner)
    before = time.monotonic()
    learner.terminate()
    assert learner.ended()[0] == 75
    assert time.monotonic() - before < 20


@pytest.mark.parametrize("ranks", [1, 2])
def test_missing_samplers_end_every_rank_with_75(tmp_path, ranks):
    directory = Directory(tmp_path, learner={"deadlineSeconds": 1})
    code, said = directory.start_ranks(ranks).ended()
    assert code == 75
    assert "learner.deadlineSeconds" in said


def test_a_second_learner_fences_the_first(tmp_path):
    directory = Directory(tmp_path)
    first = directory.start()
    until(lambda: directory.phase() == "sampling", first)
    second = directory.start()
    until(lambda: directory.phase(attempt=2) == "sampling", second)
    with ScriptedSampler(directory.store):
        assert first.ended()[0] == 75
        code, said = second.ended()
    assert code == 0, said
    assert policies(directory.store) == [0, 1, 2, 3]


def test_bad_manifests_end_with_64(tmp_path):
    directory = Directory(tmp_path)
    directory.spec["em"]["iterations"] = 0
    directory.write()
    code, said = directory.start().ended()
    assert code == 64
    assert "spec.em.iterations" in said

    directory.spec["em"]["iterations"] = 1
    directory.spec["model"] = {"name": "./absent"}
    directory.write()
    code, said = directory.start().ended()
    assert code == 64
    assert "model.name" in said


def test_live_edits_are_taken_and_immutable_ones_refused(tmp_path):
    directory = Directory(tmp_path, em={"iterations": 1}, evaluation={"prompts": 0})
    assert directory.learn()[0] == 0
    directory.spec["em"]["iterations"] = 2
    directory.spec["optimizer"]["learningRate"] = 1e-4
    directory.write()
    code, said = directory.learn()
    assert code == 0, said
    assert [row["learning_rate"] for row in read_metrics(directory.store)] == [1e-3, 1e-4]
    assert read_final(directory.store).iterations == 2

    directory.spec["em"] |= {"iterations": 3, "seed": 5}
    directory.write()
    code, said = directory.learn()
    assert code == 64
    assert "immutable" in said


def test_a_preset_can_be_edited_while_a_learner_works(tmp_path):
    directory = Directory(tmp_path, em={"iterations": 2}, evaluation={"prompts": 0})
    learner = directory.start()
    until(lambda: directory.phase() == "sampling", learner)
    directory.spec["objective"] = {"preset": "raft"}  # with a divergence from the base model
    directory.write()
    with ScriptedSampler(directory.store):
        code, said = learner.ended()
    assert code == 0, said
    before, after = read_metrics(directory.store)
    assert (before["optimizer_steps"], after["optimizer_steps"]) == (1, 4)
    assert "reference_kl" not in before
    assert after["reference_kl"] >= 0


def test_an_edit_reaches_what_is_planned_after_it(tmp_path):
    em = {"iterations": 4, "maxStaleness": 2}
    directory = Directory(tmp_path, em=em, sampler={"topP": 0.9}, evaluation={"prompts": 0})
    learner = directory.start()
    until(lambda: directory.phase() == "sampling", learner)  # iterations 0 to 2 are planned
    directory.spec["em"]["promptsPerIteration"] = 6
    directory.spec["sampler"]["topP"] = 1.0
    directory.spec["objective"] = {"preset": "grpo"}  # with ratios, for which answers of a topP of 0.9 are of no use
    directory.write()
    with ScriptedSampler(directory.store):
        code, said = learner.ended()
    assert code == 0, said
    assert "iteration 2 was planned before an edit of the objective, which waits" in said
    assert [read_spec(directory.store, t).objective.preset for t in range(4)] == ["empg"] * 3 + ["grpo"]
    plans = [read_plans(directory.store, "rollout", t)[0] for t in range(4)]
    assert [(plan.first, plan.end) for plan in plans] == [(0, 4), (4, 8), (8, 12), (12, 18)]


def test_an_evaluation_that_nobody_makes_is_recorded_as_missing(tmp_path):
    directory = Directory(tmp_path, em={"iterations": 1}, evaluation={"deadlineSeconds": 1})
    code, said = directory.learn(kinds=("rollout",))
    assert code == 0, said
    assert read_final(directory.store).evaluations == {0: None, 1: None}
    assert all(result.missing for result in read_results(directory.store).values())


def test_two_nodes_meet_and_train(undisturbed, tmp_path):
    directory = Directory(tmp_path, learner={"nodes": 2, "zeroStage": 1}, em={"iterations": 1})
    port = free_port()
    with ScriptedSampler(directory.store):
        nodes = [
            directory.start(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, JOB_COMPLETION_INDEX=str(index))
            for index in (0, 1)
        ]
        ends = [node.ended() for node in nodes]
    assert [code for code, _ in ends] == [0, 0], ends
    ours, theirs = (read_metrics(d.store)[0]["loss"] for d in (directory, undisturbed))
    assert ours == pytest.approx(theirs, rel=1e-5)
