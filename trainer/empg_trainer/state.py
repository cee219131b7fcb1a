"""Training state in safetensors: float32 weights and Adam moments per parameter, and the optimizer's step count."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from empg_trainer.deepspeed_engine import Engine

MOMENTS = ("exp_avg", "exp_avg_sq")


def full_tensors(engine: Engine) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each parameter's name with its whole float32 ``weight``, ``exp_avg`` and ``exp_avg_sq``, on the engine's device.

    A collective operation: every rank must exhaust it.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    for name, parameter in engine.parameters.items():
        if engine.stage == 0:
            state = engine.base_optimizer.state[parameter]
            yield name, {"weight": parameter.detach(), **{key: state[key] for key in MOMENTS}}
        else:
            whole = {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
            yield name, {"weight": safe_get_full_fp32_param(parameter), **whole}


def set_tensors(engine: Engine, name: str, tensors: dict[str, Tensor]) -> None:
    """Set what ``full_tensors`` gave. The model must have been loaded with the same weights: ZeRO keeps a copy of its
    own in the training precision, which is not touched here."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    parameter = engine.parameters[name]
    tensors = {key: tensor.to(engine.device) for key, tensor in tensors.items()}
    with torch.no_grad():
        if engine.stage == 0:
            parameter.copy_(tensors["weight"])
            for key in MOMENTS:
                engine.base_optimizer.state[parameter][key].copy_(tensors[key])
        else:
            safe_set_full_fp32_param(parameter, tensors["weight"])
            for key in MOMENTS:
                safe_set_full_optimizer_state(parameter, tensors[key], key)
