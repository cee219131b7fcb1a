"""Policies in Hugging Face layout: weights in the published number type, all else as the base model had it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from empg.rundir import keys
from empg.rundir.group import FileEntry, read_file
from empg.store.base import Store
from empg_trainer.deepspeed_engine import Engine
from empg_trainer.models import policy_manifest
from empg_trainer.shards import bytes_of, divide, encode
from empg_trainer.state import full_weight
from empg_trainer.stop import Diverged

INDEX = "model.safetensors.index.json"


def read_assets(store: Store, version: int) -> dict[str, bytes]:
    """Files of a published policy that are no weights: configuration, tokenizer, chat template."""
    manifest = policy_manifest(store, version)
    names = [name for name in manifest.files if not name.endswith(".safetensors") and name != INDEX]
    return {name: read_file(store, keys.policy_prefix(version), manifest, name) for name in names}


def trained_weights(engine: Engine, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Every parameter's name and its whole value in `dtype`. A collective operation: every rank must exhaust it.

    Raises:
        Diverged: a value is not finite, on every rank alike.
    """
    for name in engine.parameters:
        weight = full_weight(engine, name).to(dtype)
        if not weight.isfinite().all():
            raise Diverged(f"parameter {name} is not finite after the M-step; lower optimizer.learningRate")
        yield name, weight


def policy_files(
    model: PreTrainedModel,
    weights: Iterator[tuple[str, Tensor]],
    shapes: Mapping[str, torch.Size],
    dtype: torch.dtype,
    assets: Mapping[str, bytes],
    write: bool,
) -> Iterator[tuple[str, bytes]]:
    """Files of a policy where `write`, else none; `weights` is exhausted either way.

    `weights` come in the order of `shapes`. At most one file of weights is in memory at a time.
    """
    runs = divide({name: bytes_of(shape, dtype) for name, shape in shapes.items()})
    index: dict[str, str] = {}
    total = 0
    for number, names in enumerate(runs, 1):
        file = "model.safetensors" if len(runs) == 1 else f"model-{number:05d}-of-{len(runs):05d}.safetensors"
        tensors: dict[str, Tensor] = {}
        for expected in names:
            name, weight = next(weights)
            assert name == expected, f"weights out of order: {name} where {expected} belongs"
            if write:
                tensors[name] = weight.cpu()
        if not write:
            continue
        if number == 1:
            tensors |= persistent_buffers(model)
        tensors = revert_weight_conversion(model, tensors)  # names as in checkpoints, where they differ in memory
        index |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
        yield file, encode(tensors)
    assert next(weights, None) is None, "more weights than shapes"
    if write:
        if len(runs) > 1:
            yield INDEX, json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1).encode()
        yield from assets.items()


def persistent_buffers(model: PreTrainedModel) -> dict[str, Tensor]:
    """Buffers that checkpoints of the model hold; most models have none."""
    kept = model.state_dict().keys()
    return {name: buffer.detach().cpu() for name, buffer in model.named_buffers() if name in kept}


def differs(published: Mapping[str, FileEntry], files: Iterator[tuple[str, bytes]]) -> bool:
    """Whether files differ from those of a published group; exhausts `files`."""
    return [name for name, data in files if published.get(name) != FileEntry.of(data)] != []
