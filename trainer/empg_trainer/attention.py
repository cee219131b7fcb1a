"""Attention over packed sequences: each token sees the earlier tokens of its own sequence and nothing else.

Registered with transformers under ``PACKED``, so it serves every model that dispatches its attention by name. The base
model receives the boundaries as ``cu_seq_lens_q`` and ``max_length_q``, the names transformers itself uses for packed
input, and hands them down unchanged.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PACKED = "empg_packed"

SHORTEST_SHARE = 0.75
"""A sequence joins a bucket whose longest is at most so much longer that it fills this share."""


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
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of ``query`` [1, heads, T, d] over ``key`` and ``value`` [1, kv_heads, T, d], packed sequences.

    ``cu_seq_lens_q`` [S + 1] holds the boundaries of the S sequences, int32, from 0 to T; ``max_length_q`` is the
    longest of them. Returns [1, T, heads, d]. Dropout is ignored: sampler and learner must be the same network.

    In bfloat16 on CUDA this is one call of ``torch.nn.attention.varlen``; no test covers it without a GPU. Elsewhere it
    is one SDPA call for each bucket of sequences of similar length: one masked call over all of them would be quadratic
    in T, and one call per sequence spends more time on starting threads than on arithmetic when sequences are short.
    """
    assert attention_mask is None, "packed attention derives its mask from the sequence boundaries"
    for name in ("softcap", "s_aux"):
        if options.get(name) is not None:
            raise ValueError(
                f"{type(module).__name__} uses {name}, which packed attention does not have; use another model"
            )
    groups = query.shape[1] != key.shape[1]
    if query.is_cuda and query.dtype is torch.bfloat16:
        from torch.nn.attention.varlen import varlen_attn

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
        return out[None], None
    layout = _layout(tuple(cu_seq_lens_q.tolist()), query.device)
    parts = []
    for bucket in layout.buckets:
        shape = (bucket.count, bucket.length)
        q, k, v = (tensor[0, :, bucket.source].unflatten(1, shape).transpose(0, 1) for tensor in (query, key, value))
        mask = None
        if sliding_window is not None and bucket.length > sliding_window:
            mask = _window_mask(bucket.length, sliding_window, query.device)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=groups
        )
        parts.append(out.transpose(1, 2).flatten(0, 1)[bucket.real])
    return torch.cat(parts)[layout.order][None], None


@dataclass(frozen=True)
class _Bucket:
    """Sequences of similar length, as one padded batch [count, length]."""

    count: int
    length: int
    source: Tensor
    """[count * length] token of the pack at each place; after the end of a sequence its last token again, which no real
    token sees, for it comes later."""
    real: Tensor
    """Places that are not padding, in order."""


@dataclass(frozen=True)
class _Layout:
    buckets: list[_Bucket]
    order: Tensor
    """[T] where each token of the pack is among the real places of all buckets."""


@lru_cache(maxsize=4)
def _layout(bounds: tuple[int, ...], device: torch.device) -> _Layout:
    """Sequences sorted into buckets that are at least SHORTEST_SHARE full. All layers of a pass share one layout."""
    spans = sorted(((end - start, start) for start, end in itertools.pairwise(bounds) if end > start), reverse=True)
    groups: list[list[tuple[int, int]]] = []
    for span in spans:
        if groups and span[0] >= SHORTEST_SHARE * groups[-1][0][0]:
            groups[-1].append(span)
        else:
            groups.append([span])
    buckets, tokens = [], []
    for group in groups:
        lengths, starts = torch.tensor(group, device=device).unbind(1)
        offsets = torch.arange(group[0][0], device=device)
        source = starts[:, None] + torch.minimum(offsets[None], lengths[:, None] - 1)
        real = offsets[None] < lengths[:, None]
        tokens.append(source[real])
        buckets.append(_Bucket(len(group), group[0][0], source.flatten(), real.flatten().nonzero().squeeze(1)))
    placed = torch.cat(tokens)
    order = torch.empty_like(placed)
    order[placed] = torch.arange(len(placed), device=device)
    return _Layout(buckets, order)


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """Boolean mask [length, length]: a token sees itself and the ``window`` − 1 tokens before it."""
    position = torch.arange(length, device=device)
    behind = position[:, None] - position[None, :]
    return (behind >= 0) & (behind < window)


def _no_mask(*_: Any, **__: Any) -> None:
    """The mask of packed attention: none, the boundaries say it all."""


ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, _no_mask)
