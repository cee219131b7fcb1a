"""`spec.learner`: the DeepSpeed processes of the M-step."""

from __future__ import annotations

from typing import Any, Literal

from empg.api.base import EXTENDED_RESOURCE, DeviceIndex, Spec, field
from empg.api.rule import Rule


class LearnerSpec(Spec):
    """Learner processes and how they train."""

    processes: int = field(1, change="next-attempt", ge=1, le=64)
    """Processes (ranks) per node; on GPU one per device."""
    nodes: int = field(1, change="next-attempt", ge=1, le=1024)
    """Learner pods. More than one needs Kubernetes."""
    devices: tuple[DeviceIndex, ...] = field((), change="next-attempt", max_length=64)
    """GPU indices for the learner on one machine. Empty: the first `processes` ones."""
    tokens_per_micro_batch: int = field(16384, change="next-attempt", ge=1, le=100_000_000)
    """Token budget of one packed micro-batch per rank, in which answers to the same prompt share its tokens; a longer
    sequence makes a micro-batch of its own."""
    logprob_chunk_tokens: int = field(1024, change="next-attempt", ge=1, le=1_000_000)
    """Rows of logits that exist at a time."""
    zero_stage: Literal[0, 1, 2, 3] = field(1, change="next-attempt")
    """DeepSpeed ZeRO stage: 1 shards optimizer states, 2 gradients too, 3 parameters too, those of the reference model
    with them. At stage 3 no rank ever has the whole model in memory, if `precision` is the model's `dtype`."""
    precision: Literal["bfloat16", "float32"] = field("bfloat16", change="next-attempt")
    """Number type of forward and backward; bfloat16 keeps float32 master weights."""
    activation_checkpointing: bool = field(False, change="next-attempt")
    """Recompute activations in the backward pass: less memory, about a third more time."""
    offload: Literal["none", "optimizer", "optimizer-and-parameters"] = field("none", change="next-attempt")
    """What to keep in host memory. Parameters need zeroStage 3."""
    deadline_seconds: float = field(3600.0, change="live", gt=0, le=10_000_000)
    """Longest wait for the units of one iteration before the learner gives up (exit code 75)."""
    metrics_port: int | None = field(None, change="next-attempt", ge=0, le=65535)
    """Port of rank 0's Prometheus endpoint. 0: none. Absent: 9464 in a cluster, none on one machine."""
    image: str | None = field(None, change="next-attempt", min_length=1, max_length=1024)
    """Container image. Absent: the operator's own choice when the run was made."""
    accelerator: str = field("nvidia.com/gpu", change="next-attempt", max_length=253, pattern=EXTENDED_RESOURCE)
    """Extended resource that one device is to the scheduler; each pod asks for `processes` of them. Empty: CPU."""
    pod_template: dict[str, Any] = field({}, change="next-attempt")
    """Strategic merge patch over the pod template that the operator builds; the container is `learner`."""

    rules = (
        Rule(
            "offload",
            "learner.offload: optimizer-and-parameters needs learner.zeroStage: 3",
            cel="self.offload != 'optimizer-and-parameters' || self.zeroStage == 3",
            holds=lambda learner: learner.offload != "optimizer-and-parameters" or learner.zero_stage == 3,
        ),
        Rule(
            "zeroStage",
            "learner.zeroStage: 0 would sum bfloat16 gradients in bfloat16; set learner.zeroStage: 1 or "
            "learner.precision: float32",
            cel="self.zeroStage != 0 || self.precision != 'bfloat16'",
            holds=lambda learner: learner.zero_stage != 0 or learner.precision != "bfloat16",
        ),
        Rule(
            "offload",
            "learner.offload: optimizer needs learner.zeroStage: 1, 2 or 3",
            cel="self.offload != 'optimizer' || self.zeroStage != 0",
            holds=lambda learner: learner.offload != "optimizer" or learner.zero_stage != 0,
        ),
        Rule(
            "devices",
            "learner.devices must name one device for each of learner.processes ({self.processes})",
            cel="self.devices.size() == 0 || self.devices.size() == self.processes",
            holds=lambda learner: not learner.devices or len(learner.devices) == learner.processes,
        ),
    )
