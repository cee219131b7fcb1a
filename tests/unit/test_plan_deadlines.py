"""What a run waits for, since when, and every deadline with its reason."""

from typing import Any

import pytest
from plan_samples import NOW, Steps, deployment, diagnosis, job, pod, progress, situation

from empg.api.status import Clock
from empg_operator.plan.attempts import tally
from empg_operator.plan.deadlines import clock, deadlines, interrupted, passed
from empg_operator.plan.situation import Situation
from empg_operator.plan.suspension import Spent
from empg_operator.plan.times import stamp

OLD = NOW - 50


def waits(seen: Situation, turn: Any = "learner", *, running: bool = True) -> tuple[str, int, float]:
    found = clock(seen, tally(seen, over=False), turn, running=running)
    return found.waiting_for, found.iteration, {stamp(NOW): NOW, stamp(OLD): OLD}[found.since]


def before(wait: str, iteration: int = 0) -> dict[str, Any]:
    return {"attempt": 1, "clock": {"waitingFor": wait, "iteration": iteration, "since": stamp(OLD)}}


def ending(attempt: int = 1) -> Any:
    target = {"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy"}
    return {**job(attempt), "status": {"ready": 0, "conditions": [target]}}


@pytest.mark.parametrize(
    ("child", "status", "expected"),
    [
        (job(1), {"attempt": 1}, ("pods", 0, NOW)),
        (job(1), before("pods"), ("pods", 0, OLD)),
        (job(1, pods=2, ready=1), before("pods"), ("pods", 0, OLD)),
        (job(1, ready=1), before("pods"), ("nothing", 0, NOW)),
        (job(1, ready=1), before("pods") | {"progress": progress(phase="starting")}, ("nothing", 0, NOW)),
        (job(1, ready=1), before("pods") | {"progress": progress()}, ("sampling", 0, NOW)),
        (job(1, ready=1), before("sampling") | {"progress": progress()}, ("sampling", 0, OLD)),
        (job(1, ready=1), before("sampling") | {"progress": progress(iteration=1)}, ("sampling", 1, NOW)),
        (job(1, ready=1), before("sampling") | {"progress": progress(phase="learning")}, ("learning", 0, NOW)),
        (job(1, ready=1), before("learning") | {"progress": progress(phase="publishing")}, ("learning", 0, OLD)),
        (
            job(1, ready=1),
            before("learning") | {"progress": progress(iteration=2, phase="evaluating")},
            ("nothing", 0, NOW),
        ),
        # What an older attempt reported says nothing of this one.
        (job(2, ready=1), before("pods") | {"progress": progress(attempt=1)}, ("nothing", 0, NOW)),
        # A job that is about to end says nothing new.
        (ending(), before("learning", 3), ("learning", 3, OLD)),
        # Evictions do not stretch the wait for pods; after a crash it starts anew with the next attempt.
        (job(1, rule=2), before("pods"), ("pods", 0, OLD)),
        (job(1, failed="x"), before("pods"), ("nothing", 0, NOW)),
        (job(1, failed="x"), before("learning"), ("nothing", 0, NOW)),
    ],
)
def test_what_is_waited_for(child: Any, status: dict[str, Any], expected: tuple[str, int, float]) -> None:
    assert waits(situation(child, deployment(2, ready=1), status=status)) == expected


def crashed(name: str) -> Any:
    again = pod(name, "sampler")
    last = {"terminated": {"exitCode": 1, "reason": "Error"}}
    again["status"]["containerStatuses"] = [{"name": "sampler", "ready": False, "lastState": last, "restartCount": 1}]
    return again


STARTS, PENDING = pod("demo-sampler-a", "sampler"), pod("demo-sampler-a", "sampler", phase="Pending")
LEAVING = pod("demo-sampler-c", "sampler", deletionTimestamp=stamp(NOW - 9999))


@pytest.mark.parametrize(
    ("samplers", "pods", "wait", "phase", "expected"),
    [
        # Its pods have just begun to run, and the first of the samplers are about to be made.
        (deployment(0), None, "pods", "starting", ("pods", OLD)),
        (deployment(0), [], "pods", None, ("pods", OLD)),
        # Without a look nobody knows whether those that are there have their devices: as before.
        (deployment(2), None, "pods", "sampling", ("pods", OLD)),
        (deployment(2), None, "sampling", "sampling", ("sampling", OLD)),
        (deployment(2), [PENDING], "pods", "starting", ("pods", OLD)),
        (deployment(2), [PENDING], "sampling", "sampling", ("pods", NOW)),
        (deployment(2), [PENDING], "nothing", "evaluating", ("pods", NOW)),
        (deployment(2), [crashed("demo-sampler-a")], "sampling", "sampling", ("pods", NOW)),
        # On a node that is lost nobody ends it.
        (deployment(2), [LEAVING, PENDING], "sampling", "sampling", ("pods", NOW)),
        (deployment(2), [PENDING, pod("demo-sampler-b", "sampler")], "pods", "sampling", ("sampling", NOW)),
        (deployment(2), [STARTS], "pods", "sampling", ("sampling", NOW)),
        (deployment(2), [STARTS], "pods", "starting", ("nothing", NOW)),
        (deployment(2, ready=1), [PENDING], "pods", "sampling", ("sampling", NOW)),
        # Who learns needs none.
        (deployment(2), [PENDING], "learning", "learning", ("learning", OLD)),
        (deployment(2), [PENDING], "learning", "publishing", ("learning", OLD)),
    ],
)
def test_a_run_without_a_sampler_waits_for_pods(
    samplers: Any, pods: list[Any] | None, wait: str, phase: str | None, expected: tuple[str, float]
) -> None:
    status = before(wait) | ({} if phase is None else {"progress": progress(phase=phase)})
    seen = situation(job(1, ready=1), samplers, status=status, diagnosis=None if pods is None else diagnosis(*pods))
    assert waits(seen) == (expected[0], 0, expected[1])


def test_who_wants_no_sampler_waits_for_none() -> None:
    spec = {"sampler": {"replicas": 0}}
    status = before("sampling") | {"progress": progress()}
    assert waits(situation(job(1, ready=1), deployment(0), spec=spec, status=status)) == ("sampling", 0, OLD)


@pytest.mark.parametrize(
    ("now", "took", "left"),
    [
        # The attempt that was interrupted in it goes on with it, the next one too; or with what came before it.
        ({}, {("sampling", 3): 7.0}, {}),
        ({"phase": "starting"}, {}, {("sampling", 3): 7.0}),
        ({"phase": "starting", "iteration": 2}, {}, {("sampling", 3): 7.0}),
        ({"phase": "learning", "iteration": 2}, {("learning", 2): 0.0}, {("sampling", 3): 7.0}),
        # Whoever is further has finished it.
        ({"phase": "learning"}, {("learning", 3): 0.0}, {}),
        ({"iteration": 4}, {("sampling", 4): 0.0}, {}),
        ({"phase": "evaluating", "iteration": 4}, {}, {}),
        # Samplers that take turns evaluate the last policy as if in a further E-step.
        ({"phase": "evaluating"}, {}, {("sampling", 3): 7.0}),
        ({"phase": "done"}, {}, {}),
    ],
)
def test_a_step_that_was_interrupted_goes_on_with_the_time_that_it_took(
    now: dict[str, Any], took: dict[Any, float], left: dict[Any, float]
) -> None:
    status = {
        "attempt": 2,
        "clock": {"waitingFor": "pods", "iteration": 0, "since": stamp(OLD)},
        "interrupted": [{"waitingFor": "sampling", "iteration": 3, "seconds": 7.0}],
        "progress": progress(attempt=2, **({"iteration": 3} | now)),
    }
    seen = situation(job(2, ready=1), deployment(2, ready=2), status=status)
    found = clock(seen, tally(seen, over=False), "learner", running=True)
    if took:
        assert {(found.waiting_for, found.iteration): found.seconds} == took
    assert {(step.waiting_for, step.iteration): step.seconds for step in interrupted(seen, found) or ()} == left


def test_a_step_that_is_interrupted_keeps_the_time_of_all_attempts() -> None:
    running = {"waitingFor": "sampling", "iteration": 0, "since": stamp(OLD), "seconds": 7.0}
    seen = situation(job(1, rule=2), status={"attempt": 1, "clock": running, "progress": progress()})
    kept = interrupted(seen, clock(seen, tally(seen, over=False), "learner", running=True)) or ()
    assert [(step.iteration, step.seconds) for step in kept] == [(0, 57.0)]


def test_the_samplers_turn_is_an_e_step() -> None:
    status = before("nothing") | {"judgedAttempt": 1, "progress": progress(iteration=2)}
    seen = situation(job(1, rule=4), spec={"sampler": {"rollStrategy": "Alternate"}}, status=status)
    assert waits(seen, "samplers") == ("sampling", 2, NOW)
    lacking = situation(spec={"sampler": {"rollStrategy": "Alternate"}}, status=status, diagnosis=diagnosis(PENDING))
    assert waits(lacking, "samplers") == ("pods", 2, NOW)


@pytest.mark.parametrize(
    ("wait", "expected"),
    [("learning", ("learning", 1, OLD)), ("pods", ("nothing", 0, NOW)), ("nothing", ("nothing", 0, OLD))],
)
def test_a_learner_that_takes_turns_does_not_sample(wait: str, expected: tuple[str, int, float]) -> None:
    status = before(wait, 1 if wait == "learning" else 0) | {"progress": progress(iteration=2)}
    assert waits(situation(job(1, ready=1), spec={"sampler": {"rollStrategy": "Alternate"}}, status=status)) == expected


@pytest.mark.parametrize(
    ("phase", "expected"),
    [("sampling", "queue"), ("evaluating", "queue"), ("learning", "learning"), ("publishing", "learning")],
)
def test_a_learner_that_works_does_not_wait_in_the_queue_of_the_samplers(phase: str, expected: str) -> None:
    held_back = pod("demo-sampler-a", "sampler", phase="Pending")
    held_back["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
    status = {"attempt": 1, "progress": progress(phase=phase)}
    seen = situation(job(1, ready=1), deployment(2), status=status, diagnosis=diagnosis(held_back))
    assert waits(seen)[0] == expected
    assert waits(seen, running=False)[0] == "nothing"


@pytest.mark.parametrize(
    ("children", "iteration", "seconds"),
    [
        # A queue took the learner, or a sampler ran that was never ready.
        ([job(1)], 3, 7.0),
        ([job(1, ready=1), deployment(2)], 3, 7.0),
        # All ran at one time; an iteration was finished since.
        ([job(1, ready=1), deployment(2, ready=1)], 3, None),
        ([job(1)], 4, 0.0),
    ],
)
def test_a_wait_for_pods_that_was_interrupted_goes_on(
    children: list[Any], iteration: int, seconds: float | None
) -> None:
    kept = [{"waitingFor": "pods", "iteration": 3, "seconds": 7.0}]
    report = progress(phase="starting", iteration=iteration)
    status = before("nothing") | {"interrupted": kept, "progress": report}
    seen = situation(*children, status=status, diagnosis=diagnosis(PENDING))
    found = clock(seen, tally(seen, over=False), "learner", running=True)
    assert (found.seconds if found.waiting_for == "pods" else None) == seconds
    assert interrupted(seen, found) is None


def test_who_returns_looks_before_a_wait_is_too_long() -> None:
    """Samplers that have come meanwhile are not ready yet."""
    steps = Steps({"deadlines": {"pendingSeconds": 100}})
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.pods = [PENDING]
    steps.settle()
    steps.roll_out(ready=0)
    steps.report(progress=progress())
    steps.now = NOW + 60
    steps.settle()
    assert steps.status()["clock"]["waitingFor"] == "pods"
    steps.now = NOW + 5000
    steps.pods = [STARTS]
    steps.settle()
    assert (steps.status()["phase"], steps.status()["clock"]["waitingFor"]) == ("Sampling", "sampling")


@pytest.mark.parametrize("role", ["learner", "sampler"])
def test_pods_that_are_refused_are_waited_for(role: str) -> None:
    steps = Steps({"deadlines": {"pendingSeconds": 2000}})
    steps.refuse = {role: "violates PodSecurity"}
    steps.settle()
    if role == "sampler":
        steps.replace_job(1, ready=1)
        steps.settle()
        assert steps.said("Ready") == ("False", "TemplateRefused")
        steps.now = NOW + 1000
        steps.settle()
        assert "Released" in steps.events(), "the learner does not keep its devices"
    steps.now = NOW + 2000
    steps.settle()
    assert steps.said("Failed") == ("True", "PendingDeadlineExceeded")
    message = next(each["message"] for each in steps.status()["conditions"] if each["type"] == "Failed")
    assert "violates PodSecurity" in message


def test_a_run_that_is_halted_waits_for_nothing() -> None:
    assert waits(situation(job(1), status=before("pods")), running=False) == ("nothing", 0, NOW)


@pytest.mark.parametrize(
    ("wait", "roll", "limits", "reasons"),
    [
        ("pods", None, {"pendingSeconds": 60}, ["PendingDeadlineExceeded"]),
        ("sampling", None, {"samplingSeconds": 60}, ["SamplingDeadlineExceeded"]),
        ("learning", None, {"learningSeconds": 60}, ["LearningDeadlineExceeded"]),
        ("sampling", stamp(NOW), {"rollingSeconds": 60}, ["RollDeadlineExceeded"]),
        ("nothing", None, {"runSeconds": 60}, ["RunDeadlineExceeded"]),
        ("learning", None, {"samplingSeconds": 60, "rollingSeconds": 60}, []),
        (
            "sampling",
            None,
            {"samplingSeconds": 60, "runSeconds": 30},
            ["RunDeadlineExceeded", "SamplingDeadlineExceeded"],
        ),
    ],
)
def test_which_deadlines_run(wait: Any, roll: str | None, limits: dict[str, float], reasons: list[str]) -> None:
    seen = situation(spec={"deadlines": {"pendingSeconds": None, **limits}})
    running = deadlines(seen, Clock(waiting_for=wait, since=stamp(NOW)), Spent(0, stamp(NOW)), roll)
    assert [each.reason for each in running] == reasons
    assert passed(seen, running) is None
    if reasons:
        end = running[0].ends
        assert end == NOW + min(limits.values())
        late = passed(situation(spec={"deadlines": limits}, now=end), running)
        assert late is not None
        assert (late.kind, late.reason) == ("Failed", reasons[0])
        assert f"deadlines.{min(limits, key=lambda name: limits[name])} " in late.message


@pytest.mark.parametrize(
    ("limit", "phase", "reason"),
    [
        ("pendingSeconds", None, "PendingDeadlineExceeded"),
        ("samplingSeconds", "sampling", "SamplingDeadlineExceeded"),
        ("learningSeconds", "learning", "LearningDeadlineExceeded"),
        ("rollingSeconds", "sampling", "RollDeadlineExceeded"),
        ("runSeconds", "evaluating", "RunDeadlineExceeded"),
    ],
)
def test_a_run_that_passes_a_deadline_fails_and_gives_all_back(limit: str, phase: str | None, reason: str) -> None:
    steps = Steps({"deadlines": {limit: 100}})
    steps.settle()
    if phase is not None:
        steps.replace_job(1, ready=1)
        steps.settle()
        steps.roll_out()
        behind = {"samplerVersions": [{"policy": 0, "samplers": 1}], "laggards": ["demo-sampler-a"]}
        steps.report(progress=progress(phase=phase, policyVersion=1, **behind))
    last = steps.settle()
    assert last.requeue_after is not None
    steps.now = NOW + 99
    steps.settle()
    assert steps.status()["phase"] != "Failed"
    steps.now = NOW + 100
    steps.settle()
    assert (steps.status()["phase"], steps.said("Failed")) == ("Failed", ("True", reason))
    assert (steps.jobs(), steps.samplers()) == ([], 0)
    assert steps.events().count("DeadlineExceeded") == 1


def test_time_in_a_queue_does_not_count() -> None:
    steps = Steps({"deadlines": {"runSeconds": 100, "pendingSeconds": 101}, "queueName": "team"})
    steps.settle()
    steps.job(1)["spec"]["suspend"] = True
    steps.settle()
    assert steps.status()["phase"] == "Queued"
    steps.now = NOW + 5000
    steps.settle()
    assert steps.status()["phase"] == "Queued"
    steps.job(1)["spec"]["suspend"] = False
    steps.settle()
    steps.now += 99
    steps.settle()
    assert steps.status()["phase"] == "Starting"
    steps.now += 1
    steps.settle()
    assert steps.said("Failed") == ("True", "RunDeadlineExceeded")


@pytest.mark.parametrize("strategy", ["InPlace", "RollingUpdate"])
@pytest.mark.parametrize("rule", [2, None])
def test_a_restart_of_the_learner_is_no_slow_roll(strategy: str, rule: int | None) -> None:
    """A policy is published, the learner ends before the samplers have it, and its next attempt takes its time."""
    steps = Steps({"deadlines": {"rollingSeconds": 100}, "sampler": {"rollStrategy": strategy}})
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.roll_out()
    steps.settle()
    steps.children["Deployment", "demo-sampler"]["status"]["updatedReplicas"] = 0
    behind = {"samplerVersions": [{"policy": 0, "samplers": 2}], "policyVersion": 1}
    steps.report(progress=progress(**behind))
    steps.settle()
    assert steps.status()["rollStarted"] == stamp(NOW)
    steps.now = NOW + 10
    steps.replace_job(1, **({"failed": "x"} if rule is None else {"rule": rule}))
    steps.settle()
    steps.roll_out()
    steps.now = NOW + 90
    steps.settle()
    steps.now = NOW + 120
    steps.settle()
    assert steps.jobs()[-1] == "demo-learner-2"
    assert steps.status()["phase"] == "Restarting"
    steps.now = NOW + 300
    steps.replace_job(2, ready=1)
    steps.settle()
    # Samplers that still are behind have all the time that they had before; a Deployment tells by itself.
    steps.report(progress=progress(attempt=2, **behind))
    steps.settle()
    assert steps.status().get("rollStarted") == (stamp(NOW + 300) if strategy == "InPlace" else None)
    steps.now = NOW + 399
    steps.settle()
    assert steps.status()["phase"] != "Failed"
    steps.now = NOW + 400
    steps.settle()
    late = steps.status()["phase"] == "Failed"
    assert late == (strategy == "InPlace")
    assert not late or steps.said("Failed") == ("True", "RollDeadlineExceeded")
