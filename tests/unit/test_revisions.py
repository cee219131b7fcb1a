"""A template's digest changes with what an edit is to replace pods for, and with nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from built_runs import SETTINGS, built_run

from empg.api.base import Spec
from empg.api.run import RunSpec
from empg_operator.builders.learner import learner_pod_template
from empg_operator.names import Role
from empg_operator.revisions import controller_revision, frozen_template, template_digest

EDITS: dict[str, tuple[dict[str, Any], tuple[Role, ...]]] = {
    "nothing": ({}, ()),
    "a default": ({"sampler": {"accelerator": "nvidia.com/gpu"}, "learner": {"zeroStage": 1}}, ()),
    "the samplers' image": ({"sampler": {"image": "x"}}, ("sampler",)),
    "the samplers' template": ({"sampler": {"podTemplate": {"spec": {"hostNetwork": True}}}}, ("sampler",)),
    "what samplers read at their start": ({"sampler": {"kvCacheMib": 64}}, ("sampler",)),
    "engine arguments": ({"sampler": {"engineArgs": {"seed": 1}}}, ("sampler",)),
    "the learner's image": ({"learner": {"image": "x"}}, ("learner",)),
    "what the learner reads at its start": ({"learner": {"precision": "float32"}}, ("learner",)),
    "nodes": ({"learner": {"nodes": 2}}, ("learner",)),
    "live fields": (
        {"sampler": {"replicas": 9, "temperature": 0.5}, "learner": {"deadlineSeconds": 5}, "em": {"iterations": 9}},
        (),
    ),
    "the lifecycle": ({"suspend": True, "restarts": {"limit": 1}, "storage": {"size": "900Gi"}}, ()),
}


@pytest.mark.parametrize("case", EDITS)
def test_an_edit_replaces_the_pods_that_it_concerns(case: str) -> None:
    sections, changed = EDITS[case]
    before, after = built_run(), built_run(**sections)
    roles: tuple[Role, ...] = ("sampler", "learner")
    assert tuple(role for role in roles if template_digest(before, role) != template_digest(after, role)) == changed


def test_a_digest_is_the_same_for_ever() -> None:
    """A newer operator that computes another one would replace the pods of every run that exists."""
    run = built_run(sampler={"image": "x", "podTemplate": {"b": [1], "a": None}}, learner={"processes": 2})
    assert template_digest(run, "sampler")[:16] == "d16c020a17b12b51"
    assert template_digest(run, "learner")[:16] == "ae1bb6c71340aa0e"


def fields(model: type[Spec]) -> Iterator[Any]:
    for info in model.model_fields.values():
        extra = info.json_schema_extra
        if isinstance(extra, dict):
            yield info
        below = info.annotation
        if isinstance(below, type) and issubclass(below, Spec):
            yield from fields(below)


def test_every_field_of_a_class_has_a_default_that_leaves_no_trace() -> None:
    """A field without default could not be added without replacing the pods of runs that exist."""
    found = [
        info
        for info in fields(RunSpec)
        if info.json_schema_extra["x-empg-change"] in ("rolls-samplers", "next-attempt")
    ]
    assert len(found) > 20
    assert [info for info in found if info.is_required()] == []


def test_a_frozen_template_is_found_again() -> None:
    run = built_run()
    template, digest = learner_pod_template(run, SETTINGS, None), template_digest(run, "learner")
    revision = controller_revision(run, "learner", digest, template, 3)
    assert revision["apiVersion"] == "apps/v1"
    assert (revision["metadata"]["name"], revision["revision"]) == (f"demo-learner-{digest[:8]}", 3)
    assert revision["metadata"]["labels"]["empg.dev/role"] == "learner"
    children = {("ControllerRevision", revision["metadata"]["name"]): revision}
    assert frozen_template(children, run, "learner", digest) == template
    assert frozen_template(children, run, "sampler", digest) is None
    assert frozen_template({}, run, "learner", digest) is None
