"""Statuses: read whatever they say, written small, and only when they differ."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_samples import NOW, SETTINGS, Steps, condition, deployment, job, observed, plan_alone, progress, run

from empg.api.status import RunStatus
from empg_operator.conditions import is_true
from empg_operator.plan import plan
from empg_operator.plan.reading import read_status
from empg_operator.plan.status import OTHERS

KNOWN = {
    "attempt": 3,
    "restarts": 2,
    "phase": "Sampling",
    "conditions": [condition("Failed", "True", "Diverged"), condition("Ready", "False", "Failed")],
    "clock": {"waitingFor": "pods", "since": "2027-01-15T08:00:00Z"},
    "progress": progress(attempt=3),
}


def test_a_status_that_is_known_is_read_whole() -> None:
    assert read_status(KNOWN).model_dump(by_alias=True, exclude_unset=True, mode="json") == KNOWN
    assert read_status({}) == RunStatus()


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"somethingNew": {"a": 1}}, {"somethingNew"}),
        ({"phase": "Dreaming"}, {"phase"}),
        ({"attempt": "three"}, {"attempt"}),
        ({"attempt": None}, {"attempt"}),
        ({"clock": {"waitingFor": "godot", "since": "x"}}, {"clock"}),
        ({"clock": []}, {"clock"}),
        ({"recent": [{"iteration": 1, "new": 2}] * 2, "extra": 1}, {"extra"}),
        ({"progress": {"attempt": 3}}, {"progress"}),
    ],
)
def test_what_is_not_known_is_left_out_and_the_rest_kept(change: dict[str, Any], lost: set[str]) -> None:
    found = read_status(KNOWN | change).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert found.keys() == (KNOWN | change).keys() - lost
    for key in KNOWN.keys() - change.keys():
        assert found[key] == KNOWN[key]


def test_a_condition_that_is_not_known_takes_no_other_with_it() -> None:
    strange = [{"type": "Odd"}, {**condition("Failed", "True", "Diverged"), "severity": "high"}, "nonsense"]
    found = read_status({"conditions": strange}).conditions
    assert [each.type for each in found] == ["Failed"]
    assert is_true(found, "Failed") is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [str(info.alias) for info in RunStatus.model_fields.values()]


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(status=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_no_status_keeps_a_run_from_being_planned(status: dict[str, Any]) -> None:
    done = plan_alone(observed(run(status=status), job(1, ready=1), deployment(1)))
    assert done.status is not None
    assert RunStatus.model_validate(done.status).observed_generation == 1


def test_what_others_wrote_is_not_written() -> None:
    status = {"progress": progress(), "recent": [{"iteration": 0}], "sampled": 1}
    done = plan(observed(run(status=status)), SETTINGS, NOW)
    assert done.status is not None
    assert not {*OTHERS} & done.status.keys()


def settled() -> Steps:
    steps = Steps()
    steps.settle()
    return steps


def test_a_status_is_written_once() -> None:
    steps = settled()
    assert steps.step().status is None
    # What nobody here knows of, others may write; what is ours is put right.
    steps.report(unheardOf=1)
    assert steps.step().status is None
    steps.report(restarts="none")
    assert steps.step().status is not None


def test_a_new_generation_is_observed_everywhere() -> None:
    steps = settled()
    steps.edit({"optimizer": {"learningRate": 1e-5}})
    steps.settle()
    assert steps.status()["observedGeneration"] == 2
    assert {each["observedGeneration"] for each in steps.status()["conditions"]} == {2}


def test_the_largest_status_is_small() -> None:
    steps = settled()
    steps.replace_job(1, failed="x" * 5000)
    steps.settle()
    laggards = [f"demo-sampler-7d9f8b6c5d-{n:05}" for n in range(8)]
    versions = [{"policy": 10**5 + n, "samplers": 100} for n in range(16)]
    steps.report(
        progress=progress(samplerVersions=versions, laggards=laggards, reward=0.123456, tokensPerSecond=123456.0),
        recent=[{"iteration": 10**5, "reward": 0.123456, "accuracy": 0.123456, "kl": 0.123456, "seconds": 123456.0}]
        * 5,
    )
    steps.settle()
    assert len(json.dumps(steps.run)) < 10_000


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"em": {"iterations": 0}}, "spec.em.iterations"),
        ({"sampler": {"topP": 0.9}, "objective": {"preset": "grpo"}}, "spec"),
        ({"unknown": 1}, "spec.unknown"),
        ({"task": {"name": "dataset"}}, "spec.task"),
    ],
)
def test_an_invalid_spec_is_said_and_changes_nothing_else(spec: dict[str, Any], field: str) -> None:
    steps = settled()
    before = copy.deepcopy(steps.children)
    steps.edit(spec)
    done = steps.step()
    assert (done.apply, done.create, done.delete, done.requeue_after) == ((), (), (), None)
    assert steps.said("Accepted") == steps.said("Ready") == ("False", "InvalidSpec")
    message = next(each["message"] for each in steps.status()["conditions"] if each["type"] == "Accepted")
    assert message.startswith(f"{field}: ")
    assert [event.reason for event in done.events] == ["InvalidSpec"]
    assert steps.status()["attempt"] == 1
    assert steps.children == before
    assert steps.step().status is None


def test_a_spec_that_is_valid_again_is_accepted() -> None:
    steps = settled()
    steps.edit({"em": {"iterations": 0}})
    steps.settle()
    steps.edit({"em": {"iterations": 2}})
    steps.settle()
    assert steps.said("Accepted") == ("True", "Accepted")
    assert steps.said("Ready") == ("False", "Starting")


@pytest.mark.parametrize(
    "metadata", [{"name": "Has.Dots"}, {"name": "x" * 60}, {"deletionTimestamp": "2027-01-15T08:00:00Z"}]
)
def test_runs_that_are_not_to_be_made(metadata: dict[str, Any]) -> None:
    done = plan(observed(run(**metadata)), SETTINGS, NOW)
    assert (done.apply, done.create, done.delete) == ((), (), ())
    assert (done.status is None) == ("deletionTimestamp" in metadata)


def test_runs_of_other_controllers_are_left_alone() -> None:
    foreign = plan(observed(run({"managedBy": "kueue.x-k8s.io/multikueue"})), SETTINGS, NOW)
    assert foreign == plan(observed(run({"managedBy": "else", "em": {"iterations": -1}})), SETTINGS, NOW)
    assert (foreign.status, foreign.apply, foreign.requeue_after) == (None, (), None)


@pytest.mark.parametrize(
    ("child", "status", "phase"),
    [
        (job(1), {"attempt": 1}, "Starting"),
        (job(2), {"attempt": 2, "judgedAttempt": 1}, "Restarting"),
        (
            job(1, failed="x"),
            {"attempt": 1, "nextAttemptTime": "2027-01-15T08:01:00Z", "judgedAttempt": 1},
            "Restarting",
        ),
        (job(1, suspend=True), {"attempt": 1}, "Queued"),
        (job(1, ready=1), {"attempt": 1}, "Starting"),
        (job(1, ready=1), {"attempt": 1, "progress": progress(phase="starting")}, "Starting"),
        (job(1, ready=1), {"attempt": 1, "progress": progress(phase="sampling")}, "Sampling"),
        (job(1, ready=1), {"attempt": 1, "progress": progress(phase="learning")}, "Learning"),
        (job(1, ready=1), {"attempt": 1, "progress": progress(phase="publishing")}, "Learning"),
        (job(1, ready=1), {"attempt": 1, "progress": progress(phase="evaluating")}, "Evaluating"),
        (job(1, ready=1), {"attempt": 1, "progress": progress(phase="done")}, "Evaluating"),
    ],
)
def test_phases(child: Any, status: dict[str, Any], phase: str) -> None:
    done = plan(observed(run(status=status), child), SETTINGS, NOW)
    assert done.status is not None
    assert done.status["phase"] == phase
    # The phase that was written is no input.
    other = plan(observed(run(status=status | {"phase": "Failed"}), child), SETTINGS, NOW)
    assert other.status == done.status
