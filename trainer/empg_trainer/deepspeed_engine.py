"""DeepSpeed around a `Policy`: configuration, gradient scaling and the one place that looks at gradient norms."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from empg.api.learner import LearnerSpec
from empg.api.optimizer import OptimizerSpec
from empg_trainer.partition import whole_shape
from empg_trainer.policy import Policy
from empg_trainer.stop import BadSpec, Diverged

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class ClippingAdamW(torch.optim.AdamW):
    """AdamW that clips by the global norm itself, for ZeRO stage 0: there DeepSpeed clips without telling the norm, and
    steps on NaN."""

    def __init__(self, params: Any, gradient_clip: float, **options: Any) -> None:
        super().__init__(params, **options)
        self.gradient_clip = gradient_clip
        self._global_grad_norm = 0.0  # the name under which DeepSpeed's engine looks for a norm

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Clip and step, unless the norm is not finite: then leave weights and moments as they are."""
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._global_grad_norm = norm.item()
        if not math.isfinite(self._global_grad_norm):
            return
        if self.gradient_clip:
            parameters = [p for group in self.param_groups for p in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, self.gradient_clip, norm)
        super().step(closure)


def holding(learner: LearnerSpec) -> dict[str, Any]:
    """The part of DeepSpeed's configuration that says how parameters are held: all there is for a model at rest."""
    zero: dict[str, Any] = {"stage": learner.zero_stage}
    if learner.offload == "optimizer-and-parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": zero,
        "bf16": {"enabled": learner.precision == "bfloat16"},
        "steps_per_print": None,
    }


def configuration(learner: LearnerSpec, optimizer: OptimizerSpec) -> dict[str, Any]:
    """DeepSpeed's configuration. Accumulation is ours: any number of `backward` calls, then one `step`."""
    config = holding(learner) | {
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        # Absent means 1.0 to DeepSpeed, so it is always there; stage 0 clips in ClippingAdamW.
        "gradient_clipping": optimizer.gradient_clip if learner.zero_stage else 0.0,
        "zero_allow_untested_optimizer": True,
        # torch's AdamW steps offloaded partitions too; DeepSpeed's own would have to be compiled on the machine.
        "zero_force_ds_cpu_optimizer": False,
    }
    zero = config["zero_optimization"]
    zero["overlap_comm"] = False
    if learner.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if learner.precision == "bfloat16":
        # Sums over micro-batches and ranks would otherwise be rounded to 8 bits each time.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        config["communication_data_type"] = "fp32"
    return config


class Engine:
    """A policy in training on all ranks. `forward`, `backward` and `step` are collective operations.

    `parameters` maps the model's own parameter names, as in its state dict, to parameters; tied ones appear once.
    `shapes` has their whole shapes, which ZeRO 3 hides.
    """

    def __init__(
        self, model: PreTrainedModel, learner: LearnerSpec, optimizer: OptimizerSpec, device: torch.device
    ) -> None:
        """Take over `model`, whose weights must be the ones to train from: ZeRO copies them now."""
        import deepspeed

        self.model = model
        self.device = device
        self.stage = learner.zero_stage
        self.world = torch.distributed.get_world_size()
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.shapes = {name: whole_shape(p) for name, p in self.parameters.items()}
        policy = Policy(model, learner.logprob_chunk_tokens).eval()
        if learner.activation_checkpointing:
            try:
                policy.checkpoint_activations()
            except ValueError as error:
                raise BadSpec(str(error)) from error
        options: dict[str, Any] = {
            "lr": 0.0,
            "betas": (optimizer.beta1, optimizer.beta2),
            "eps": optimizer.epsilon,
            "weight_decay": 0.0,
        }
        trained = list(self.parameters.values())
        self.base_optimizer = (
            torch.optim.AdamW(trained, **options)
            if learner.zero_stage
            else ClippingAdamW(trained, optimizer.gradient_clip, **options)
        )
        self.engine, *_ = deepspeed.initialize(
            model=policy,
            model_parameters=trained,
            optimizer=self.base_optimizer,
            config=configuration(learner, optimizer),
            dist_init_required=False,
        )
        self._prime()

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of `Policy.forward`."""
        logprobs, entropy = self.engine(**inputs)
        return logprobs, entropy

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the step's. The step's gradient is the sum over micro-batches and ranks."""
        self.engine.backward(loss * self.world)  # DeepSpeed averages over ranks

    def step(self, learning_rate: float, weight_decay: float) -> float:
        """Apply the summed gradient and return its global norm before clipping.

        Raises:
            Diverged: the norm is not finite. DeepSpeed, left to itself, skips such a step in silence.
        """
        for group in self.base_optimizer.param_groups:
            group["lr"] = learning_rate
            group["weight_decay"] = weight_decay
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        norm = float("nan") if norm is None else float(norm)
        if not (math.isfinite(norm) and norm >= 0) or getattr(self.engine.optimizer, "overflow", False):
            raise Diverged("the gradient is not finite; lower optimizer.learningRate, or look at rewards and log-probs")
        return norm

    @property
    def steps(self) -> int:
        """Optimizer steps made, as AdamW counts them for its bias correction."""
        return int(next(iter(self.base_optimizer.state.values()))["step"])

    @steps.setter
    def steps(self, count: int) -> None:
        for state in self.base_optimizer.state.values():
            state["step"].fill_(count)

    def _prime(self) -> None:
        """Make a step that changes nothing, after which every ZeRO stage has its moments, ready to be set or read."""
        token = torch.zeros(2, dtype=torch.long, device=self.device)
        logprobs, _ = self.forward(
            input_ids=token,
            position_ids=torch.arange(2, device=self.device),
            cu_seqlens=torch.tensor([0, 2], dtype=torch.int32, device=self.device),
            max_length=2,
            positions=token[:1],
            targets=token[:1],
            temperature=1.0,
        )
        self.backward(logprobs.sum() * 0.0)
        self.step(learning_rate=0.0, weight_decay=0.0)
        self.steps = 0
