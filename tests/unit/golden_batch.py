"""The golden batch: three prompts with four answers each, with log-probs in closed form (see tests/data)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from empg.objective import Objective
from empg_trainer.objectives import Advantages, advantages, aggregation_weights, token_loss

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "algorithms_golden.json").read_text())
LENGTHS = torch.tensor(GOLDEN["inputs"]["lengths"])
REWARDS = torch.tensor(GOLDEN["inputs"]["rewards"], dtype=torch.float64)
GROUPS = torch.tensor([ord(name) for name in GOLDEN["inputs"]["group"]])
LONGEST = GOLDEN["inputs"]["T"]
N = len(LENGTHS)
SEQUENCES = torch.repeat_interleave(torch.arange(N), LENGTHS)
POSITIONS = torch.cat([torch.arange(int(length)) for length in LENGTHS])
LOGPROBS = -0.1 * (1 + (3 * SEQUENCES + 5 * POSITIONS) % 7).double()
OLD = LOGPROBS + 0.2 * ((SEQUENCES + 2 * POSITIONS) % 5 - 2)
REFERENCE = LOGPROBS + 0.04 * ((2 * SEQUENCES + POSITIONS) % 5 - 2)
# Not in the file: a sampler that differs from the old policy, and some entropy.
BEHAVIOUR = OLD + 0.1 * ((2 * SEQUENCES + 3 * POSITIONS) % 7 - 3)
ENTROPY = 0.5 + 0.1 * ((SEQUENCES + POSITIONS) % 4).double()


def estimate(objective: Objective) -> Advantages:
    """Advantages of the golden batch."""
    kl = OLD - REFERENCE if objective.kl == "reward" else None
    return advantages(objective, REWARDS, GROUPS, LENGTHS, kl)


def loss_and_metrics(
    objective: Objective, logprobs: Tensor = LOGPROBS, old: Tensor | None = OLD
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the golden batch in one micro-batch, in the number type of `logprobs`."""
    found = estimate(objective)
    weights = aggregation_weights(objective, LENGTHS, found.keep, LONGEST)
    return token_loss(
        objective,
        logprobs,
        old=old,
        behaviour=BEHAVIOUR,
        reference=REFERENCE,
        advantages=torch.cat([found.of(row) for row in range(N)]),
        entropy=ENTROPY,
        sequence_ids=SEQUENCES,
        weights=weights[SEQUENCES],
    )
