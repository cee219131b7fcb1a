"""The M-step: from the graded answers of an iteration to a better policy. Every rank runs it on the same answers."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from empg.api.run import RunSpec
from empg.objective import Objective
from empg.trajectory import Trajectory
from empg_trainer.agreement import agreement
from empg_trainer.batch import MicroBatch, bundle_length, collate, share_prompts
from empg_trainer.deepspeed_engine import Engine
from empg_trainer.objectives import (
    Advantages,
    advantages,
    aggregation_weights,
    combine,
    reduction,
    reference_kl,
    summarize,
    token_loss,
)
from empg_trainer.packing import pack
from empg_trainer.stop import Diverged

Forward = Callable[..., tuple[Tensor, Tensor]]
"""`Policy.forward` of some model on every rank."""


@dataclass(frozen=True)
class Sampled:
    """How the answers were sampled."""

    iteration: int
    temperature: float
    max_tokens: int
    whole: bool
    """Whether from the whole distribution, so that the sampler's log-probs are comparable with the learner's."""


@dataclass(frozen=True)
class StepResult:
    """What an M-step did, equal on every rank."""

    optimizer_steps: int
    gradient_norm: float | None
    """Largest global norm of the steps before clipping; None without a step."""
    advantages: dict[str, float]
    """Counts and moments of rewards and advantages."""
    losses: dict[str, float]
    """Objective's metrics: the mean loss of the steps, and means over the tokens of all steps."""
    agreement: dict[str, float]
    """How the sampler's log-probs compare with the learner's, over the tokens of the first step, before it."""


class MStep:
    """One M-step over the answers `rows`, all with at least one response token."""

    def __init__(
        self, engine: Engine, spec: RunSpec, rows: Sequence[Trajectory], sampled: Sampled, budget: int
    ) -> None:
        """`budget` is the number of tokens of a micro-batch."""
        self.engine = engine
        self.spec = spec
        self.objective: Objective = spec.objective.resolve()
        self.rows = rows
        self.sampled = sampled
        self.budget = budget
        self.rank = torch.distributed.get_rank()
        self.lengths = torch.tensor([len(row.response_ids) for row in rows], dtype=torch.int64)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.behaviour = torch.tensor([value for row in rows for value in row.logprobs], dtype=torch.float32)
        self.own = torch.tensor(
            [
                sampled.whole and version == sampled.iteration
                for row in rows
                for version, count in row.policy_versions
                for _ in range(count)
            ]
        )

    def run(self, learning_rate: float, reference: Forward | None) -> StepResult:
        """Make all optimizer steps of the iteration. `reference` is needed where the objective needs it.

        Raises:
            Diverged: a reward, log-prob or gradient is not finite.
        """
        objective = self.objective
        old = self.logprobs(self.engine.forward) if objective.needs_old else None
        ref = None
        if objective.needs_reference:
            assert reference is not None, "the objective needs the reference model"
            ref = self.logprobs(reference)
        self.advantages = self._advantages(old, ref)
        if objective.single_step:
            old = None  # The step's own pass: one that was packed with other answers is rounded differently.

        parts: list[dict[str, Tensor]] = []
        first: dict[str, Tensor] | None = None
        norms: list[float] = []
        for epoch in range(objective.epochs):
            for chosen in self._minibatches(epoch):
                weights = self._weights(chosen)
                if not weights.any():
                    continue
                metrics, compared = self._accumulate(chosen, weights, old, ref)
                if not metrics["loss_sum"].isfinite():
                    raise Diverged(f"iteration {self.sampled.iteration}: the loss is not finite; look at log-probs")
                norms.append(self.engine.step(learning_rate, self.spec.optimizer.weight_decay))
                parts.append(metrics)
                first = first or compared
        return StepResult(
            optimizer_steps=len(norms),
            gradient_norm=max(norms, default=None),
            advantages=self.advantages.stats,
            losses=summarize(combine(parts), len(parts)) if parts else {},
            agreement={name: float(value) for name, value in (first or {}).items()},
        )

    def logprobs(self, forward: Forward) -> Tensor:
        """Log-probs [sum of lengths] of every response token, answer after answer, on the CPU of every rank."""
        found = torch.zeros(int(self.lengths.sum()))
        with torch.no_grad():
            for batch in self._micro_batches(range(len(self.rows))):
                values, _ = forward(**batch.inputs(), temperature=self.sampled.temperature)
                if not batch.padding:
                    found[self._places(batch)] = values.cpu()
        torch.distributed.all_reduce(found)
        return found

    def _advantages(self, old: Tensor | None, reference: Tensor | None) -> Advantages:
        groups = {prompt: index for index, prompt in enumerate(dict.fromkeys(row.prompt_id for row in self.rows))}
        kl = None
        if self.objective.kl == "reward":
            assert reference is not None, "read above"
            kl = reference_kl("k1", self.behaviour if old is None else old, reference)
        try:
            return advantages(
                self.objective,
                torch.tensor([row.reward for row in self.rows], dtype=torch.float64),
                torch.tensor([groups[row.prompt_id] for row in self.rows], dtype=torch.int64),
                self.lengths,
                kl,
            )
        except ValueError as error:
            raise Diverged(str(error)) from error

    def _minibatches(self, epoch: int) -> list[list[int]]:
        """Answers of each optimizer step of an epoch: all, or shares of an order hashed from seed and iteration."""
        count = self.objective.minibatches
        if count == 1:
            return [list(range(len(self.rows)))]

        def place(index: int) -> bytes:
            row = self.rows[index]
            key = f"{self.spec.em.seed}|minibatch|{self.sampled.iteration}|{epoch}|{row.prompt_id}|{row.sample}"
            return hashlib.blake2b(key.encode(), digest_size=8).digest()

        order = sorted(range(len(self.rows)), key=place)
        bounds = [len(order) * share // count for share in range(count + 1)]
        return [order[start:end] for start, end in itertools.pairwise(bounds)]

    def _weights(self, chosen: Sequence[int]) -> Tensor:
        """Loss weight of a token of each answer of the iteration [N] float64; 0 outside this optimizer step."""
        weights = torch.zeros(len(self.rows), dtype=torch.float64)
        index = torch.tensor(chosen, dtype=torch.int64)
        weights[index] = aggregation_weights(
            self.objective, self.lengths[index], self.advantages.keep[index], self.sampled.max_tokens
        )
        return weights

    def _accumulate(
        self, chosen: Sequence[int], weights: Tensor, old: Tensor | None, reference: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Forward and backward of one optimizer step; returns the objective's metrics and the agreement's."""
        objective, device = self.objective, self.engine.device
        parts, compared = [], []
        for batch in self._micro_batches([index for index in chosen if weights[index] != 0]):
            logprobs, entropy = self.engine.forward(
                **batch.inputs(),
                temperature=self.sampled.temperature,
                entropy_gradient=objective.needs_entropy,
            )
            places = self._places(batch)
            behaviour = self.behaviour[places].to(device)
            token_weights = torch.zeros(1, dtype=torch.float64) if batch.padding else weights[batch.answers.cpu()]
            loss, metrics = token_loss(
                objective,
                logprobs,
                old=None if old is None else old[places].to(device),
                behaviour=behaviour,
                reference=None if reference is None else reference[places].to(device),
                advantages=self._token_advantages(batch).to(device),
                entropy=entropy,
                sequence_ids=batch.answers,
                weights=token_weights.to(device),
            )
            self.engine.backward(loss)
            parts.append(metrics)
            active = torch.zeros(1, dtype=torch.bool) if batch.padding else torch.ones_like(places, dtype=torch.bool)
            compared.append(agreement(logprobs.detach(), behaviour, self.own[places].to(device), active.to(device)))
        return _over_ranks(combine(parts)), _over_ranks(combine(compared))

    def _micro_batches(self, chosen: Sequence[int]) -> list[MicroBatch]:
        """This rank's share, on the engine's device; the same number on every rank."""
        bundles = share_prompts(self.rows, chosen, self.engine.world, self.budget)
        lengths = [bundle_length(self.rows, bundle) for bundle in bundles]
        packing = pack(lengths, self.engine.world, self.budget)[self.rank]
        return [collate(self.rows, [bundles[place] for place in part]).to(self.engine.device) for part in packing]

    def _places(self, batch: MicroBatch) -> Tensor:
        """Index of each response token among those of all answers, on the CPU."""
        return self.starts[batch.answers.cpu()] + batch.offsets.cpu()

    def _token_advantages(self, batch: MicroBatch) -> Tensor:
        found = self.advantages
        places = self._places(batch)
        return found.values[batch.answers.cpu()] if found.offsets is None else found.values[places]


def _over_ranks(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Metrics of all ranks as one, float64 on the CPU. Every rank has the same names."""
    operations = {
        "sum": torch.distributed.ReduceOp.SUM,
        "min": torch.distributed.ReduceOp.MIN,
        "max": torch.distributed.ReduceOp.MAX,
    }
    reduced: dict[str, Tensor] = {}
    for kind, operation in operations.items():
        names = sorted(name for name in metrics if reduction(name) == kind)
        if names:
            values = torch.stack([metrics[name].double().cpu() for name in names])
            torch.distributed.all_reduce(values, operation)
            reduced |= dict(zip(names, values.unbind(), strict=True))
    return reduced
