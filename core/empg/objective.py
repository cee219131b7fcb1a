"""What the M-step maximises, as data: orthogonal knobs and the presets made of them.

The mathematics is in `empg_trainer.objectives`; nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

RewardMap = Literal["identity", "plus-minus-one"]
Baseline = Literal["none", "group-mean", "leave-one-out", "batch-mean", "token-mean", "group-mean-then-token-mean"]
Scale = Literal["none", "group-std", "batch-std", "token-std"]
Squash = Literal["none", "tanh-half", "sigmoid", "sigmoid-centred", "positive-part"]
Filter = Literal["zero-variance", "all-right", "all-wrong", "small-advantage"]
Surrogate = Literal["logp", "ratio-clip"]
RatioLevel = Literal["token", "sequence"]
Aggregate = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"]
Denominator = Literal["all", "kept"]
KL = Literal["none", "loss", "reward"]
KLEstimator = Literal["k1", "k2", "k3"]
OldLogprobs = Literal["recomputed", "behaviour"]
ISCorrection = Literal["none", "truncated"]
Preset = Literal[
    "empg",
    "empg-paper",
    "empg-raw",
    "grpo",
    "dr-grpo",
    "rloo",
    "reinforce++",
    "reinforce++-baseline",
    "ppo-clip",
    "raft",
]

GROUP_BASELINES: tuple[Baseline, ...] = ("group-mean", "leave-one-out", "group-mean-then-token-mean")
"""Baselines that compare the answers to one prompt."""


@dataclass(frozen=True)
class Objective:
    """One setting of all knobs, in the order in which they act. `empg.api.objective` says what each value means.

    A knob that depends on another (`clip_low` on `surrogate`, `kl_beta` on `kl`, …) is idle while that one is
    off; its value is then what a manifest gets that only switches the other one on. Combinations that have no meaning
    are refused where manifests are read, by `empg.api.objective`.
    """

    reward_map: RewardMap = "identity"
    baseline: Baseline = "none"
    scale: Scale = "none"
    scale_epsilon: float = 1e-6
    squash: Squash = "none"
    filters: tuple[Filter, ...] = ()
    right_reward: float = 1.0
    wrong_reward: float = 0.0
    min_advantage: float = 0.1
    surrogate: Surrogate = "logp"
    ratio_level: RatioLevel = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 0.0
    aggregate: Aggregate = "token-mean"
    denominator: Denominator = "all"
    kl: KL = "none"
    kl_estimator: KLEstimator = "k3"
    kl_beta: float = 0.001
    epochs: int = 1
    minibatches: int = 1
    old_logprobs: OldLogprobs = "recomputed"
    is_correction: ISCorrection = "none"
    is_cap: float = 2.0
    entropy_coef: float = 0.0

    @property
    def uses_clip(self) -> bool:
        """Whether the surrogate is the clipped ratio of new to old probabilities."""
        return self.surrogate == "ratio-clip"

    @property
    def uses_ratio(self) -> bool:
        """Whether an importance ratio, or the sampler's own log-probs, enter the loss."""
        return self.uses_clip or self.is_correction != "none" or self.old_logprobs == "behaviour"

    @property
    def needs_group(self) -> bool:
        """Whether advantages compare the answers to one prompt, so that one answer per prompt teaches nothing."""
        return self.baseline in GROUP_BASELINES or "zero-variance" in self.filters

    @property
    def single_step(self) -> bool:
        """Whether a batch makes one optimizer step."""
        return self.epochs * self.minibatches == 1

    @property
    def needs_reference(self) -> bool:
        """Whether log-probs of the reference model are needed. The reference is the base model and never changes."""
        return self.kl != "none"

    @property
    def needs_old(self) -> bool:
        """Whether the learner must compute log-probs in a pass of its own before the first optimizer step.

        With a single step per batch the old policy is the current one, and the forward pass of the step will do.
        """
        if self.old_logprobs == "behaviour":
            return False
        return self.kl == "reward" or (self.uses_clip and not self.single_step)

    @property
    def needs_entropy(self) -> bool:
        """Whether entropy enters the loss and so needs a gradient."""
        return self.entropy_coef != 0

    @property
    def token_level(self) -> bool:
        """Whether the KL in the reward is credited to the tokens before it (return to go) and not to the whole answer.

        Baselines that compare whole answers need one return per answer.
        """
        return self.kl == "reward" and self.baseline == "token-mean"


PRESETS: dict[Preset, Objective] = {
    # Code of the EMPG author (verl fork, compute_reinforce_outcome_advantage, compute_policy_loss with off_policy_pg):
    # rewards whitened over all response tokens, 2·sigmoid(z) − 1, no ratio, token mean, entropy bonus 0.001. Half of
    # the published jobs have no KL, the others k3 in the loss with 0.01.
    "empg": Objective(
        baseline="token-mean",
        scale="token-std",
        scale_epsilon=1e-8,
        squash="tanh-half",
        kl_beta=0.01,
        entropy_coef=0.001,
    ),
    # Equation 12 of arXiv 2504.18587: rewards standardised over sequences, sigmoid, minus the batch mean, times the
    # log-prob of the whole answer. The paper names no epsilon, no entropy bonus, and KL as an option.
    "empg-paper": Objective(
        baseline="batch-mean",
        scale="batch-std",
        scale_epsilon=1e-8,
        squash="sigmoid-centred",
        aggregate="seq-mean-token-sum",
        kl_beta=0.01,
    ),
    # Equation 10: maximise E[R log p] with R >= 0, which is likelihood weighted by reward.
    "empg-raw": Objective(squash="positive-part", aggregate="seq-mean-token-sum", kl_beta=0.01),
    # DeepSeekMath; epsilon 1e-6 and KL 0.001 are verl's (the paper's KL is 0.04, TRL's epsilon 1e-4).
    "grpo": Objective(
        baseline="group-mean", scale="group-std", surrogate="ratio-clip", aggregate="seq-mean-token-mean", kl="loss"
    ),
    # arXiv 2503.20783: neither the group's spread nor the answer's length divides, no KL.
    "dr-grpo": Objective(baseline="group-mean", surrogate="ratio-clip", aggregate="constant"),
    # As in TRL: clipped ratio of whole answers, k1 in the reward with 0.05.
    "rloo": Objective(
        baseline="leave-one-out",
        surrogate="ratio-clip",
        ratio_level="sequence",
        aggregate="seq-mean-token-sum",
        kl="reward",
        kl_estimator="k1",
        kl_beta=0.05,
    ),
    # As in verl: returns to go whitened over all response tokens; k1 in the reward with 0.001.
    "reinforce++": Objective(
        baseline="token-mean",
        scale="token-std",
        scale_epsilon=1e-8,
        surrogate="ratio-clip",
        kl="reward",
        kl_estimator="k1",
    ),
    # As in verl: the group's mean is subtracted before whitening; k3 in the loss with 0.001.
    "reinforce++-baseline": Objective(
        baseline="group-mean-then-token-mean",
        scale="token-std",
        scale_epsilon=1e-8,
        surrogate="ratio-clip",
        kl="loss",
    ),
    # PPO without a critic: with γ = λ = 1 and no values the advantage is the whitened return. Clip 0.2 and dual clip 3
    # are verl's, as is one epoch of four mini-batches.
    "ppo-clip": Objective(
        baseline="token-mean",
        scale="token-std",
        scale_epsilon=1e-8,
        surrogate="ratio-clip",
        dual_clip=3.0,
        minibatches=4,
    ),
    # arXiv 2504.11343 (Minimal-RL): positive rewards only, no ratio, k3 in the loss with 0.001; four mini-batches.
    "raft": Objective(squash="positive-part", kl="loss", minibatches=4),
}

assert set(PRESETS) == set(get_args(Preset))
