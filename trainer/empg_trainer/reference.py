"""The reference policy: policy 0 as it was published, for objectives that hold on to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from empg.api.learner import LearnerSpec
from empg_trainer.deepspeed_engine import holding
from empg_trainer.policy import Policy


class Reference:
    """A policy that is not trained, on all ranks: whole on each, or at ZeRO 3 partitioned."""

    def __init__(self, model: PreTrainedModel, learner: LearnerSpec, device: torch.device) -> None:
        """Take over `model`."""
        policy = Policy(model, learner.logprob_chunk_tokens).eval().requires_grad_(False)
        if learner.zero_stage == 3:
            import deepspeed

            self._forward, *_ = deepspeed.initialize(model=policy, config=holding(learner), dist_init_required=False)
        else:
            self._forward = policy.to(device)

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of `Policy.forward`; at ZeRO 3 a collective operation."""
        logprobs, entropy = self._forward(**inputs)
        return logprobs, entropy
