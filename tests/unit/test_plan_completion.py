"""How runs end, and whether they go on after that."""

from typing import Any

import pytest
from plan_samples import NOW, Steps, condition, job, progress, situation

from empg_operator.causes import Cause
from empg_operator.plan.attempts import tally
from empg_operator.plan.completion import Outcome, children_expire, reached, reopened, written
from empg_operator.plan.times import stamp

DONE = {"attempt": 1, "judgedAttempt": 1, "progress": progress(iteration=3, phase="done")}
COMPLETE = {**DONE, "conditions": [condition("Complete", "True", "Trained")], "completionTime": stamp(NOW)}


@pytest.mark.parametrize(
    ("state", "restarts", "kind", "reason"),
    [
        ({"complete": True}, 0, "Complete", "Trained"),
        ({"rule": 0}, 0, "Failed", "InvalidSpec"),
        ({"rule": 1}, 0, "Failed", "Diverged"),
        ({"failed": "x"}, 10, "Failed", "RestartLimitExceeded"),
        ({"failed": "x"}, 9, None, None),
        ({"rule": 2}, 10, None, None),
        ({"rule": 3}, 10, None, None),
    ],
)
def test_the_end_of_an_attempt_may_be_the_end_of_the_run(
    state: dict[str, Any], restarts: int, kind: str | None, reason: str | None
) -> None:
    seen = situation(job(1, **state), status={"attempt": 1, "restarts": restarts, "fruitlessRestarts": restarts})
    found = reached(seen, tally(seen, over=False), None)
    assert (found and found.kind, found and found.reason) == (kind, reason)


def test_it_tells_of_the_iterations_that_were_made() -> None:
    """More than the manifest asks for by now, if the learner heard late of an edit."""
    done = progress(iteration=5, iterations=3, phase="done", policyVersion=5)
    seen = situation(job(1, complete=True), status={"attempt": 1, "progress": done})
    found = reached(seen, tally(seen, over=False), None)
    assert found == Outcome("Complete", "Trained", "5 iterations are done; the newest policy is 5.")


def test_a_failure_has_the_programs_last_words() -> None:
    seen = situation(job(1, rule=0), status={"attempt": 1})
    words = Cause("InvalidSpec", "task.source: no such data set")
    found = reached(seen, tally(seen, over=False), words)
    assert found == Outcome("Failed", "InvalidSpec", "task.source: no such data set")
    unheard = reached(seen, tally(seen, over=False), None)
    assert unheard is not None
    assert "rule at index 0" in unheard.message


def test_a_limit_of_no_restarts_fails_at_the_first_crash() -> None:
    seen = situation(job(1, failed="x"), spec={"restarts": {"limit": 0}}, status={"attempt": 1})
    found = reached(seen, tally(seen, over=False), None)
    assert found is not None
    assert found.reason == "RestartLimitExceeded"


@pytest.mark.parametrize(
    ("status", "generation", "iterations", "kind"),
    [
        ({}, 1, 3, None),
        (COMPLETE, 1, 3, "Complete"),
        # Raised, and in an edit that came after the end.
        (COMPLETE, 2, 4, None),
        (COMPLETE, 2, 3, "Complete"),
        (COMPLETE, 2, 2, "Complete"),
        # A report that got lost must not start the run over and over.
        (COMPLETE | {"progress": progress(iteration=1, iterations=2)}, 1, 3, "Complete"),
        ({key: value for key, value in COMPLETE.items() if key != "progress"}, 2, 4, "Complete"),
        # A failure is for ever.
        (DONE | {"conditions": [condition("Failed", "True", "Diverged")]}, 2, 9, "Failed"),
    ],
)
def test_an_end_that_is_written_down(
    status: dict[str, Any], generation: int, iterations: int, kind: str | None
) -> None:
    seen = situation(status=status, generation=generation, spec={"em": {"iterations": iterations}})
    found = written(seen)
    assert (found and found.kind) == kind
    assert reopened(seen) == (kind is None and bool(status))


def test_iterations_raised_while_the_learner_was_about_to_exit_are_not_lost() -> None:
    late = situation(job(1, complete=True), spec={"em": {"iterations": 5}}, status={**DONE, "judgedAttempt": 0})
    assert reached(late, tally(late, over=False), None) is None
    silent = situation(job(1, complete=True), spec={"em": {"iterations": 5}}, status={"attempt": 1})
    found = reached(silent, tally(silent, over=False), None)
    assert found is not None
    assert found.kind == "Complete"


@pytest.mark.parametrize(
    ("ttl", "completed", "expected"), [(None, NOW, None), (60, NOW, NOW + 60), (0, NOW, NOW), (60, None, None)]
)
def test_when_children_go(ttl: int | None, completed: float | None, expected: float | None) -> None:
    status = {} if completed is None else {"completionTime": stamp(completed)}
    assert children_expire(situation(spec={"ttlSecondsAfterFinished": ttl}, status=status)) == expected


def finished(spec: dict[str, Any]) -> Steps:
    steps = Steps(spec)
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.report(progress=progress(iteration=3, phase="done"))
    steps.settle()
    steps.replace_job(1, complete=True)
    steps.settle()
    return steps


def test_what_follows_waits_until_an_end_or_the_going_on_is_written() -> None:
    """Between the two the operator may die, and reports may change what it would decide anew."""
    steps = Steps()
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.report(progress=progress(iteration=3, phase="done"))
    steps.settle()
    steps.replace_job(1, complete=True)
    ended = steps.step()
    steps.settle()
    steps.edit({"em": {"iterations": 4}, "deadlines": {"pendingSeconds": 50}})
    reopened = steps.step()
    steps.settle()
    steps.now += 50
    late = steps.step()
    for done in (ended, reopened, late):
        assert done.status is not None
        assert (*done.apply, *done.create, *done.delete) == ()
        assert done.requeue_after == 0
    steps.settle()
    assert steps.said("Failed") == ("True", "PendingDeadlineExceeded")


def test_all_children_but_the_claim_go_once() -> None:
    steps = finished({"ttlSecondsAfterFinished": 60})
    assert steps.settle().requeue_after == 60
    assert steps.jobs()
    steps.now = NOW + 60
    gone = steps.step()
    assert {each.kind for each in gone.delete} >= {
        "Job",
        "Deployment",
        "ConfigMap",
        "ServiceAccount",
        "Service",
        "Role",
    }
    assert list(steps.children) == [("PersistentVolumeClaim", "demo-data")]
    assert steps.settle().requeue_after is None
    steps.now = NOW + 6000
    last = steps.settle()
    assert last.requeue_after is None
    assert (steps.status()["phase"], list(steps.children)) == ("Complete", [("PersistentVolumeClaim", "demo-data")])


def test_a_run_without_children_goes_on_when_its_iterations_are_raised() -> None:
    steps = finished({"ttlSecondsAfterFinished": 0})
    steps.settle()
    assert steps.jobs() == []
    steps.edit({"em": {"iterations": 9}})
    steps.settle()
    assert steps.jobs() == ["demo-learner-2"]


def test_a_complete_run_is_repaired_until_then() -> None:
    steps = finished({})
    del steps.children["ConfigMap", "demo-run"]
    steps.settle()
    assert ("ConfigMap", "demo-run") in steps.children
    del steps.children["Deployment", "demo-sampler"]
    steps.settle()
    assert ("Deployment", "demo-sampler") not in steps.children, "nobody needs it any more"


def test_a_failed_run_keeps_its_last_job() -> None:
    steps = Steps()
    steps.settle()
    steps.replace_job(1, rule=1)
    steps.settle()
    assert (steps.status()["phase"], steps.said("Failed")) == ("Failed", ("True", "Diverged"))
    assert steps.jobs() == ["demo-learner-1"]
    assert steps.events()[-2:] == ["LearnerFailed", "Failed"]
    steps.edit({"em": {"iterations": 9}, "suspend": True})
    steps.settle()
    assert steps.status()["phase"] == "Failed"
    assert steps.said("Suspended") == ("False", "NotSuspended")
