"""The learner's attention on CPU, a call per sequence over splits, beside a call per slice and one padded call.

    python benchmarks/attention.py [--quick]

Forward and backward pass of one layer over packed sequences; medians over rounds in which all three take turns, after a
check that they compute the same.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from host import describe
from torch import Tensor

from empg_trainer.attention import packed_attention

HEADS, KV_HEADS, WIDTH = 4, 2, 32
Attention = Callable[[Tensor, Tensor, Tensor, Sequence[int]], Tensor]
"""[1, heads, T, d] of query, key and value, and the sequences' lengths, to [T, heads, d]."""


def ours(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    """A call per sequence, each a part of a split."""
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    out, _ = packed_attention(
        torch.nn.Module(), query, key, value, None, cu_seq_lens_q=bounds, max_length_q=max(lengths)
    )
    return out[0]


def sliced(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    """A call per sequence, each a slice."""
    ends = list(itertools.accumulate(lengths))
    outs = []
    for start, end in zip([0, *ends], ends, strict=False):
        q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
        outs.append(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
    return torch.cat(outs, dim=2)[0].transpose(0, 1)


def padded(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    """One call, every sequence as long as the longest."""
    real = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    batches = []
    for tensor in (query, key, value):
        batch = tensor.new_zeros(*real.shape, tensor.shape[1], tensor.shape[3])
        batch[real] = tensor[0].transpose(0, 1)
        batches.append(batch.transpose(1, 2))
    q, k, v = batches
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)[real]


WAYS: dict[str, Attention] = {"ours": ours, "sliced": sliced, "padded": padded}

SHAPES = {
    "256 short answers": torch.distributions.Normal(65.0, 6.0),
    "64 answers of any length": torch.distributions.Exponential(1 / 300.0),
    "4 long answers": torch.distributions.Normal(1800.0, 100.0),
}
"""Distribution of sequence lengths in tokens by name, which begins with the number of sequences."""


def lengths_of(name: str) -> list[int]:
    """Lengths of the sequences of a shape, the same every time."""
    torch.manual_seed(0)
    drawn = SHAPES[name].sample((int(name.split()[0]),))
    return [int(length) for length in drawn.clamp(8, 2048)]


def once(way: Attention, lengths: Sequence[int]) -> tuple[float, list[Tensor]]:
    """Seconds of a forward and a backward pass, and what came out: the output and three gradients."""
    torch.manual_seed(1)
    total = sum(lengths)
    tensors = [torch.randn(1, heads, total, WIDTH, requires_grad=True) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    started = time.perf_counter()
    out = way(*tensors, lengths)
    out.square().sum().backward()
    return time.perf_counter() - started, [out, *(tensor.grad for tensor in tensors)]


def main() -> None:
    """Print a table of milliseconds."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="two rounds, for a look whether it works")
    rounds = 2 if arguments.parse_args().quick else 30
    print(describe())
    print(f"{'milliseconds':28}" + "".join(f"{way:>14}" for way in WAYS))
    for name in SHAPES:
        lengths = lengths_of(name)
        for found in zip(*(once(way, lengths)[1] for way in WAYS.values()), strict=True):
            for tensor in found[1:]:
                torch.testing.assert_close(tensor, found[0], atol=1e-4, rtol=1e-4)
        timed: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, attention in WAYS.items():
                timed[way].append(once(attention, lengths)[0])
        medians = {way: 1000 * statistics.median(times) for way, times in timed.items()}
        print(f"{name:28}" + "".join(f"{median:14.1f}" for median in medians.values()))


if __name__ == "__main__":
    main()
