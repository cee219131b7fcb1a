"""Tensors as safetensors files of bounded size, made and read one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import safetensors.torch
import torch
from torch import Tensor

from empg.rundir.group import Manifest, read_file
from empg.store.base import Store

SHARD_BYTES = 4 << 30
"""Tensors in one file, in bytes; a larger tensor has a file of its own."""

HEADER = {"format": "pt"}


def divide(sizes: Mapping[str, int], limit: int = SHARD_BYTES) -> list[list[str]]:
    """Names in their order, cut into runs of at most `limit` bytes."""
    runs: list[list[str]] = []
    total = 0
    for name, size in sizes.items():
        if not runs or total + size > limit:
            runs.append([])
            total = 0
        runs[-1].append(name)
        total += size
    return runs


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """The tensors as one safetensors file."""
    cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(cpu, metadata=HEADER)


def read_tensors(store: Store, prefix: str, manifest: Manifest, stem: str) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the files of a group whose names begin with `stem`, verified, one file in memory at a time.

    They come in the same order on every rank; safetensors' own differs from process to process.
    """
    for name in sorted(manifest.files):
        if name.startswith(stem) and name.endswith(".safetensors"):
            tensors = safetensors.torch.load(read_file(store, prefix, manifest, name))
            yield from sorted(tensors.items(), key=lambda item: item[0])


def bytes_of(shape: torch.Size, dtype: torch.dtype) -> int:
    """Size of a tensor."""
    return shape.numel() * dtype.itemsize
