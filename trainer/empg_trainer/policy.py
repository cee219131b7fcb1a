"""The module that DeepSpeed trains: token log-probs and entropies of responses, without the logits of a whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


class LogProbHead(nn.Module):
    """Output projection that turns hidden states into log-probs, a few rows of logits at a time.

    It owns the loop over rows. ZeRO 3 gathers a module's weights once before its forward pass and once before its
    backward pass; were the projection called once per chunk instead, ranks with different numbers of chunks would
    run different numbers of collective operations and wait for each other for ever.
    """

    def __init__(self, projection: nn.Linear, chunk_tokens: int) -> None:
        super().__init__()
        self.weight = projection.weight
        self.bias = projection.bias
        self.chunk_tokens = chunk_tokens

    def forward(
        self, hidden: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies [n] in float32 of `targets` [n] after `hidden` [n, d]; at least one row."""
        logprobs, entropies = [], []
        for rows, wanted in zip(hidden.split(self.chunk_tokens), targets.split(self.chunk_tokens), strict=True):
            if torch.is_grad_enabled():
                logprob, entropy = checkpoint(
                    self._chunk, rows, wanted, temperature, entropy_gradient, use_reentrant=False
                )
            else:
                logprob, entropy = self._chunk(rows, wanted, temperature, entropy_gradient)
            logprobs.append(logprob)
            entropies.append(entropy)
        return torch.cat(logprobs), torch.cat(entropies)

    def _chunk(
        self, hidden: Tensor, targets: Tensor, temperature: float, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        logits = F.linear(hidden, self.weight, self.bias).float() / temperature
        normaliser = logits.logsumexp(dim=-1)
        logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = normaliser - (torch.softmax(logits, dim=-1) * logits).sum(dim=-1)
        return logprobs, entropy


class Policy(nn.Module):
    """A causal language model whose forward pass returns log-probs of chosen tokens of packed sequences."""

    def __init__(self, model: PreTrainedModel, chunk_tokens: int) -> None:
        """Take over `model`, whose attention must be `attention.PACKED`; dropout is switched off."""
        super().__init__()
        projection = model.get_output_embeddings()
        if not isinstance(projection, nn.Linear) or model.base_model is model:
            raise ValueError(
                f"model: {type(model).__name__} has no linear output layer apart from its base model; "
                "use a decoder-only model of transformers"
            )
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        # Some call the function, with rates of the layer or of the configuration.
        for holder in (*model.modules(), model.config):
            for name, value in vars(holder).items():
                if name.endswith("dropout") and isinstance(value, float):
                    setattr(holder, name, 0.0)
        self.backbone = model.base_model
        self.head = LogProbHead(projection, chunk_tokens)

    def checkpoint_activations(self) -> None:
        """Compute the activations of layers again in the backward pass. All else stays as in evaluation: what a model
        does at random in training, the sampler's does not.

        ValueError when the model has no layers that can.
        """
        layers = [module for module in self.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise ValueError(
                f"learner.activationCheckpointing: {type(self.backbone).__name__} has no layers of transformers that "
                "can; turn it off"
            )
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for layer in layers:
            layer.training = True

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        cu_seqlens: Tensor,
        max_length: int,
        positions: Tensor,
        targets: Tensor,
        temperature: float,
        entropy_gradient: bool = False,
        unroll: Tensor | None = None,
        roll: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies [n] in float32 at the sampling `temperature`.

        `input_ids` and `position_ids` [T] hold packed sequences with boundaries `cu_seqlens` [S + 1] (int32), the
        longest of `max_length` tokens; where some share tokens, `unroll` [U] and `roll` [T] lead to the whole
        sequences and back (`MicroBatch`). `targets` [n] are token ids; `positions` [n] index the token before each.
        The entropy carries a gradient only where asked for: it costs a second array of the size of the logits.
        """
        output = self.backbone(
            input_ids=input_ids[None],
            position_ids=position_ids[None],
            use_cache=False,
            cu_seq_lens_q=cu_seqlens,
            cu_seq_lens_k=cu_seqlens,
            max_length_q=max_length,
            max_length_k=max_length,
            unroll=unroll,
            roll=roll,
        )
        return self.head(output.last_hidden_state[0, positions], targets, temperature, entropy_gradient)
