"""The objective as data: presets, overrides, and what a manifest may not say."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
import torch
from golden_batch import LOGPROBS, estimate, loss_and_metrics
from pydantic import ValidationError

from empg.api.objective import ObjectiveSpec
from empg.objective import PRESETS, Objective, Preset

EFFECTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"preset": "empg-raw"}, {"rewardMap": "plus-minus-one", "squash": "none"}),
    ({"preset": "dr-grpo"}, {"baseline": "leave-one-out"}),
    ({"preset": "dr-grpo"}, {"baseline": "batch-mean"}),
    ({"preset": "dr-grpo"}, {"baseline": "token-mean"}),
    ({"preset": "dr-grpo"}, {"baseline": "group-mean-then-token-mean"}),
    ({"preset": "dr-grpo"}, {"baseline": "none"}),
    ({"preset": "dr-grpo"}, {"scale": "group-std"}),
    ({"preset": "dr-grpo"}, {"scale": "batch-std"}),
    ({"preset": "dr-grpo"}, {"scale": "token-std"}),
    ({"preset": "grpo"}, {"scaleEpsilon": 0.5}),
    ({"preset": "empg-paper"}, {"scaleEpsilon": 0.5}),
    ({"preset": "empg"}, {"scaleEpsilon": 0.5}),
    ({"preset": "empg"}, {"squash": "none"}),
    ({"preset": "empg"}, {"squash": "sigmoid"}),
    ({"preset": "empg"}, {"squash": "sigmoid-centred"}),
    ({"preset": "empg"}, {"squash": "positive-part"}),
    ({"preset": "empg"}, {"filters": ["zero-variance"]}),
    ({"preset": "empg"}, {"filters": ["all-right"]}),
    ({"preset": "empg"}, {"filters": ["all-wrong"]}),
    ({"preset": "empg"}, {"filters": ["small-advantage"], "minAdvantage": 0.4}),
    ({"preset": "empg", "filters": ["all-right"]}, {"rightReward": 2.0}),
    ({"preset": "empg", "filters": ["all-wrong"]}, {"wrongReward": -1.0}),
    ({"preset": "empg", "filters": ["small-advantage"]}, {"minAdvantage": 0.4}),
    ({"preset": "empg"}, {"surrogate": "ratio-clip"}),
    ({"preset": "grpo"}, {"ratioLevel": "sequence"}),
    ({"preset": "grpo"}, {"clipLow": 0.05}),
    ({"preset": "grpo"}, {"clipHigh": 0.05}),
    ({"preset": "grpo"}, {"dualClip": 1.05}),
    ({"preset": "empg"}, {"aggregate": "seq-mean-token-mean"}),
    ({"preset": "empg"}, {"aggregate": "seq-mean-token-sum"}),
    ({"preset": "empg"}, {"aggregate": "constant"}),
    ({"preset": "empg", "filters": ["all-wrong"]}, {"denominator": "kept"}),
    ({"preset": "empg"}, {"kl": "loss"}),
    ({"preset": "empg"}, {"kl": "reward", "klEstimator": "k1"}),
    ({"preset": "grpo"}, {"klEstimator": "k1"}),
    ({"preset": "grpo"}, {"klEstimator": "k2"}),
    ({"preset": "grpo"}, {"klBeta": 0.5}),
    ({"preset": "rloo"}, {"klBeta": 0.5}),
    ({"preset": "grpo"}, {"oldLogprobs": "behaviour"}),
    ({"preset": "empg"}, {"isCorrection": "truncated"}),
    ({"preset": "grpo"}, {"isCorrection": "truncated"}),
    ({"preset": "empg", "isCorrection": "truncated"}, {"isCap": 1.05}),
    ({"preset": "empg"}, {"entropyCoef": 0.1}),
]
"""A section of a manifest, and an override that must change what is learned from the golden batch."""

READ_BY_THE_LEARNER = {"epochs", "minibatches"}


def learned(spec: ObjectiveSpec) -> tuple[list[float], list[bool], float]:
    """Gradient per token, kept answers and loss."""
    objective = spec.resolve()
    logprobs = LOGPROBS.clone().requires_grad_()
    loss, _ = loss_and_metrics(objective, logprobs)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return gradient.tolist(), estimate(objective).keep.tolist(), loss.item()


@pytest.mark.parametrize("preset", get_args(Preset))
def test_preset_resolves_to_itself(preset: Preset) -> None:
    spec = ObjectiveSpec(preset=preset)
    assert spec.resolve() == PRESETS[preset]
    assert ObjectiveSpec.model_validate_json(spec.model_dump_json(by_alias=True)) == spec


@pytest.mark.parametrize(("section", "override"), EFFECTS)
def test_override_changes_what_is_learned(section: dict[str, Any], override: dict[str, Any]) -> None:
    assert learned(ObjectiveSpec(**section, **override)) != learned(ObjectiveSpec(**section))


def test_every_knob_can_be_overridden() -> None:
    knobs = {knob.name for knob in dataclasses.fields(Objective)}
    assert set(ObjectiveSpec.model_fields) == knobs | {"preset"}
    keys = {key for _, override in EFFECTS for key in override}
    tested = {name for name, info in ObjectiveSpec.model_fields.items() if info.alias in keys}
    assert tested == knobs - READ_BY_THE_LEARNER


def test_more_than_one_step_needs_old_logprobs_for_ratios() -> None:
    assert not PRESETS["grpo"].needs_old
    assert ObjectiveSpec(preset="grpo", epochs=2).resolve().needs_old
    assert ObjectiveSpec(preset="grpo", minibatches=2).resolve().needs_old
    assert not ObjectiveSpec(preset="grpo", minibatches=2, oldLogprobs="behaviour").resolve().needs_old
    assert not ObjectiveSpec(preset="empg", minibatches=2).resolve().needs_old
    assert PRESETS["reinforce++"].needs_old


def test_what_presets_need() -> None:
    def presets(need: str) -> set[str]:
        return {name for name, objective in PRESETS.items() if getattr(objective, need)}

    assert presets("needs_group") == {"grpo", "dr-grpo", "rloo", "reinforce++-baseline"}
    assert ObjectiveSpec(filters=["zero-variance"]).resolve().needs_group
    assert presets("uses_ratio") == {"grpo", "dr-grpo", "rloo", "reinforce++", "reinforce++-baseline", "ppo-clip"}
    assert presets("needs_reference") == {"grpo", "rloo", "reinforce++", "reinforce++-baseline", "raft"}
    assert presets("needs_old") == {"rloo", "reinforce++", "ppo-clip"}
    assert presets("needs_entropy") == {"empg"}
    assert ObjectiveSpec(preset="empg", isCorrection="truncated").resolve().uses_ratio


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"preset": "ppo"}, "Input should be 'empg'"),
        ({"beta": 0.1}, "Extra inputs are not permitted"),
        ({"preset": "grpo", "klBeta": 0}, "greater than 0"),
        ({"klBeta": 0.1}, "objective.klBeta has no effect without objective.kl: loss or reward"),
        ({"klEstimator": "k2"}, "objective.klEstimator has no effect without objective.kl"),
        ({"clipLow": 0.1}, "objective.clipLow has no effect without objective.surrogate: ratio-clip"),
        ({"clipHigh": 0.1}, "objective.clipHigh has no effect without objective.surrogate: ratio-clip"),
        ({"dualClip": 3}, "objective.dualClip has no effect without objective.surrogate: ratio-clip"),
        ({"ratioLevel": "token"}, "objective.ratioLevel has no effect without objective.surrogate: ratio-clip"),
        ({"oldLogprobs": "behaviour"}, "objective.oldLogprobs has no effect without objective.surrogate: ratio-clip"),
        ({"preset": "raft", "scaleEpsilon": 0.1}, "objective.scaleEpsilon has no effect without objective.scale"),
        ({"filters": ["all-right"], "wrongReward": 0}, "without all-wrong in objective.filters"),
        ({"filters": ["all-wrong"], "rightReward": 0}, "without all-right in objective.filters"),
        ({"minAdvantage": 0}, "without small-advantage in objective.filters"),
        ({"denominator": "kept"}, "objective.denominator has no effect without objective.filters"),
        ({"isCap": 3}, "objective.isCap has no effect without objective.isCorrection: truncated"),
        ({"filters": ["all-right", "all-right"]}, "objective.filters names a filter twice"),
        ({"baseline": "none"}, "set objective.baseline, or objective.scale: none"),
        ({"scale": "group-std"}, "objective.scale: group-std needs an objective.baseline of the group"),
        ({"kl": "reward"}, "objective.kl: reward needs objective.klEstimator: k1; the other"),
        ({"preset": "grpo", "dualClip": 0.5}, "objective.dualClip (0.5) must be 0 (off) or above 1"),
        ({"preset": "reinforce++", "ratioLevel": "sequence"}, "set objective.ratioLevel: token"),
        (
            {"preset": "grpo", "isCorrection": "truncated", "oldLogprobs": "behaviour"},
            "set objective.oldLogprobs: recomputed or objective.isCorrection: none",
        ),
    ],
)
def test_refusals_name_field_and_remedy(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        ObjectiveSpec(**section)
    assert message in str(refusal.value)


def test_every_knob_can_be_edited_while_a_run_goes_on() -> None:
    changes = {info.json_schema_extra["x-empg-change"] for info in ObjectiveSpec.model_fields.values()}
    assert changes == {"live"}
