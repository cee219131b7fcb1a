"""Runs that start from a policy of another run."""

from __future__ import annotations

import json

from run_documents import MISSING
from run_view import RunView
from stage import SECONDS, Stage
from waiting import eventually

FROM_PARENT = {"model.name": MISSING, "model.fromRun": {"name": "parent", "policy": 2}}


def read(view: RunView) -> dict[str, object]:
    """What the learner reads of where to start from."""
    file = view.child("ConfigMap", f"{view.name}-run")
    assert file
    model: dict[str, object] = json.loads(file["data"]["run.json"])["spec"]["model"]
    return model


def test_a_run_waits_for_its_parent_and_outlives_it(stage: Stage) -> None:
    view = stage.create("child", FROM_PARENT)
    missing = view.until_reason("Ready", "ParentMissing", SECONDS)
    assert "there is no EMPGRun 'parent' in this namespace" in missing["message"]
    assert eventually(lambda: view.told("ParentMissing"), "event", SECONDS)
    assert {kind for kind, _ in view.children()} <= {"PersistentVolumeClaim"}
    assert view.status()["phase"] == "Pending"

    parent = stage.create("parent")
    eventually(lambda: "has not published policy 2 yet" in view.condition("Ready")["message"], "next cause", SECONDS)
    stage.learners(parent)
    parent.report(iteration=2, policyVersion=2)
    stage.learners(view)
    stage.samplers(view)
    view.until_condition("Ready", "True", SECONDS)
    assert read(view) == {"fromRun": {"runDir": "/var/lib/empg-parent/parent", "policy": 2}}
    lineage = view.status()["lineage"]
    uid = parent.created["metadata"]["uid"]
    assert lineage == {"run": "parent", "uid": uid, "claimName": "parent-data", "path": "parent", "policy": 2}

    parent.delete()
    eventually(lambda: not parent.child("Deployment", "parent-sampler"), "end of the parent", SECONDS)
    stage.node.finish(stage.learners(view)[0], exit_code=75)
    view.until_attempt(2)
    [learner] = stage.learners(view)
    assert view.status()["lineage"] == lineage
    claims = [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in learner["spec"]["volumes"]]
    assert "parent-data" in claims
    assert view.condition("Ready")["reason"] != "ParentMissing"
    assert read(view) == {"fromRun": {"runDir": "/var/lib/empg-parent/parent", "policy": 2}}
    stage.until_no_orphans()
