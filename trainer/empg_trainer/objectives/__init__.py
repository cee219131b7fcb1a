"""The mathematics of the M-step: pure functions from tensors to tensors, for every `empg.objective.Objective`.

One iteration calls `advantages` once over its whole batch, `aggregation_weights` once per optimizer step over all
answers of that step, and `token_loss` per micro-batch. Losses and metrics of micro-batches and ranks add up, so
neither the size of a micro-batch nor the number of ranks changes the loss.
"""

from empg_trainer.objectives.advantages import Advantages, advantages
from empg_trainer.objectives.aggregate import aggregation_weights
from empg_trainer.objectives.kl import reference_kl
from empg_trainer.objectives.losses import token_loss
from empg_trainer.objectives.metrics import combine, reduction, summarize

__all__ = [
    "Advantages",
    "advantages",
    "aggregation_weights",
    "combine",
    "reduction",
    "reference_kl",
    "summarize",
    "token_loss",
]
