"""Which knobs of an objective go together, in Python and, as presets stand for knobs, in CEL made from their table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic.alias_generators import to_camel

from empg.api.rule import Rule
from empg.objective import GROUP_BASELINES, PRESETS, Filter


@dataclass(frozen=True)
class Setting:
    """A knob that has one of some values, given or by its preset; the knob `filters`: that names one of them."""

    knob: str
    values: tuple[str, ...]

    def met(self, objective: Any) -> bool:
        """Whether an `ObjectiveSpec` has it."""
        given = getattr(objective, self.knob)
        return self._admits(getattr(PRESETS[objective.preset], self.knob) if given is None else given)

    def cel(self, objective: str) -> str:
        """The same of the section that the expression `objective` stands for."""
        name = f"{objective}.{to_camel(self.knob)}"
        given = (
            f"{name}.exists(filter, {_among('filter', self.values)})"
            if self.knob == "filters"
            else _among(name, self.values)
        )
        presets = [preset for preset, knobs in PRESETS.items() if self._admits(getattr(knobs, self.knob))]
        if not presets:
            return f"(has({name}) && {given})"
        return f"(has({name}) ? {given} : {_among(f'{objective}.preset', presets)})"

    def _admits(self, value: str | tuple[str, ...]) -> bool:
        return bool(set(self.values) & set(value)) if isinstance(value, tuple) else value in self.values


def any_met(settings: Iterable[Setting], objective: Any) -> bool:
    """Whether an `ObjectiveSpec` has any of the settings."""
    return any(setting.met(objective) for setting in settings)


def any_cel(settings: Iterable[Setting], objective: str) -> str:
    """The same in CEL, as one term."""
    terms = [setting.cel(objective) for setting in settings]
    return terms[0] if len(terms) == 1 else f"({' || '.join(terms)})"


def _among(name: str, values: Sequence[str]) -> str:
    texts = [f"'{value}'" for value in values]
    return f"{name} == {texts[0]}" if len(texts) == 1 else f"{name} in [{', '.join(texts)}]"


CLIP = Setting("surrogate", ("ratio-clip",))
SEQUENCE_RATIO = Setting("ratio_level", ("sequence",))
CORRECTION = Setting("is_correction", ("truncated",))
BEHAVIOUR = Setting("old_logprobs", ("behaviour",))
KL = Setting("kl", ("loss", "reward"))
KL_REWARD = Setting("kl", ("reward",))
SCALE = Setting("scale", ("group-std", "batch-std", "token-std"))
USES_RATIO = (CLIP, CORRECTION, BEHAVIOUR)
COMPARES_GROUP = (Setting("baseline", GROUP_BASELINES), Setting("filters", ("zero-variance",)))


def _clash(message: str, *settings: Setting) -> Rule:
    """Settings that have no meaning together; the refusal points to the first one's knob."""
    return Rule(
        to_camel(settings[0].knob),
        message,
        cel=" || ".join(f"!{setting.cel('self')}" for setting in settings),
        holds=lambda objective: not all(setting.met(objective) for setting in settings),
    )


def _needs(knob: str, remedy: str, *settings: Setting) -> Rule:
    """A knob that has no effect, and must not be given, without any of the settings."""
    key = to_camel(knob)
    return Rule(
        key,
        f"objective.{key} has no effect without {remedy}; set that, or remove {key}",
        cel=f"!has(self.{key}) || {any_cel(settings, 'self')}",
        holds=lambda objective: getattr(objective, knob) is None or any_met(settings, objective),
    )


CLASHES = (
    _clash(
        "objective.scale divides by a spread that is 0 when all rewards are equal; set objective.baseline, or "
        "objective.scale: none",
        SCALE,
        Setting("baseline", ("none",)),
    ),
    _clash(
        f"objective.scale: group-std needs an objective.baseline of the group ({', '.join(GROUP_BASELINES)})",
        Setting("scale", ("group-std",)),
        Setting("baseline", ("none", "batch-mean", "token-mean")),
    ),
    _clash(
        "objective.kl: reward needs objective.klEstimator: k1; the other estimators are for objective.kl: loss",
        KL_REWARD,
        Setting("kl_estimator", ("k2", "k3")),
    ),
    _clash(
        "objective.ratioLevel: sequence needs one advantage per answer, but objective.kl: reward with "
        "objective.baseline: token-mean makes one per token; set objective.ratioLevel: token",
        SEQUENCE_RATIO,
        CLIP,
        KL_REWARD,
        Setting("baseline", ("token-mean",)),
    ),
    _clash(
        "objective.isCorrection corrects from the sampler to the old policy, which objective.oldLogprobs: behaviour "
        "makes the same; set objective.oldLogprobs: recomputed or objective.isCorrection: none",
        CORRECTION,
        CLIP,
        BEHAVIOUR,
    ),
)

NEEDS = (
    _needs("scale_epsilon", "objective.scale", SCALE),
    _needs("right_reward", "all-right in objective.filters", Setting("filters", ("all-right",))),
    _needs("wrong_reward", "all-wrong in objective.filters", Setting("filters", ("all-wrong",))),
    _needs("min_advantage", "small-advantage in objective.filters", Setting("filters", ("small-advantage",))),
    _needs("denominator", "objective.filters", Setting("filters", get_args(Filter))),
    _needs("ratio_level", "objective.surrogate: ratio-clip", CLIP),
    _needs("clip_low", "objective.surrogate: ratio-clip", CLIP),
    _needs("clip_high", "objective.surrogate: ratio-clip", CLIP),
    _needs("dual_clip", "objective.surrogate: ratio-clip", CLIP),
    _needs("kl_estimator", "objective.kl: loss or reward", KL),
    _needs("kl_beta", "objective.kl: loss or reward", KL),
    _needs("old_logprobs", "objective.surrogate: ratio-clip or objective.kl: reward", CLIP, KL_REWARD),
    _needs("is_cap", "objective.isCorrection: truncated", CORRECTION),
)
