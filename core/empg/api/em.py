"""`spec.em`: the size and pace of the E-step."""

from __future__ import annotations

from empg.api.base import Spec, field
from empg.api.rule import Rule


class EMSpec(Spec):
    """How many iterations, and what one iteration samples."""

    iterations: int = field(change="live", ge=1, le=1_000_000)
    """E- and M-steps to make."""
    prompts_per_iteration: int = field(32, change="live", ge=1, le=1_000_000)
    """Prompts sampled in one E-step."""
    samples_per_prompt: int = field(8, change="live", ge=1, le=4096)
    """Answers per prompt (G)."""
    prompts_per_unit: int = field(8, change="live", ge=1, le=65536)
    """Prompts in one unit of work, the piece that a sampler claims and commits."""
    max_staleness: int = field(0, change="live", ge=0, le=64)
    """A unit of iteration t may be sampled with policy t − maxStaleness or newer. 0: strict EM. 1: samplers work while
    the learner trains."""
    seed: int = field(0, change="immutable", ge=0, le=2**31 - 1)
    """Seed of prompt order, sampling and evaluation."""
    unit_attempts: int = field(3, change="live", ge=1, le=100)
    """A unit whose attempts failed this often is void: left out of its iteration, and counted."""

    rules = (
        Rule(
            "promptsPerUnit",
            "em.promptsPerUnit ({self.prompts_per_unit}) must divide em.promptsPerIteration "
            "({self.prompts_per_iteration})",
            cel="self.promptsPerIteration <= self.promptsPerUnit || "
            "self.promptsPerIteration % self.promptsPerUnit == 0",
            holds=lambda em: em.prompts_per_iteration % min(em.prompts_per_unit, em.prompts_per_iteration) == 0,
        ),
    )
