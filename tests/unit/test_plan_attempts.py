"""Ends of attempts: what they mean, what they cost, and when the next one starts."""

from typing import Any

import pytest
from plan_samples import NOW, Steps, diagnosis, job, learner_pod, pod, progress, refused_pod, situation

from empg.api.lifecycle import RestartsSpec
from empg_operator import names
from empg_operator.plan.attempts import Tally, backoff, end, obsolete, start, tally
from empg_operator.plan.jobs import Ended
from empg_operator.plan.times import stamp

RESTARTS = {"restarts": {"backoffSeconds": 10, "maxBackoffSeconds": 60, "limit": 3}}


@pytest.mark.parametrize(
    ("rule", "alternate", "meaning"),
    [
        (0, False, "InvalidSpec"),
        (1, False, "Diverged"),
        (2, False, "Evicted"),
        (3, False, "Retry"),
        (4, True, "Waiting"),
        (4, False, "Crashed"),
        (5, False, "Crashed"),
        (None, False, "Crashed"),
    ],
)
def test_what_a_rule_means(rule: int | None, alternate: bool, meaning: str) -> None:
    assert end(Ended(complete=False, rule=rule), alternate) == meaning


def test_a_complete_job_is_no_failure() -> None:
    assert end(Ended(complete=True), alternate=False) == "Complete"


@pytest.mark.parametrize(
    ("message", "reason", "rule"),
    [
        ("Container learner for pod a/b-0 failed with exit code 65 matching FailJob rule at index 1", None, 1),
        ("Pod a/b-0 has condition DisruptionTarget matching FailJob rule at index 2", None, 2),
        ("Job has reached the specified backoff limit", "BackoffLimitExceeded", None),
        ("some pod said: rule at index 0", "BackoffLimitExceeded", None),
        ("", None, None),
    ],
)
def test_the_rule_is_read_from_the_condition(message: str, reason: str | None, rule: int | None) -> None:
    failed = dict(job(1))
    said = {"type": "Failed", "status": "True", "reason": reason or "PodFailurePolicy", "message": message}
    failed["status"] = {"conditions": [said]}
    assert situation(failed).jobs[0].ended == Ended(complete=False, rule=rule, message=message)


@pytest.mark.parametrize(("ends", "seconds"), [(0, 0), (1, 10), (2, 20), (3, 40), (4, 60), (10_000, 60)])
def test_the_backoff_doubles_up_to_its_bound(ends: int, seconds: float) -> None:
    assert backoff(RestartsSpec(backoff_seconds=10, max_backoff_seconds=60), ends) == seconds


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [
        # A crash is charged; fruitless ones double the wait, progress starts it anew.
        ({"failed": "x"}, {}, (1, 1, 1, 0, 10)),
        ({"failed": "x"}, {"restarts": 1, "fruitlessRestarts": 1}, (1, 2, 2, 0, 20)),
        ({"failed": "x"}, {"restarts": 2, "fruitlessRestarts": 2, "progress": progress(iteration=1)}, (1, 3, 1, 0, 10)),
        (
            {"failed": "x"},
            {"fruitlessRestarts": 1, "attemptIteration": 1, "progress": progress(iteration=1)},
            (1, 1, 2, 0, 20),
        ),
        # An eviction is not, and is waited for only when many bring nothing.
        ({"rule": 2}, {}, (1, 0, 0, 1, None)),
        ({"rule": 3}, {"unchargedEnds": 1}, (1, 0, 0, 2, None)),
        ({"rule": 2}, {"unchargedEnds": 2}, (1, 0, 0, 3, 10)),
        ({"rule": 2}, {"unchargedEnds": 4}, (1, 0, 0, 5, 40)),
        ({"rule": 2}, {"unchargedEnds": 9, "progress": progress(iteration=2)}, (1, 0, 0, 1, None)),
        ({"complete": True}, {}, (1, 0, 0, 0, None)),
    ],
)
def test_what_an_end_costs(state: dict[str, Any], status: dict[str, Any], expected: tuple[Any, ...]) -> None:
    counted = tally(situation(job(1, **state), spec=RESTARTS, status={"attempt": 1, **status}), over=False)
    wait = None if counted.not_before is None else counted.not_before - NOW
    assert (counted.judged, counted.restarts, counted.fruitless, counted.uncharged, wait) == expected


LEAVING = {"deletionTimestamp": stamp(NOW)}


def initialized(exit_code: int) -> Any:
    """A pod whose init container ended."""
    found = learner_pod(1)
    ended = {"terminated": {"exitCode": exit_code}}
    found["status"]["initContainerStatuses"] = [{"name": "first", "state": ended}]
    return found


@pytest.mark.parametrize(
    ("state", "pods", "expected"),
    [
        ({"failed": "x"}, [refused_pod()], "RefusedByNode"),
        *(({"failed": "x"}, [refused_pod(why)], "RefusedByNode") for why in ("NodeAffinity", "OutOfcpu", "Preempting")),
        # The others of a gang are ended by the controller of Jobs, however they take it.
        ({"failed": "x"}, [refused_pod(), learner_pod(1, exit_code=143, **LEAVING)], "RefusedByNode"),
        ({"failed": "x"}, [refused_pod(), learner_pod(1, exit_code=0)], "RefusedByNode"),
        ({"failed": "x"}, [refused_pod(), learner_pod(1, exit_code=1)], "Crashed"),
        ({"failed": "x"}, [refused_pod(), initialized(1)], "Crashed"),
        ({"failed": "x"}, [refused_pod(), initialized(0)], "RefusedByNode"),
        ({"failed": "x"}, [refused_pod("DeadlineExceeded", exit_code=137)], "Crashed"),
        ({"failed": "x"}, [learner_pod()], "Crashed"),
        ({"failed": "x"}, [refused_pod(attempt=2)], "Crashed"),
        ({"failed": "x"}, [{**pod("s", "sampler"), "status": refused_pod()["status"]}], "Crashed"),
        ({"failed": "x"}, [], "Crashed"),
        ({"rule": 0}, [refused_pod()], "InvalidSpec"),
        ({"rule": 2}, [refused_pod()], "Evicted"),
        ({"complete": True}, [refused_pod()], "Complete"),
    ],
)
def test_a_pod_that_a_node_refused_is_no_crash(state: dict[str, Any], pods: list[Any], expected: str) -> None:
    seen = situation(job(1, **state), status={"attempt": 1}, diagnosis=diagnosis(*pods))
    counted = tally(seen, over=False)
    assert counted.last == expected
    assert counted.restarts == counted.fruitless == (expected == "Crashed")
    assert counted.uncharged == (expected in ("RefusedByNode", "Evicted"))


@pytest.mark.parametrize(("before", "wait"), [(0, None), (2, 10), (4, 40)])
def test_refusals_in_a_row_are_waited_for(before: int, wait: float | None) -> None:
    status = {"attempt": 1, "unchargedEnds": before}
    seen = situation(job(1, failed="x"), spec=RESTARTS, status=status, diagnosis=diagnosis(refused_pod()))
    counted = tally(seen, over=False)
    assert (counted.restarts, counted.uncharged) == (0, before + 1)
    assert counted.not_before == (None if wait is None else NOW + wait)


def test_what_a_look_shows_of_an_end_is_written_down_before_the_next_attempt_starts() -> None:
    look = diagnosis(refused_pod())
    seen = situation(job(1, failed="x"), status={"attempt": 1}, diagnosis=look)
    assert start(seen, tally(seen, over=False), None, cleared=True) is None
    assert obsolete(seen, stop=False) == ()
    for kept in (look, None):
        written = situation(job(1, failed="x"), status={"attempt": 1, "judgedAttempt": 1}, diagnosis=kept)
        assert start(written, tally(written, over=False), None, cleared=True) == 2
        assert obsolete(written, stop=False) == (), "its pods can be looked at"


def test_an_end_is_judged_once() -> None:
    status = {"attempt": 1, "judgedAttempt": 1, "restarts": 1}
    counted = tally(situation(job(1, failed="x"), status=status), over=False)
    assert (counted.restarts, counted.ends) == (1, ())


def test_ends_that_nobody_saw_in_time_are_all_judged() -> None:
    counted = tally(situation(job(1, failed="x"), job(2, rule=2), job(3), status={"attempt": 2}), over=False)
    assert [judged.end for judged in counted.ends] == ["Crashed", "Evicted"]
    assert (counted.judged, counted.restarts) == (2, 1)


def test_a_live_job_has_no_end() -> None:
    assert tally(situation(job(1, ready=1), status={"attempt": 1}), over=False) == Tally(0, 0, 0, 0, None)


@pytest.mark.parametrize(
    ("age", "spec", "judged", "unseen"),
    [(10, {}, 0, NOW + 20), (30, {}, 1, None), (10, {"suspend": True}, 1, None)],
)
def test_a_job_that_is_not_there(age: float, spec: dict[str, Any], judged: int, unseen: float | None) -> None:
    """It may not have been seen yet; later, its user deleted it."""
    status = {"attempt": 1, "attemptStartTime": stamp(NOW - age)}
    absent = [("Job", "demo-learner-1")] if judged else []
    counted = tally(situation(status=status, spec=spec, absent=absent), over=False)
    assert (counted.judged, counted.unseen_until, counted.restarts) == (judged, unseen, 0)
    assert (counted.last == "Vanished") == (judged == 1 and not spec)


@pytest.mark.parametrize(
    ("children", "status", "over", "missing"),
    [
        ([], {"attempt": 1}, False, "demo-learner-1"),
        ([], {"attempt": 1, "attemptStartTime": stamp(NOW - 30)}, False, "demo-learner-1"),
        ([], {"attempt": 1, "attemptStartTime": stamp(NOW - 29)}, False, None),
        ([], {"attempt": 1, "attemptStartTime": stamp(NOW)}, True, "demo-learner-1"),
        ([], {"attempt": 1, "judgedAttempt": 1}, False, None),
        ([job(2)], {"attempt": 1}, False, "demo-learner-1"),
        ([job(1, failed="x")], {"attempt": 2}, False, "demo-learner-2"),
    ],
)
def test_a_job_is_asked_for_by_name_before_it_counts_as_gone(
    children: list[Any], status: dict[str, Any], over: bool, missing: str | None
) -> None:
    counted = tally(situation(*children, status=status), over=over)
    assert counted.missing == missing
    assert counted.last != "Vanished"


@pytest.mark.parametrize("suspend", [False, True])
@pytest.mark.parametrize("lost", [[names.RUN_LABEL], [names.MANAGED_BY_LABEL], list(names.job_labels("demo", 1))])
def test_a_job_that_lost_its_labels_is_kept_and_gets_them_back(lost: list[str], suspend: bool) -> None:
    steps = Steps()
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.now += 100
    labels = steps.job(1)["metadata"]["labels"]
    for label in lost:
        del labels[label]
    if names.RUN_LABEL in lost:  # what lists go by
        steps.hidden["Job", "demo-learner-1"] = steps.children.pop(("Job", "demo-learner-1"))
    if suspend:
        steps.edit({"suspend": True})
        steps.settle()
        assert (steps.jobs(), steps.hidden) == ([], {}), "it is found and ended"
        return
    steps.settle()
    assert steps.jobs() == ["demo-learner-1"]
    assert steps.job(1)["metadata"]["labels"].items() >= names.job_labels("demo", 1).items()
    assert steps.job(1)["spec"], "nothing else of it is touched"
    assert (steps.status()["attempt"], steps.status()["judgedAttempt"]) == (1, 0)


def test_a_job_that_was_deleted_is_followed_by_another() -> None:
    steps = Steps()
    steps.settle()
    steps.now += 100
    del steps.children["Job", "demo-learner-1"]
    steps.settle()
    assert steps.jobs() == ["demo-learner-2"]
    assert steps.status()["restarts"] == 0


def test_what_becomes_of_the_job_of_a_run_that_has_ended_costs_nothing() -> None:
    assert tally(situation(job(1, failed="x"), status={"attempt": 1}), over=True) == Tally(1, 0, 0, 0, None)


def test_a_status_of_nonsense_is_counted_in_no_time() -> None:
    absent = [("Job", f"demo-learner-{10**12}")]
    seen = situation(job(1, failed="x"), status={"attempt": 10**12}, absent=absent)
    assert tally(seen, over=False).judged == 10**12


@pytest.mark.parametrize(
    ("children", "status", "started"),
    [
        ([], {}, 1),
        ([job(1)], {"attempt": 1}, None),
        ([job(1, failed="x")], {"attempt": 1, "judgedAttempt": 1}, 2),
        ([job(4, failed="x")], {"attempt": 1}, 5),
        ([], {"attempt": 2, "judgedAttempt": 2, "progress": progress(attempt=3)}, 4),
    ],
)
def test_attempts_have_new_numbers(children: list[Any], status: dict[str, Any], started: int | None) -> None:
    seen = situation(*children, status=status)
    assert start(seen, tally(seen, over=False), None, cleared=True) == started


def test_an_attempt_waits_for_its_time_its_devices_and_a_certain_end() -> None:
    seen = situation()
    free = Tally(0, 0, 0, 0, None)
    assert start(seen, free, NOW + 1, cleared=True) is None
    assert start(seen, free, NOW, cleared=True) == 1
    assert start(seen, free, None, cleared=False) is None
    assert start(seen, Tally(0, 0, 0, 0, None, unseen_until=NOW + 9), None, cleared=True) is None


@pytest.mark.parametrize(
    ("children", "judged", "stop", "deleted"),
    [
        ([job(1)], 0, False, []),
        ([job(1)], 0, True, [1]),
        # Given up, or beside a newer one.
        ([job(1)], 1, False, [1]),
        ([job(1), job(2)], 0, False, [1]),
        # Of the ended ones whose end is written down, the newest stays.
        ([job(1, failed="x"), job(2)], 1, False, []),
        ([job(1, failed="x"), job(2, failed="x"), job(3)], 2, False, [1]),
        ([job(1, failed="x"), job(2, failed="x"), job(3)], 1, False, []),
        ([job(1, failed="x"), job(2, complete=True)], 2, True, [1]),
    ],
)
def test_jobs_that_are_deleted(children: list[Any], judged: int, stop: bool, deleted: list[int]) -> None:
    status = {"attempt": len(children), "judgedAttempt": judged}
    assert [each.attempt for each in obsolete(situation(*children, status=status), stop=stop)] == deleted


def test_a_job_is_deleted_once() -> None:
    going = {**job(1), "metadata": {**job(1)["metadata"], "deletionTimestamp": stamp(NOW)}}
    seen = situation(going, status={"attempt": 1}, spec={"suspend": True})
    assert obsolete(seen, stop=True) == ()
    assert start(seen, tally(seen, over=False), None, cleared=True) is None, "it is still there"


def test_jobs_of_other_names_are_none_of_ours() -> None:
    strange = {**job(1), "metadata": {"name": "demo-learner-x", "uid": "x"}}
    older = {**job(1), "metadata": {"name": "demo-learner-01", "uid": "y"}}
    assert situation(strange, older).jobs == ()
