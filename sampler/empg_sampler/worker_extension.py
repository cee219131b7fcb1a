"""What each vLLM worker does at a swap. vLLM mixes the class into its worker (`worker_extension_cls`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from empg_sampler.weights import read_tensors

# It warns at each swap of layers that have nothing to load, as rotary embeddings, and of the tied head (see below).
logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)


class PolicyWorker:
    """Replaces the weights of a worker in place."""

    vllm_config: Any
    model_runner: Any

    @torch.no_grad()
    def load_policy(self, paths: Sequence[str]) -> None:
        """Load the safetensors files of a policy that was verified. Any error leaves the model unusable."""
        from vllm.config import set_current_vllm_config

        model = self.model_runner.get_model()
        with set_current_vllm_config(self.vllm_config):
            self.model_runner.reload_weights(weights_iterator=read_tensors([Path(path) for path in paths]))
            _repack_tied_head(model)
        # A layer that the iterator did not feed stays on the meta device without an exception.
        if unset := [name for name, weight in model.named_parameters() if weight.is_meta]:
            raise RuntimeError(f"weights without values after a swap: {unset[:3]}")


def _repack_tied_head(model: torch.nn.Module) -> None:
    """Renew the head's packed copy of the embedding.

    On CPU the head of a tied model keeps the embedding's weights in a packed form of its own, which vLLM does not renew
    when it reloads: the new body would answer through the old head. On GPU both are one tensor.
    """
    from vllm.platforms import current_platform

    head = getattr(model, "lm_head", None)
    embedding = getattr(getattr(model, "model", None), "embed_tokens", None)
    tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
    if not current_platform.is_cpu() or not tied or head is None or embedding is None or head is embedding:
        return
    head.weight = embedding.weight
    head.quant_method.process_weights_after_loading(head)
