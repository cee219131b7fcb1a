"""Attention over packed sequences: each token sees the earlier tokens of its own sequence and nothing else.

Registered with transformers under `PACKED`, so it serves every model that dispatches its attention by name. The base
model receives the boundaries as `cu_seq_lens_q` and `max_length_q`, the names transformers itself uses for packed
input, and hands them down unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PACKED = "empg_packed"
FLASH_WIDTH = 256
"""Widest head of the kernel for CUDA."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    unroll: Tensor | None = None,
    roll: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of `query` [1, heads, T, d] over `key` and `value` [1, kv_heads, T, d], packed sequences.

    `cu_seq_lens_q` [S + 1] holds the boundaries of the S sequences, int32, from 0 to T; `max_length_q` is the
    longest of them. Returns [1, T, heads, d]. Dropout is ignored: sampler and learner must be the same network.

    Where sequences share tokens, those boundaries are of the U tokens of the whole sequences. `unroll` [U] says which
    of the T tokens each one is, `roll` [T] where each of the T tokens is among them: attention is computed as if
    nothing were shared, so a token that several sequences share must see the same in all of them.

    In bfloat16 on CUDA this is one call of `torch.nn.attention.varlen`; no test covers it without a GPU. Elsewhere it
    is one SDPA call per sequence: one masked call over all of them would be quadratic in T, and padded batches cost
    more in copies than they save in calls (`benchmarks/attention.py`).
    """
    assert attention_mask is None, "packed attention derives its mask from the sequence boundaries"
    for name in ("softcap", "s_aux"):
        if options.get(name) is not None:
            raise ValueError(
                f"{type(module).__name__} uses {name}, which packed attention does not have; use another model"
            )
    if unroll is not None:
        assert roll is not None, "what is unrolled is rolled up again"
        query, key, value = (t.transpose(1, 2).index_select(1, unroll).transpose(1, 2) for t in (query, key, value))
        whole, _ = packed_attention(
            module,
            query,
            key,
            value,
            attention_mask,
            cu_seq_lens_q=cu_seq_lens_q,
            max_length_q=max_length_q,
            scaling=scaling,
            sliding_window=sliding_window,
            **options,
        )
        return whole.index_select(1, roll), None
    groups = query.shape[1] != key.shape[1]
    if query.is_cuda and query.dtype is torch.bfloat16 and value.shape[-1] <= query.shape[-1] <= FLASH_WIDTH:
        from torch.nn.attention.varlen import varlen_attn

        width = value.shape[-1]
        value = F.pad(value, (0, query.shape[-1] - width))  # The kernel has one width for all.
        query, key, value = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
        out = varlen_attn(
            query,
            key,
            value,
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
            enable_gqa=groups,
        )
        assert isinstance(out, Tensor)
        return out[None, ..., :width], None
    if groups and query.is_cuda:
        # With groups SDPA has no kernel for float32 on CUDA but the one that is quadratic in memory.
        repeats = query.shape[1] // key.shape[1]
        key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
        groups = False
    lengths = [length for length in cu_seq_lens_q.diff().tolist() if length]
    outs = []
    # split, not slices: its backward pass is one concatenation, that of a slice fills a gradient of all T tokens
    for q, k, v in zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True):
        mask = None
        if sliding_window is not None and q.shape[2] > sliding_window:
            mask = _window_mask(q.shape[2], sliding_window, query.device)
        outs.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=groups
            )
        )
    return torch.cat(outs, dim=2).transpose(1, 2), None


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """Boolean mask [length, length]: a token sees itself and the `window` − 1 tokens before it."""
    position = torch.arange(length, device=device)
    behind = position[:, None] - position[None, :]
    return (behind >= 0) & (behind < window)


def _no_mask(*_: Any, **__: Any) -> None:
    """The mask of packed attention: none, the boundaries say it all."""


ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, _no_mask)
