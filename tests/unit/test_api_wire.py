"""Nulls and whole numbers mean in a file what they mean to the API server."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from empg.api.load import InvalidManifest, parse_run
from empg.api.run import EMPGRun

MINIMAL: dict[str, Any] = {
    "apiVersion": "empg.dev/v1alpha1",
    "kind": "EMPGRun",
    "metadata": {"name": "demo"},
    "spec": {"model": {"name": "base"}, "task": {"name": "arithmetic"}, "em": {"iterations": 3}},
}


def parsed(**sections: Any) -> EMPGRun:
    """The minimal run with keys of sections added."""
    document = copy.deepcopy(MINIMAL)
    for name, value in sections.items():
        section = document["spec"].get(name)
        document["spec"][name] = (
            {**section, **value} if isinstance(section, dict) and isinstance(value, dict) else value
        )
    return parse_run(json.dumps(document).encode(), "test")


def test_null_is_the_default_where_a_field_takes_no_null() -> None:
    run = parsed(em={"seed": None, "promptsPerUnit": None}, optimizer=None, task={"fields": None}, suspend=None)
    assert run == parsed()


def test_null_is_absence_where_a_field_has_no_default() -> None:
    assert parsed(model={"revision": None}, objective={"filters": None}, queueName=None) == parsed()


def test_null_stays_where_it_says_more_than_absence() -> None:
    run = parsed(deadlines={"pendingSeconds": None, "runSeconds": None})
    assert run.spec.deadlines.pending_seconds is None
    assert parsed().spec.deadlines.pending_seconds == 86_400
    assert "runSeconds" not in run.manifest()["spec"]["deadlines"]
    assert parse_run(json.dumps(run.manifest()).encode(), "again") == run


def test_null_stays_in_what_is_passed_on() -> None:
    given = {"a": None, "b": [None, {"c": None}]}
    run = parsed(sampler={"engineArgs": given, "podTemplate": {"spec": {"tolerations": None}}})
    assert run.spec.sampler.engine_args == given
    assert run.manifest()["spec"]["sampler"]["engineArgs"] == given
    assert run.manifest()["spec"]["sampler"]["podTemplate"] == {"spec": {"tolerations": None}}


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"em": {"iterations": None}}, "spec.em.iterations: required, but absent"),
        ({"task": None}, "spec.task: required, but absent"),
        ({"em": {"sede": None}}, "spec.em.sede: unknown key"),
        ({"sampler": {"stop": [None]}}, "spec.sampler.stop[0]: Input should be a valid string"),
        ({"em": {"iterations": 3.5}}, "spec.em.iterations: Input should be a valid integer"),
        ({"em": {"iterations": 1e30}}, "spec.em.iterations"),
        ({"em": []}, "spec.em: Input should be an object"),
    ],
)
def test_what_can_not_be_meant_is_named(sections: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        parsed(**sections)
    assert problem in str(caught.value)


def test_whole_numbers_are_integers_however_they_are_written() -> None:
    run = parsed(em={"iterations": 3.0, "seed": -0.0}, sampler={"engineArgs": {"x": 2.0, "y": [1e3]}, "maxSurge": 1.0})
    assert (run.spec.em.iterations, run.spec.em.seed, run.spec.sampler.max_surge) == (3, 0, 1)
    assert json.dumps(run.spec.sampler.engine_args) == '{"x": 2, "y": [1000]}'
