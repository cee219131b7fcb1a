"""ZeRO 3 before there is an engine: no rank has more of a model than its share and one parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module, Parameter


def partition(model: Module, config: Mapping[str, Any], device: torch.device) -> None:
    """Leave every rank its share of each parameter, as DeepSpeed's `config` says, and move buffers to `device`. A
    collective operation.

    A model is mapped from its files where it has their number type, so that no rank ever had it whole in memory. Made
    within `zero.Init` instead, it would have rotary frequencies that are rounded to the number type.
    """
    import deepspeed

    deepspeed.zero.Init(module=model, config_dict_or_path=dict(config))
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))  # an engine leaves a partitioned model where it is


@contextmanager
def whole(parameter: Parameter) -> Iterator[None]:
    """Have a parameter in one piece, to be written. A collective operation; what rank 0 writes counts."""
    if not is_partitioned(parameter):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield


def share(parameter: Parameter, value: Tensor) -> Tensor:
    """What this rank has of a partitioned parameter whose whole value is `value`: flat, the last ones' padded."""
    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    start = size * torch.distributed.get_rank()
    mine = value.flatten()[start : start + size]
    return F.pad(mine, (0, size - mine.numel()))


def is_partitioned(parameter: Parameter) -> bool:
    """Whether this rank has only a share of the parameter."""
    return hasattr(parameter, "ds_id")


def whole_shape(parameter: Parameter) -> torch.Size:
    """Shape of a parameter in one piece."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))
