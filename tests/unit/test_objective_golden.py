"""The numbers of reference implementations (verl, TRL, the authors' code) on one small batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from golden_batch import GOLDEN, GROUPS, LENGTHS, LOGPROBS, REFERENCE, REWARDS, N, loss_and_metrics

from empg.objective import PRESETS, Aggregate, KLEstimator, Objective
from empg_trainer.objectives import advantages, reference_kl

EMPG = PRESETS["empg"]
GRPO = replace(PRESETS["grpo"], kl="none")
CLIP = Objective(surrogate="ratio-clip")

ADVANTAGES: list[tuple[str, Objective]] = [
    ("grpo (verl, /std+1e-6)", GRPO),
    ("TRL group (eps 1e-4)", replace(GRPO, scale_epsilon=1e-4)),
    ("TRL batch scale", Objective(baseline="group-mean", scale="batch-std", scale_epsilon=1e-4)),
    ("dr_grpo (verl norm_adv_by_std=False)", PRESETS["dr-grpo"]),
    ("rloo (verl)", replace(PRESETS["rloo"], kl="none")),
    ("reinforce++ (verl)", replace(PRESETS["reinforce++"], kl="none")),
    ("reinforce++ (verl)", PRESETS["ppo-clip"]),
    ("reinforce++-baseline (verl)", PRESETS["reinforce++-baseline"]),
    ("EMPG (author code)", EMPG),
    ("EMPG paper eq.12 (seq whiten, sigmoid, minus mean)", PRESETS["empg-paper"]),
    ("raft (Minimal-RL)", PRESETS["raft"]),
    ("raft (Minimal-RL)", PRESETS["empg-raw"]),
    ("reinforce_rej (Minimal-RL, r=0/1)", Objective(filters=("zero-variance",))),
    ("reinforce_rej (Minimal-RL, r=0/1)", Objective(filters=("all-right", "all-wrong"))),
    ("reinforce_rej (r=-1/+1)", Objective(reward_map="plus-minus-one", filters=("zero-variance",))),
]

AGGREGATES: list[tuple[str, Aggregate, float]] = [
    ("token-mean", "token-mean", 1),
    ("seq-mean-token-mean", "seq-mean-token-mean", 1),
    ("seq-mean-token-sum", "seq-mean-token-sum", 1),
    # verl divides by the longest answer alone, Dr. GRPO and TRL by the number of answers too.
    ("seq-mean-token-sum-norm", "constant", N),
]


def check_loss(objective: Objective, expected: float) -> None:
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 1e-5)):
        loss, _ = loss_and_metrics(objective, LOGPROBS.to(dtype))
        assert loss.dtype == dtype
        assert float(loss) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("name", "objective"), ADVANTAGES)
def test_advantages(name: str, objective: Objective) -> None:
    estimate = advantages(objective, REWARDS, GROUPS, LENGTHS)
    expected = torch.tensor(GOLDEN["advantages"][name], dtype=torch.float64)
    torch.testing.assert_close(estimate.values, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("name", "aggregate", "factor"), AGGREGATES)
@pytest.mark.parametrize(("estimator", "objective"), [("EMPG", replace(EMPG, entropy_coef=0)), ("GRPO", GRPO)])
def test_losses(estimator: str, objective: Objective, name: str, aggregate: Aggregate, factor: float) -> None:
    logp = replace(objective, surrogate="logp", aggregate=aggregate)
    check_loss(logp, GOLDEN["losses"][f"logp|{estimator}|{name} (verl gpg loss)"] / factor)
    clip = replace(objective, surrogate="ratio-clip", dual_clip=3.0, aggregate=aggregate)
    key = f"ppo-clip .2/.2 dual c=3|{estimator}|{name} (verl vanilla)"
    check_loss(clip, GOLDEN["losses"][key] / factor)


def test_the_authors_loss() -> None:
    expected = GOLDEN["losses"]["EMPG author compute_policy_loss off_policy_pg"]
    check_loss(replace(EMPG, entropy_coef=0), expected)


def test_raft_losses() -> None:
    raft = replace(PRESETS["raft"], kl="none", minibatches=1)
    check_loss(raft, GOLDEN["losses"]["raft vanilla (Minimal-RL)"])
    check_loss(replace(raft, surrogate="ratio-clip"), GOLDEN["losses"]["raft++ (Minimal-RL clip)"])


@pytest.mark.parametrize(
    ("name", "aggregate"),
    [
        ("TRL loss_type=grpo (formula)", "seq-mean-token-mean"),
        ("TRL bnpo/dapo (formula)", "token-mean"),
        ("TRL dr_grpo max_len=4 (formula)", "constant"),
    ],
)
def test_trl_grpo_losses(name: str, aggregate: Aggregate) -> None:
    check_loss(replace(GRPO, scale_epsilon=1e-4, aggregate=aggregate), GOLDEN["losses"][name])


def test_trl_clips_ratios_of_whole_answers() -> None:
    check_loss(replace(PRESETS["rloo"], kl="none"), GOLDEN["losses"]["TRL RLOOTrainer seq-ratio clip (formula)"])


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_reference_kl(estimator: KLEstimator) -> None:
    expected = GOLDEN["losses"][f"KL {estimator} token-mean (verl)"]
    assert float(reference_kl(estimator, LOGPROBS, REFERENCE).mean()) == pytest.approx(expected, abs=1e-8)
    plain = replace(PRESETS["raft"], kl="none", minibatches=1)
    penalised = replace(plain, kl="loss", kl_estimator=estimator, kl_beta=0.5)
    check_loss(penalised, float(loss_and_metrics(plain)[0]) + expected / 2)
    assert float(loss_and_metrics(penalised)[1]["reference_kl_sum"]) == pytest.approx(expected * 28, abs=1e-7)
