"""Whole runs, plan by plan: what a user of a run sees from its start to its end."""

from plan_samples import NAME, NOW, Steps, progress

from empg_operator import names
from empg_operator.decision import Plan


def started(spec: dict | None = None) -> Steps:
    """A run whose first attempt has its Job."""
    steps = Steps(spec)
    steps.settle()
    return steps


def running(spec: dict | None = None) -> Steps:
    """A run that samples."""
    steps = started(spec)
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.roll_out()
    steps.report(progress=progress())
    steps.settle()
    return steps


def test_a_run_goes_from_its_children_to_its_learner_to_its_samplers() -> None:
    steps = Steps()
    first = steps.step()
    assert [each["kind"] for each in first.apply] == [
        "ServiceAccount",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ConfigMap",
        "PersistentVolumeClaim",
        "Service",
    ]
    assert not first.create
    second = steps.step()
    assert len(steps.plans[1].try_pods) == 2
    assert [each["kind"] for each in second.create] == ["ControllerRevision", "ControllerRevision", "Job"]
    assert steps.samplers() == 0
    assert steps.status()["clock"] == {
        "waitingFor": "pods",
        "iteration": 0,
        "since": "2027-01-15T08:00:00Z",
        "seconds": 0.0,
    }
    assert steps.settle() == Plan(requeue_after=20.0), "nothing is left to do"
    assert (steps.status()["phase"], steps.said("Ready")) == ("Starting", ("False", "Starting"))
    steps.replace_job(1, ready=1)
    steps.settle()
    assert steps.samplers() == 2
    steps.roll_out()
    steps.report(progress=progress())
    steps.settle()
    assert (steps.status()["phase"], steps.said("Ready")) == ("Sampling", ("True", "Running"))
    assert steps.status()["samplers"]["summary"] == "2/2"
    assert steps.events() == ["AttemptStarted", "SamplersScaled"]


def test_an_iteration_costs_few_writes() -> None:
    steps = running()
    seen = len(steps.done)
    for phase, policy in (("learning", 0), ("publishing", 1), ("sampling", 1)):
        steps.report(progress=progress(iteration=policy, phase=phase, policyVersion=policy))
        steps.settle()
    made = steps.done[seen:]
    assert sum(done.status is not None for done in made) == 3
    assert not any(done.apply or done.create or done.delete or done.events for done in made)


def test_a_complete_run_keeps_its_job_and_gives_its_samplers_back() -> None:
    steps = running()
    steps.report(progress=progress(iteration=3, phase="done", policyVersion=3))
    steps.replace_job(1, complete=True)
    last = steps.step()
    assert last.status
    assert (*last.apply, *last.create, *last.delete) == ()
    steps.settle()
    assert (steps.status()["phase"], steps.said("Complete")) == ("Complete", ("True", "Trained"))
    assert (steps.samplers(), steps.jobs()) == (0, [names.learner_job(NAME, 1)])
    assert "Completed" in steps.events()
    assert steps.status()["completionTime"] == "2027-01-15T08:00:00Z"


def test_raised_iterations_let_a_complete_run_go_on() -> None:
    steps = running()
    steps.report(progress=progress(iteration=3, phase="done"))
    steps.replace_job(1, complete=True)
    steps.settle()
    steps.edit({"em": {"iterations": 5}})
    steps.settle()
    assert (steps.status()["phase"], steps.said("Complete")[0]) == ("Restarting", "False")
    assert steps.status()["attempt"] == 2
    assert "completionTime" not in steps.status()


def test_a_crash_is_charged_explained_and_waited_for() -> None:
    steps = running()
    steps.replace_job(1, failed="Job has reached the specified backoff limit")
    seen = len(steps.plans)
    steps.settle()
    assert [done.diagnose for done in steps.plans[seen:]] == [True, False, False]
    status = steps.status()
    assert (status["restarts"], status["attempt"], status["judgedAttempt"]) == (1, 1, 1)
    assert status["nextAttemptTime"] == "2027-01-15T08:00:10Z"
    assert steps.samplers() == 2, "samplers stay while the learner is only restarted"
    steps.now = NOW + 10
    steps.settle()
    assert steps.jobs() == [names.learner_job(NAME, n) for n in (1, 2)]
    steps.now = NOW + 60
    steps.replace_job(2, failed="again")
    steps.settle()
    steps.now = NOW + 80
    steps.settle()
    assert steps.jobs() == [names.learner_job(NAME, n) for n in (2, 3)], "of ended Jobs the newest one is kept"


def test_a_run_that_is_resumed_at_once_does_not_wait_for_the_job_that_it_gave_up() -> None:
    steps = running()
    steps.edit({"suspend": True})
    steps.step()
    assert steps.jobs() == []
    steps.edit({"suspend": False})
    steps.step()
    assert (steps.jobs(), steps.status()["restarts"]) == ([names.learner_job(NAME, 2)], 0)


def test_suspension_gives_all_back_and_costs_nothing() -> None:
    steps = running()
    steps.edit({"suspend": True})
    steps.settle()
    steps.roll_out()
    steps.settle()
    assert (steps.jobs(), steps.samplers(), steps.status()["phase"]) == ([], 0, "Suspended")
    assert steps.said("Suspended")[0] == "True"
    steps.edit({"suspend": False})
    steps.settle()
    assert (steps.jobs(), steps.status()["restarts"]) == ([names.learner_job(NAME, 2)], 0)
    assert [each for each in steps.events() if each in ("Suspended", "Resumed")] == ["Suspended", "Resumed"]
