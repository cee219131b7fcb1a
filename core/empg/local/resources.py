"""How the CPU cores and GPUs of one machine are shared out between samplers and learner. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from empg.api.run import RunSpec


@dataclass(frozen=True)
class Share:
    """What one program may use."""

    threads: int
    """OpenMP threads of each of its processes."""
    devices: tuple[int, ...]
    """GPU indices; empty on a machine without GPUs."""

    def environment(self, has_gpus: bool) -> dict[str, str]:
        """Environment variables that keep a process within its share."""
        # Threads that spin at a barrier take the core from the one they wait for as soon as anybody else needs a core.
        variables = {"OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        if has_gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, self.devices))
        return variables


@dataclass(frozen=True)
class Shares:
    """The share of the learner and of each sampler."""

    learner: Share
    samplers: tuple[Share, ...]

    @property
    def gpu_is_shared(self) -> bool:
        """Whether a sampler must sleep while the learner trains."""
        taken = set(self.learner.devices)
        return any(taken.intersection(sampler.devices) for sampler in self.samplers)


def share_out(spec: RunSpec, cores: int, gpus: Sequence[int]) -> Shares:
    """Shares for a machine with `cores` CPU cores and the GPUs `gpus`.

    With maxStaleness 0 samplers and learner take turns, so each side gets all cores; otherwise they work at the same
    time and split them. Raises ValueError when the spec asks for GPUs that are not there.
    """
    replicas, ranks = spec.sampler.replicas, spec.learner.processes
    turns = spec.em.max_staleness == 0
    sampler_cores = cores if turns else max(1, cores - cores // 2)
    learner_cores = cores if turns else max(1, cores // 2)
    learner_gpus: tuple[int, ...] = ()
    sampler_gpus: list[tuple[int, ...]] = [()] * replicas
    if gpus:
        learner_gpus = spec.learner.devices or tuple(gpus[:ranks])
        _require("spec.learner.devices", learner_gpus, ranks, gpus)
        rest = [gpu for gpu in gpus if gpu not in learner_gpus] or list(learner_gpus)
        pool = spec.sampler.devices or tuple(rest)
        width = spec.sampler.tensor_parallel
        _require("spec.sampler.devices", pool, width, gpus)
        slots = [pool[start : start + width] for start in range(0, len(pool) - width + 1, width)]
        if replicas > len(slots):
            raise ValueError(
                f"spec.sampler.replicas is {replicas}, but {len(pool)} GPUs hold {len(slots)} engines of "
                f"spec.sampler.tensorParallel {width}; lower it or name more spec.sampler.devices"
            )
        sampler_gpus = slots[:replicas]
    elif spec.learner.devices or spec.sampler.devices:
        raise ValueError(
            "spec.learner.devices and spec.sampler.devices name GPUs, but this machine shows none; remove them"
        )
    return Shares(
        learner=Share(max(1, learner_cores // ranks), learner_gpus),
        samplers=tuple(Share(max(1, sampler_cores // max(1, replicas)), devices) for devices in sampler_gpus),
    )


def _require(name: str, devices: Sequence[int], count: int, gpus: Sequence[int]) -> None:
    missing = [device for device in devices if device not in gpus]
    if missing:
        raise ValueError(f"{name} names GPU {missing[0]}, but this machine has {list(gpus)}")
    if len(devices) < count:
        raise ValueError(f"{name}: {count} GPUs are needed, {len(devices)} are free on this machine")
