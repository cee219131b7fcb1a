"""`spec.sampler`: the vLLM engines of the E-step."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from empg.api.base import EXTENDED_RESOURCE, DeviceIndex, IntOrPercent, Spec, field
from empg.api.rule import Rule

PERCENTAGE = r"^(100|[1-9]?[0-9])%$"


def _counts_pods(value: int | str) -> bool:
    """Whether a Deployment takes it for a number of pods."""
    return re.fullmatch(PERCENTAGE, value) is not None if isinstance(value, str) else 0 <= value <= 10_000


def _counts_pods_cel(name: str) -> str:
    """The same in CEL."""
    return f"type({name}) == string ? {name}.matches('{PERCENTAGE}') : {name} >= 0 && {name} <= 10000"


class SamplerSpec(Spec):
    """Sampler processes and how they sample."""

    replicas: int = field(1, change="live", ge=0, le=10_000)
    """Sampler processes (pods)."""
    devices: tuple[DeviceIndex, ...] = field((), change="rolls-samplers", max_length=64)
    """GPU indices for samplers on one machine, shared out in order. Empty: all GPUs that the learner does not use."""
    temperature: float = field(1.0, change="live", ge=0.01, le=2)
    """Sampling temperature, within the bounds that vLLM keeps to."""
    top_p: float = field(1.0, change="live", gt=0, le=1)
    """Nucleus mass. Below 1 the objective must not use importance ratios."""
    top_k: int = field(0, change="live", ge=0, le=1_000_000)
    """Number of most likely tokens to sample from. 0: all."""
    max_tokens: int = field(1024, change="live", ge=1, le=1_000_000)
    """Longest answer in tokens."""
    stop: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = field((), change="live", max_length=16)
    """Texts that end an answer."""
    max_model_length: int | None = field(None, change="rolls-samplers", ge=8, le=10_000_000)
    """Longest prompt and answer together, in tokens. Absent: `task.maxPromptTokens` + `sampler.maxTokens`."""
    max_concurrent_sequences: int = field(256, change="rolls-samplers", ge=1, le=65536)
    """Sequences that one engine decodes at a time."""
    kv_cache_mib: int | None = field(None, change="rolls-samplers", ge=16, le=10_000_000)
    """Size of the key-value cache in MiB. Absent: on GPU what `gpuMemoryUtilization` leaves, on CPU 512."""
    gpu_memory_utilization: float | None = field(None, change="rolls-samplers", gt=0, le=1)
    """Share of GPU memory that one engine may use; so much must be free when it starts. Absent: 0.9, and 0.4 on one
    machine where it shares its GPU with the learner, whose model and optimizer stay there."""
    tensor_parallel: int = field(1, change="rolls-samplers", ge=1, le=64)
    """GPUs of one engine."""
    engine_args: dict[str, Any] = field({}, change="rolls-samplers", max_length=256)
    """Further vLLM engine arguments, as vLLM names them."""
    deterministic: bool = field(False, change="rolls-samplers")
    """Work on one unit at a time with an empty prefix cache, so that an answer depends on policy and plan alone."""
    lease_seconds: float = field(30.0, change="rolls-samplers", ge=1, le=3600)
    """A claim may be taken over once its sampler made no progress for this long."""
    metrics_port: int | None = field(None, change="rolls-samplers", ge=0, le=65535)
    """Port of the Prometheus endpoint; sampler i of one machine uses port + i. 0: none, and pods without probes, which
    it answers too. Absent: 9464 in a cluster, none on one machine."""
    roll_strategy: Literal["InPlace", "RollingUpdate", "Alternate"] = field("InPlace", change="immutable")
    """How samplers of a cluster come by a new policy. `InPlace`: they load it between two units. `RollingUpdate`: pods
    are replaced. `Alternate`: samplers and learner take turns on the same GPUs."""
    roll_deadline_seconds: float = field(600.0, change="live", gt=0, le=10_000_000)
    """`InPlace`: a sampler pod that does not hold a new policy after this long is deleted."""
    max_unavailable: IntOrPercent = field("25%", change="live")
    """`RollingUpdate`: pods that may be away at a time, as a number or a percentage."""
    max_surge: IntOrPercent = field(0, change="live")
    """`RollingUpdate`: pods above `replicas` at a time, as a number or a percentage."""
    image: str | None = field(None, change="rolls-samplers", min_length=1, max_length=1024)
    """Container image. Absent: the operator's own choice when the run was made."""
    accelerator: str = field("nvidia.com/gpu", change="rolls-samplers", max_length=253, pattern=EXTENDED_RESOURCE)
    """Extended resource that one device is to the scheduler; each pod asks for `tensorParallel` of them. Empty: CPU."""
    pod_template: dict[str, Any] = field({}, change="rolls-samplers")
    """Strategic merge patch over the pod template that the operator builds; the container is `sampler`."""

    rules = (
        Rule(
            "maxUnavailable",
            "sampler.maxUnavailable ({self.max_unavailable}) must be a percentage from 0% to 100% or a number from 0 "
            "to 10000",
            cel=_counts_pods_cel("self.maxUnavailable"),
            holds=lambda sampler: _counts_pods(sampler.max_unavailable),
        ),
        Rule(
            "maxSurge",
            "sampler.maxSurge ({self.max_surge}) must be a percentage from 0% to 100% or a number from 0 to 10000",
            cel=_counts_pods_cel("self.maxSurge"),
            holds=lambda sampler: _counts_pods(sampler.max_surge),
        ),
        Rule(
            "maxUnavailable",
            "sampler.maxUnavailable and sampler.maxSurge must not both be 0",
            cel="!((self.maxUnavailable == 0 || self.maxUnavailable == '0%') && "
            "(self.maxSurge == 0 || self.maxSurge == '0%'))",
            holds=lambda sampler: sampler.max_unavailable not in (0, "0%") or sampler.max_surge not in (0, "0%"),
        ),
    )
