"""`spec.guards`: conditions under which a run stops instead of training on."""

from __future__ import annotations

from empg.api.base import Spec, field


class GuardsSpec(Spec):
    """Bounds; a run that leaves one ends with exit code 65 (diverged) and says which."""

    max_void_share: float = field(0.25, change="live", ge=0, le=1)
    """Largest share of void units in an iteration."""
    max_error_share: float = field(0.25, change="live", ge=0, le=1)
    """Largest share of answers whose grader failed or timed out. They are left out of training."""
    max_unparseable_share: float = field(1.0, change="live", ge=0, le=1)
    """Largest share of answers in which no answer was found. 1: off."""
    max_logprob_mismatch: float = field(1.0, change="live", gt=0, le=100)
    """Largest mean |behaviour − learner| log-prob per token in nats, over tokens sampled with the learner's policy."""
    reward_collapse_ratio: float = field(0.0, change="live", ge=0, le=1)
    """Stop when the mean reward of 10 iterations falls below this share of the best such mean. 0: off."""
