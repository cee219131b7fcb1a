"""`spec.objective`: what the M-step maximises."""

from __future__ import annotations

import dataclasses

from empg.api.base import Spec, field
from empg.api.knobs import CLASHES, NEEDS
from empg.api.rule import Rule
from empg.objective import (
    KL,
    PRESETS,
    Aggregate,
    Baseline,
    Denominator,
    Filter,
    ISCorrection,
    KLEstimator,
    Objective,
    OldLogprobs,
    Preset,
    RatioLevel,
    RewardMap,
    Scale,
    Squash,
    Surrogate,
)


class ObjectiveSpec(Spec):
    """A preset, and knobs that differ from it. An absent knob has the preset's value."""

    preset: Preset = field("empg", change="live")
    """Algorithm that gives every knob its value. It may bring a reference model, which takes memory of the learner."""
    reward_map: RewardMap | None = field(None, change="live")
    """What is done to rewards first. `plus-minus-one`: 2r − 1."""
    baseline: Baseline | None = field(None, change="live")
    """What is subtracted from a reward: the mean of its group (the answers to one prompt), the mean of the group's
    other answers, the mean over the batch's answers, the mean over the batch's response tokens, or the group's mean and
    then the token mean of the rest."""
    scale: Scale | None = field(None, change="live")
    """What the difference is divided by: a standard deviation (unbiased) of the group's rewards, of the batch's
    rewards, or of the difference over the batch's response tokens."""
    scale_epsilon: float | None = field(None, change="live", gt=0, le=1)
    """Keeps `scale` from dividing by 0: added to the standard deviation, for `token-std` to the variance."""
    squash: Squash | None = field(None, change="live")
    """Function applied last. `tanh-half`: tanh(z/2). `sigmoid-centred`: sigmoid(z) minus its mean over the batch's
    answers. `positive-part`: max(z, 0)."""
    filters: tuple[Filter, ...] | None = field(None, change="live", max_length=4)
    """Answers to leave out of the loss: groups with equal rewards, groups that are all right or all wrong, answers with
    a small advantage. All but the last are left out of the batch's statistics too."""
    right_reward: float | None = field(None, change="live", ge=-1e6, le=1e6)
    """Least reward of a right answer, for the filter `all-right`."""
    wrong_reward: float | None = field(None, change="live", ge=-1e6, le=1e6)
    """Largest reward of a wrong answer, for the filter `all-wrong`."""
    min_advantage: float | None = field(None, change="live", ge=0, le=1e6)
    """The filter `small-advantage` keeps answers whose |advantage| is above this."""
    surrogate: Surrogate | None = field(None, change="live")
    """What is maximised: advantage × log-prob, or advantage × clipped ratio of new to old probability."""
    ratio_level: RatioLevel | None = field(None, change="live")
    """Whether ratios are of tokens or of whole answers."""
    clip_low: float | None = field(None, change="live", ge=0, lt=1)
    """Ratios are clipped below at 1 − this."""
    clip_high: float | None = field(None, change="live", ge=0, le=100)
    """Ratios are clipped above at 1 + this."""
    dual_clip: float | None = field(None, change="live", ge=0, le=1000)
    """Bound of the ratio for negative advantages. 0: none."""
    aggregate: Aggregate | None = field(None, change="live")
    """How token losses become one number, always over the whole batch: the mean over tokens; the mean over answers of
    their token mean, of their token sum, or of their token sum divided by `sampler.maxTokens` (`constant`)."""
    denominator: Denominator | None = field(None, change="live")
    """Whether filtered answers count in that mean."""
    kl: KL | None = field(None, change="live")
    """Where the divergence from the base model enters: nowhere, as a term of the loss, or as a part of the reward. The
    base model is loaded when it is first needed, and stays."""
    kl_estimator: KLEstimator | None = field(None, change="live")
    """Estimator per token, with d = log p − log p_ref: k1 = d, k2 = d²/2, k3 = exp(−d) + d − 1. As a loss, k1 has a
    gradient that is 0 on average."""
    kl_beta: float | None = field(None, change="live", gt=0, le=100)
    """Weight of the divergence. To switch it off set `kl: none`."""
    epochs: int | None = field(None, change="live", ge=1, le=1000)
    """Passes over a batch."""
    minibatches: int | None = field(None, change="live", ge=1, le=100_000)
    """Optimizer steps per pass."""
    old_logprobs: OldLogprobs | None = field(None, change="live")
    """Whose log-probs stand for the old policy: the learner's before the first step, or those the sampler recorded."""
    is_correction: ISCorrection | None = field(None, change="live")
    """`truncated`: weight each token's term by its importance ratio to the sampler's policy, cut at `isCap`."""
    is_cap: float | None = field(None, change="live", gt=0, le=1000)
    """Largest importance weight."""
    entropy_coef: float | None = field(None, change="live", ge=-1, le=1)
    """Weight of the entropy bonus, per token in nats."""

    rules = (
        *CLASHES,
        Rule(
            "dualClip",
            "objective.dualClip ({self.dual_clip:g}) must be 0 (off) or above 1",
            cel="!has(self.dualClip) || self.dualClip == 0.0 || self.dualClip > 1.0",
            holds=lambda objective: objective.dual_clip in (None, 0) or objective.dual_clip > 1,
        ),
        Rule(
            "filters",
            "objective.filters names a filter twice; remove one",
            cel="!has(self.filters) || self.filters.all(one, self.filters.exists_one(other, other == one))",
            holds=lambda objective: len(set(objective.filters or ())) == len(objective.filters or ()),
        ),
        *NEEDS,
    )

    def resolve(self) -> Objective:
        """The preset with this section's overrides."""
        overrides = {name: value for name, value in self if name != "preset" and value is not None}
        return dataclasses.replace(PRESETS[self.preset], **overrides)
