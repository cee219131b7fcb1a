"""Planning: pure policies, one per file, and `plan`, which asks them all."""

from empg_operator.plan.decide import plan

__all__ = ["plan"]
