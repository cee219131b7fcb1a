"""Children that a run has all the time: made, repaired and never more than that."""

import copy
import json
from typing import Any

import pytest
from plan_samples import Steps, situation

from empg_operator import names
from empg_operator.plan.standing import removals, storage
from empg_operator.settings import Settings


def started() -> Steps:
    steps = Steps()
    steps.settle()
    return steps


@pytest.mark.parametrize(
    "kind", ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "PersistentVolumeClaim", "Service"]
)
def test_a_child_that_was_deleted_comes_back(kind: str) -> None:
    steps = started()
    before = copy.deepcopy(steps.children)
    for place in [place for place in before if place[0] == kind]:
        del steps.children[place]
    done = steps.step()
    assert {each["kind"] for each in done.apply} == {kind}
    steps.settle()
    assert steps.children == before


def test_a_child_that_was_edited_is_put_right() -> None:
    steps = started()
    steps.children["Service", "demo-learner"]["spec"]["selector"] = {"app": "else"}
    steps.children["ConfigMap", "demo-run"]["data"] = {}
    steps.children["Deployment", "demo-sampler"]["spec"]["replicas"] = 7
    assert [each["kind"] for each in steps.step().apply] == ["ConfigMap", "Service", "Deployment"]


def test_what_others_add_is_left() -> None:
    steps = started()
    for child in steps.children.values():
        child["metadata"].setdefault("annotations", {})["someone.else/note"] = "x"
    assert not steps.step().apply


def test_a_live_edit_reaches_the_config_map_alone() -> None:
    steps = started()
    steps.edit({"optimizer": {"learningRate": 2e-6}})
    done = steps.step()
    assert [each["kind"] for each in done.apply] == ["ConfigMap"]
    document = json.loads(steps.children["ConfigMap", "demo-run"]["data"]["run.json"])
    assert document["spec"]["optimizer"]["learningRate"] == 2e-6


@pytest.mark.parametrize(("size", "applied"), [("200Gi", ["PersistentVolumeClaim"]), ("50Gi", [])])
def test_a_claim_grows_and_never_shrinks(size: str, applied: list[str]) -> None:
    steps = started()
    steps.children["PersistentVolumeClaim", names.claim("demo")]["status"] = {"phase": "Bound"}
    steps.edit({"storage": {"size": size}})
    assert [each["kind"] for each in steps.step().apply if each["kind"] != "ConfigMap"] == applied


def test_who_keeps_the_claim_follows_the_spec() -> None:
    steps = started()
    claim = ("PersistentVolumeClaim", names.claim("demo"))
    assert "ownerReferences" not in steps.children[claim]["metadata"]
    for policy, owned in (("Delete", True), ("Retain", False)):
        steps.edit({"storage": {"whenDeleted": policy}})
        steps.settle()
        assert ("ownerReferences" in steps.children[claim]["metadata"]) == owned


def test_a_claim_that_is_named_is_not_made() -> None:
    steps = Steps({"storage": {"claimName": "shared"}})
    steps.settle()
    assert not [place for place in steps.children if place[0] == "PersistentVolumeClaim"]
    assert steps.status()["storage"] == {"claimName": "shared", "path": "demo"}


OFF = Settings(pod_monitors=False)
EVERYTHING = Settings(network_policies=True, api_server_cidrs=("10.0.0.1/32",))
POLICIES = [("NetworkPolicy", "demo-sampler"), ("NetworkPolicy", "demo-learner")]
MONITOR = [("PodMonitor", "demo")]


def complete() -> Steps:
    """A run that has everything that can be made for one."""
    steps = Steps()
    steps.settings, steps.pod_monitors = EVERYTHING, True
    steps.settle()
    assert {*POLICIES, *MONITOR} <= set(steps.children)
    return steps


@pytest.mark.parametrize(
    ("settings", "kind_exists", "edit", "gone"),
    [
        (EVERYTHING, True, {}, []),
        (EVERYTHING.model_copy(update={"pod_monitors": False}), True, {}, MONITOR),
        (Settings(), True, {}, POLICIES),
        (OFF, True, {}, [*POLICIES, *MONITOR]),
        (EVERYTHING, False, {}, MONITOR),
        (EVERYTHING, True, {"sampler": {"metricsPort": 0}, "learner": {"metricsPort": 0}}, MONITOR),
    ],
)
def test_what_is_wanted_no_longer_is_deleted(settings: Settings, kind_exists: bool, edit: Any, gone: Any) -> None:
    steps = complete()
    before = set(steps.children)
    steps.settings, steps.pod_monitors = settings, kind_exists
    if edit:
        steps.edit(edit)
    steps.settle()
    optional = {"NetworkPolicy", "PodMonitor"}
    assert {place for place in before - set(steps.children) if place[0] in optional} == set(gone)
    deleted = [each for done in steps.done for each in done.delete if each.kind in optional]
    assert [(each.kind, each.name) for each in deleted] == gone, "once"
    assert {(each.uid, each.propagation) for each in deleted} <= {(f"uid-{n}", "Background") for _, n in gone}


def test_only_the_runs_own_are_deleted() -> None:
    steps = complete()
    steps.settings = OFF
    theirs = steps.children["NetworkPolicy", "demo-learner"]["metadata"]
    theirs["ownerReferences"][0]["uid"] = "of-another"
    steps.children["NetworkPolicy", "demo-sampler"]["metadata"]["deletionTimestamp"] = "x"
    assert [(each.kind, each.name) for each in steps.step().delete] == MONITOR


def test_a_run_that_has_ended_gives_up_what_is_not_wanted() -> None:
    steps = complete()
    steps.replace_job(1, complete=True)
    steps.settle()
    assert steps.said("Complete")[0] == "True"
    steps.settings = OFF
    steps.settle()
    assert not {"NetworkPolicy", "PodMonitor"} & {kind for kind, _ in steps.children}


def test_removals_leave_the_claim_and_what_is_going() -> None:
    def child(kind: str, **metadata: Any) -> Any:
        about = {"name": "demo", "uid": kind, "ownerReferences": [{"kind": "EMPGRun", "uid": "uid-1"}], **metadata}
        return {"kind": kind, "metadata": about, "spec": {"parallelism": 1}}

    theirs = child("Service", ownerReferences=[])
    seen = situation(child("PersistentVolumeClaim"), child("Role"), child("Secret", deletionTimestamp="x"), theirs)
    assert [(each.kind, each.uid, each.propagation) for each in removals(seen)] == [("Role", "Role", "Background")]
    assert storage(seen).claim_name == "demo-data"


def test_the_claim_follows_the_spec_when_all_other_children_have_gone() -> None:
    """Who keeps the results late keeps them all the same; a claim that is gone is not made again."""
    steps = Steps({"ttlSecondsAfterFinished": 10, "storage": {"whenDeleted": "Delete"}})
    steps.settle()
    steps.replace_job(1, complete=True)
    steps.settle()
    steps.now += 10
    steps.settle()
    claim = ("PersistentVolumeClaim", names.claim("demo"))
    assert set(steps.children) == {claim}
    assert "ownerReferences" in steps.children[claim]["metadata"]
    steps.edit({"storage": {"whenDeleted": "Retain"}})
    steps.settle()
    assert "ownerReferences" not in steps.children[claim]["metadata"]
    del steps.children[claim]
    steps.settle()
    assert steps.children == {}


def subjects(steps: Steps) -> set[str]:
    return {each["name"] for each in steps.children["RoleBinding", "demo-learner"]["subjects"]}


def test_pods_keep_their_rights_when_an_edit_names_another_account() -> None:
    steps = Steps({"learner": {"podTemplate": {"spec": {"serviceAccountName": "first"}}}})
    steps.settle()
    assert subjects(steps) == {"demo-learner", "first"}
    steps.edit({"learner": {"podTemplate": {"spec": {"serviceAccountName": "second"}}}})
    steps.settle()
    assert subjects(steps) == {"demo-learner", "first", "second"}
