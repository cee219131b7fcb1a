"""The models refuse what the API server's rules refuse, with the same words and the values."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from empg.api.base import Spec, section_model
from empg.api.knobs import COMPARES_GROUP, USES_RATIO, any_met
from empg.api.load import InvalidManifest, parse_run
from empg.api.objective import ObjectiveSpec
from empg.api.run import EMPGRun, RunSpec
from empg.objective import PRESETS

REFUSALS = yaml.safe_load((Path(__file__).parents[1] / "data" / "crd_refusals.yaml").read_text(encoding="utf-8"))
MINIMAL: dict[str, Any] = {
    "apiVersion": "empg.dev/v1alpha1",
    "kind": "EMPGRun",
    "metadata": {"name": "demo"},
    "spec": {"model": {"name": "base"}, "task": {"name": "arithmetic"}, "em": {"iterations": 3}},
}


def parsed(changes: dict[str, Any]) -> EMPGRun:
    """The minimal run with changes by dotted keys of the spec."""
    document = copy.deepcopy(MINIMAL)
    for place, value in changes.items():
        *parents, key = place.split(".")
        section = document["spec"]
        for parent in parents:
            section = section.setdefault(parent, {})
        section[key] = copy.deepcopy(value)
    return parse_run(json.dumps(document).encode(), "run.json")


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case["message"])
def test_a_rule_refuses_and_its_remedy_helps(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest) as refusal:
        parsed(case["wrong"])
    (problem,) = refusal.value.problems
    assert f"spec.{case['field']}".startswith(problem.field)
    assert case["message"] in re.sub(r" \((?!off|group)[^)]*\)", "", problem.message)
    parsed(case["wrong"] | case["remedy"])


def test_the_message_has_the_values() -> None:
    with pytest.raises(InvalidManifest, match=r"em\.promptsPerUnit \(5\) must divide em\.promptsPerIteration \(32\)"):
        parsed({"em.promptsPerUnit": 5})
    with pytest.raises(InvalidManifest, match=r"with an objective \(grpo\) whose advantages"):
        parsed({"em.samplesPerPrompt": 1, "objective.preset": "grpo"})


def test_messages_without_values_are_whole_sentences() -> None:
    def sections(model: type[Spec]) -> list[type[Spec]]:
        below = [section_model(info.annotation) for info in model.model_fields.values()]
        return [model, *(found for section in below if section is not None for found in sections(section))]

    messages = [rule.static_message for model in sections(RunSpec) for rule in model.rules]
    assert len(messages) > 40
    assert [message for message in messages if re.search(r"[{}]|  | [;,:)]|\( ", message)] == []


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "knobs", [{}, {"isCorrection": "truncated"}, {"surrogate": "ratio-clip"}, {"filters": ["zero-variance"]}]
)
def test_conditions_on_knobs_are_those_of_the_objective(preset: str, knobs: dict[str, Any]) -> None:
    spec = ObjectiveSpec.model_validate({"preset": preset, **knobs})
    assert any_met(USES_RATIO, spec) == spec.resolve().uses_ratio
    assert any_met(COMPARES_GROUP, spec) == spec.resolve().needs_group
