"""Guards on the figures of an iteration, and how sampler and learner compare."""

import math

import pytest
import torch

from empg.api.guards import GuardsSpec
from empg_trainer.agreement import agreement, summarize_agreement
from empg_trainer.record import check_guards
from empg_trainer.stop import Diverged


def compared(learner, sampler, own, active=None):
    active = torch.ones(len(own), dtype=torch.bool) if active is None else torch.tensor(active)
    found = agreement(torch.tensor(learner), torch.tensor(sampler), torch.tensor(own), active)
    return summarize_agreement({name: float(value) for name, value in found.items()})


def test_agreement_of_two_tokens():
    found = compared([-1.0, -2.0], [-1.5, -1.0], own=[True, False])
    assert found["kl_behaviour"] == pytest.approx(0.25)
    assert found["ratio_max"] == pytest.approx(math.exp(0.5))
    assert found["ratio_min"] == pytest.approx(math.exp(-1.0))
    assert found["logprob_mismatch"] == pytest.approx(0.5)


def test_padding_has_no_part_in_the_agreement():
    assert compared([-1.0, 9.0], [-1.0, -9.0], own=[True, True], active=[True, False])["ratio_max"] == 1.0
    assert compared([-1.0], [-1.0], own=[True], active=[False])["logprob_mismatch"] is None


def rewards(*means):
    return [{"reward_mean": mean, "logprob_mismatch": None} for mean in means]


def test_rewards_that_fall_below_a_share_of_their_best_end_the_run():
    *history, last = rewards(*[0.8] * 10, *[0.0] * 9)
    check_guards(GuardsSpec(reward_collapse_ratio=0.05), history, last)
    with pytest.raises(Diverged, match="rewardCollapseRatio"):
        check_guards(GuardsSpec(reward_collapse_ratio=0.2), history, last)


def test_the_collapse_guard_is_off_by_default_and_waits_for_ten_iterations():
    *history, last = rewards(*[0.8] * 10, *[0.0] * 10)
    check_guards(GuardsSpec(), history, last)
    check_guards(GuardsSpec(reward_collapse_ratio=1.0), rewards(*[0.9] * 8), rewards(0.0)[0])


@pytest.mark.parametrize("mismatch", [1.5, math.nan])
def test_log_probs_that_disagree_end_the_run(mismatch):
    with pytest.raises(Diverged, match="maxLogprobMismatch"):
        check_guards(GuardsSpec(max_logprob_mismatch=1.0), [], {"reward_mean": 0.5, "logprob_mismatch": mismatch})
