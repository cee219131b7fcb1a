"""Training state: float32 weights and Adam moments per parameter, and the optimizer's step count.

It is written per parameter, not per rank, so another number of ranks or another ZeRO stage reads it just as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from empg.rundir import keys
from empg.rundir.group import CorruptGroup, Manifest, read_manifest
from empg.store.base import Store
from empg_trainer.deepspeed_engine import Engine
from empg_trainer.partition import share, whole, whole_shape
from empg_trainer.shards import bytes_of, divide, encode, read_tensors

MOMENTS = ("exp_avg", "exp_avg_sq")
KINDS = ("weight", *MOMENTS)


def full_weight(engine: Engine, name: str) -> Tensor:
    """A parameter's whole float32 master weight on the engine's device. A collective operation."""
    from deepspeed.utils import safe_get_full_fp32_param

    parameter = engine.parameters[name]
    return parameter.detach() if engine.stage == 0 else safe_get_full_fp32_param(parameter)


def full_moment(engine: Engine, name: str, moment: str) -> Tensor:
    """A parameter's whole `exp_avg` or `exp_avg_sq`, like `full_weight`."""
    from deepspeed.utils import safe_get_full_optimizer_state

    parameter = engine.parameters[name]
    if engine.stage == 0:
        return engine.base_optimizer.state[parameter][moment]
    return safe_get_full_optimizer_state(parameter, moment)


@dataclass(frozen=True)
class Snapshot:
    """A training state in host memory, which training on does not touch: 12 bytes per parameter."""

    shards: list[tuple[str, dict[str, Tensor]]]
    """Name and tensors of each file."""
    meta: dict[str, Any]
    """What the state's manifest says beside its files."""

    def files(self) -> Iterator[tuple[str, bytes]]:
        """The files, once: a shard's memory is free after it."""
        while self.shards:
            name, tensors = self.shards.pop(0)
            yield name, encode(tensors)


def snapshot(engine: Engine, keep: bool) -> Snapshot:
    """The engine's training state where `keep`, else one without shards. A collective operation.

    Weights, first and second moments are in files of their own, so that a restart can read weights alone.
    """
    shards = []
    for kind in KINDS:
        sizes = {name: bytes_of(shape, torch.float32) for name, shape in engine.shapes.items()}
        for number, names in enumerate(divide(sizes)):
            tensors = {}
            for name in names:
                tensor = full_weight(engine, name) if kind == "weight" else full_moment(engine, name, kind)
                if keep:
                    tensors[name] = tensor.to("cpu", copy=True)
            if keep:
                shards.append((f"{kind}-{number:05d}.safetensors", tensors))
    return Snapshot(shards, {"format": 1, "optimizer_steps": engine.steps})


def read_state(store: Store, iteration: int) -> Manifest:
    """Manifest of the training state with which `iteration` starts. CorruptGroup if there is none."""
    manifest = read_manifest(store, keys.state_prefix(iteration))
    if manifest is None:
        raise CorruptGroup(keys.state_prefix(iteration), "has no manifest (yet)")
    if manifest.meta.get("format") != 1:
        raise CorruptGroup(keys.state_prefix(iteration), "was written by another version of the learner")
    return manifest


def load_weights(model: PreTrainedModel, store: Store, iteration: int) -> None:
    """Put a state's weights into a model that no engine has taken over yet. A collective operation where it is
    partitioned.

    ZeRO copies a model's weights when it starts, and a master weight set later does not reach that copy.
    """
    prefix = keys.state_prefix(iteration)
    parameters = dict(model.named_parameters())
    found = set()
    with torch.no_grad():
        for name, tensor in read_tensors(store, prefix, read_state(store, iteration), "weight-"):
            if name not in parameters or whole_shape(parameters[name]) != tensor.shape:
                raise CorruptGroup(prefix, f"holds {name} {tuple(tensor.shape)}, which the model does not have")
            with whole(parameters[name]):
                parameters[name].copy_(tensor)
            found.add(name)
    if lacking := sorted(parameters.keys() - found):
        raise CorruptGroup(prefix, f"lacks {len(lacking)} parameters, as {lacking[0]}")


def restore(engine: Engine, store: Store, iteration: int) -> None:
    """Put master weights, moments and step count into an engine made from a model that `load_weights` filled."""
    from deepspeed.utils import (
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    manifest = read_state(store, iteration)
    for kind in KINDS:
        for name, tensor in read_tensors(store, keys.state_prefix(iteration), manifest, kind + "-"):
            parameter, value = engine.parameters[name], tensor.to(engine.device)
            if engine.stage == 0:
                target = parameter if kind == "weight" else engine.base_optimizer.state[parameter][kind]
                target.data.copy_(value)
            elif engine.stage == 3:  # the setters of whole values fail where the ranks don't divide a parameter
                part = share(parameter, value)
                if kind == "weight":
                    safe_set_local_fp32_param(parameter, part)
                else:
                    safe_set_local_optimizer_state(parameter, part, kind)
            elif kind == "weight":
                safe_set_full_fp32_param(parameter, value)
            else:
                safe_set_full_optimizer_state(parameter, value, kind)
    engine.steps = int(str(manifest.meta["optimizer_steps"]))
