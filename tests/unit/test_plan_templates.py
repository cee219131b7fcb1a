"""Pod templates: tried, frozen, and replaced by edits of the run alone."""

from typing import Any

import pytest
from plan_samples import NAME, Steps, progress

from empg_operator import names
from empg_operator.plan import plan
from empg_operator.settings import Settings


def revisions(steps: Steps, role: str) -> list[Any]:
    found = [each for (kind, name), each in steps.children.items() if kind == "ControllerRevision" and role in name]
    return sorted(found, key=lambda each: each["revision"])


def started() -> Steps:
    steps = Steps()
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.roll_out()
    steps.settle()
    return steps


def test_pods_are_tried_before_their_template_is_frozen() -> None:
    steps = Steps()
    first = steps.step()
    assert (first.try_pods, first.requeue_after) == ({}, 1.0), "without its account every pod is refused"
    steps.step()
    tried = steps.plans[1].try_pods
    assert sorted(tried) == sorted(
        each["metadata"]["name"] for role in ("sampler", "learner") for each in revisions(steps, role)
    )
    for name, pod in tried.items():
        assert (pod["kind"], pod["metadata"]["namespace"]) == ("Pod", "team")
        assert pod["spec"] == steps.children["ControllerRevision", name]["data"]["template"]["spec"]


def test_an_operator_with_other_settings_replaces_no_pod() -> None:
    steps = started()
    other = Settings(sampler_image="new:2", learner_image="new:2", image_pull_policy="Always")
    done = plan(steps.look(), other, steps.now)
    assert not done.try_pods
    assert [each["kind"] for each in (*done.apply, *done.create)] == []
    steps.edit({"sampler": {"tensorParallel": 2}})
    done = plan(steps.look(), other, steps.now)
    assert [pod["spec"]["containers"][0]["image"] for pod in done.try_pods.values()] == ["new:2"]


def test_an_edit_makes_a_new_revision_and_going_back_uses_the_old_one() -> None:
    steps = started()
    first = steps.status()["revisions"]["sampler"]
    steps.edit({"sampler": {"tensorParallel": 2}})
    steps.settle()
    second = steps.status()["revisions"]["sampler"]
    assert [each["metadata"]["name"] for each in revisions(steps, "sampler")] == [first, second]
    assert [each["revision"] for each in revisions(steps, "sampler")] == [1, 2]
    tried = len(steps.refusals)
    steps.edit({"sampler": {"tensorParallel": 1}})
    steps.settle()
    assert steps.status()["revisions"]["sampler"] == first
    assert len(steps.refusals) == tried


def test_old_revisions_go() -> None:
    steps = started()
    for size in range(17, 27):
        steps.edit({"sampler": {"maxConcurrentSequences": size}})
        steps.settle()
    numbers = [each["revision"] for each in revisions(steps, "sampler")]
    assert numbers == [7, 8, 9, 10, 11]
    assert steps.status()["revisions"]["sampler"] == revisions(steps, "sampler")[-1]["metadata"]["name"]
    assert len(revisions(steps, "learner")) == 1


def test_a_refused_template_starts_nothing() -> None:
    steps = Steps()
    steps.refuse = {"learner": 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'}
    waiting = steps.settle()
    assert waiting.requeue_after == 60
    assert steps.jobs() == []
    assert steps.said("Accepted") == ("False", "TemplateRefused")
    assert steps.said("Ready") == ("False", "TemplateRefused")
    assert "PodSecurity" in next(each["message"] for each in steps.status()["conditions"] if each["type"] == "Accepted")
    assert steps.events().count("TemplateRefused") == 1
    steps.refuse = {}
    steps.refusals.clear()
    steps.settle()
    assert steps.jobs() == ["demo-learner-1"]
    assert steps.said("Accepted") == ("True", "Accepted")


def test_a_refused_edit_leaves_the_old_template_in_use() -> None:
    steps = started()
    before = steps.children["Deployment", names.sampler_deployment(NAME)]["spec"]["template"]
    steps.refuse = {"sampler": "pods is forbidden", "learner": "pods is forbidden"}
    steps.edit({"sampler": {"tensorParallel": 2}, "learner": {"nodes": 2}})
    steps.settle()
    assert steps.children["Deployment", names.sampler_deployment(NAME)]["spec"]["template"] == before
    steps.replace_job(1, rule=2)
    steps.settle()
    assert steps.jobs() == ["demo-learner-1", "demo-learner-2"], "the run goes on with what it has"
    steps.edit({"sampler": {"replicas": 3}})
    steps.settle()
    assert steps.samplers() == 3


def test_an_exhausted_quota_means_waiting() -> None:
    steps = Steps()
    steps.refuse = dict.fromkeys(("sampler", "learner"), 'pods "x" is forbidden: exceeded quota: gpu, requested: 1')
    steps.settle()
    assert (steps.jobs(), steps.said("Accepted")) == (["demo-learner-1"], ("True", "Accepted"))


def test_a_patch_that_can_not_be_merged_names_its_field() -> None:
    steps = Steps({"sampler": {"podTemplate": {"spec": {"containers": [{"image": "x"}]}}}})
    steps.settle()
    assert steps.said("Accepted") == ("False", "InvalidSpec")
    message = next(each["message"] for each in steps.status()["conditions"] if each["type"] == "Accepted")
    assert "spec.sampler.podTemplate" in message


def test_samplers_without_a_template_can_only_be_removed() -> None:
    steps = started()
    for each in revisions(steps, "sampler"):
        del steps.children["ControllerRevision", each["metadata"]["name"]]
    steps.refuse = {"sampler": "pods is forbidden"}
    steps.refusals.clear()
    steps.settle()
    assert steps.samplers() == 2
    steps.edit({"suspend": True})
    steps.settle()
    assert ("Deployment", names.sampler_deployment(NAME)) not in steps.children


BAD, GOOD = {"learner": {"image": "bad:1"}}, {"learner": {"image": "good:1"}}


def images(steps: Steps) -> list[str]:
    """Of the learner's Jobs."""
    jobs = [steps.children["Job", name] for name in steps.jobs()]
    return [job["spec"]["template"]["spec"]["containers"][0]["image"] for job in jobs]


@pytest.mark.parametrize("queued", [False, True])
def test_an_attempt_that_can_not_start_takes_an_edit_at_no_cost(queued: bool) -> None:
    steps = Steps(BAD)
    steps.settle()
    steps.job(1)["spec"]["suspend"] = queued
    steps.settle()
    assert images(steps) == ["bad:1"]
    steps.edit(GOOD)
    steps.settle()
    assert (steps.jobs(), images(steps)) == (["demo-learner-2"], ["good:1"])
    assert (steps.status()["attempt"], steps.status()["restarts"]) == (2, 0)


def test_an_attempt_that_runs_or_has_reported_takes_no_edit() -> None:
    steps = Steps(BAD)
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.edit(GOOD)
    steps.settle()
    assert images(steps) == ["bad:1"]
    steps.report(progress=progress())
    steps.replace_job(1, ready=0)
    steps.settle()
    assert images(steps) == ["bad:1"]


def test_an_attempt_waits_on_while_its_correction_is_refused() -> None:
    steps = Steps(BAD)
    steps.settle()
    steps.refuse = {"learner": "no"}
    steps.edit(GOOD)
    steps.settle()
    assert images(steps) == ["bad:1"]
    assert steps.said("Accepted") == ("False", "TemplateRefused")
