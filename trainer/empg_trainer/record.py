"""The line of figures that an iteration leaves behind, `metrics/<t>.jsonl`. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from empg.api.guards import GuardsSpec
from empg.trajectory import Trajectory
from empg.verdict import Verdict
from empg_trainer.agreement import summarize_agreement
from empg_trainer.rollouts import Rollout
from empg_trainer.step import StepResult
from empg_trainer.stop import Diverged

COLLAPSE_ITERATIONS = 10
"""Iterations whose mean reward the collapse guard looks at."""

Figures = dict[str, Any]


def sampled_figures(rollout: Rollout, trained: Sequence[Trajectory]) -> Figures:
    """What the E-step gave: lengths, staleness, verdicts. Token counts are of responses."""
    rows = rollout.rows
    lags = [
        (rollout.seal.iteration - version, tokens) for row in rows for version, tokens in row.policy_versions if tokens
    ]
    tokens = sum(len(row.response_ids) for row in rows)
    verdicts = Counter(row.verdict for row in rows)
    rewards = [row.reward for row in trained]
    return {
        "tokens": tokens,
        "answers": len(rows),
        "reward_mean": statistics.fmean(rewards) if rewards else None,
        "reward_std": statistics.pstdev(rewards) if rewards else None,
        "accuracy": _share(verdicts[Verdict.CORRECT], len(trained)),
        "response_length_mean": tokens / len(rows) if rows else None,
        "truncated_share": _share(sum(row.finish_reason == "length" for row in rows), len(rows)),
        "staleness_mean": sum(lag * count for lag, count in lags) / tokens if tokens else None,
        "staleness_max": max((lag for lag, _ in lags), default=None),
        "units": len(rollout.seal.units),
        "void_units": len(rollout.seal.void),
        **{f"verdict_{verdict.value}": verdicts[verdict] for verdict in Verdict},
    }


def trained_figures(result: StepResult, answers: int, learning_rate: float) -> Figures:
    """What the M-step did to `answers` graded answers."""
    losses = dict(result.losses)
    clip = {f"clip_{name}": losses.pop(name) for name in ("ratio_min", "ratio_mean", "ratio_max") if name in losses}
    losses["trained_tokens"] = losses.pop("tokens", 0.0)
    return {
        "loss": losses.pop("loss", 0.0),
        "entropy": losses.pop("entropy", None),
        **summarize_agreement(result.agreement),
        "advantage_mean": result.advantages.get("advantage_mean"),
        "advantage_std": result.advantages.get("advantage_std"),
        "filtered_share": _share(result.advantages["answers_filtered"], answers),
        "zero_variance_share": _share(result.advantages["groups_zero_variance"], result.advantages["groups"]),
        "grad_norm": result.gradient_norm,
        "learning_rate": learning_rate,
        "optimizer_steps": result.optimizer_steps,
        **losses,
        **clip,
    }


def check_guards(guards: GuardsSpec, history: Sequence[Figures], figures: Figures) -> None:
    """Diverged if log-probs disagree or rewards collapsed. `history` has the figures of the earlier iterations."""
    mismatch = figures["logprob_mismatch"]
    if mismatch is not None and not mismatch <= guards.max_logprob_mismatch:  # NaN too
        raise Diverged(
            f"sampler and learner differ by {mismatch:.3g} nats per token for the same policy, more than "
            f"guards.maxLogprobMismatch ({guards.max_logprob_mismatch:g}); compare model.dtype, learner.precision and "
            "sampler.engineArgs"
        )
    if not guards.reward_collapse_ratio:
        return
    rewards = [row["reward_mean"] for row in (*history, figures) if row.get("reward_mean") is not None]
    means = [
        statistics.fmean(rewards[end - COLLAPSE_ITERATIONS : end])
        for end in range(COLLAPSE_ITERATIONS, len(rewards) + 1)
    ]
    if means and means[-1] < guards.reward_collapse_ratio * max(means):
        raise Diverged(
            f"the mean reward of {COLLAPSE_ITERATIONS} iterations fell from {max(means):.3g} to {means[-1]:.3g}, "
            f"below guards.rewardCollapseRatio ({guards.reward_collapse_ratio:g})"
        )


def _share(count: float, of: float) -> float | None:
    return count / of if of else None
