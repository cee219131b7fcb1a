"""The process group of the learner's ranks, and what rank 0 decides for all of them."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from empg.rundir.owner import Fenced
from empg.store.base import StorageFull
from empg_trainer.stop import BadSpec, Stop

COLLECTIVE_TIMEOUT = datetime.timedelta(hours=2)
"""Longest wait for another rank. Rank 0 may be importing or publishing a large model meanwhile; a rank that died ends
its launcher, and with it the others, at once."""

NVIDIA = Path("/dev/nvidiactl")
"""Exists where NVIDIA GPUs do, with a driver of any version."""
BEAT_SECONDS = 60.0
"""While rank 0 waits for samplers it tells the other ranks this often that it is alive."""


def initialise() -> torch.device:
    """Join the process group that the environment describes, or make one of this process alone; return the device.

    One process needs no port: its store is in memory.
    """
    cuda = trains_on_gpus(torch.cuda.is_available(), NVIDIA.exists(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    local_rank = int(os.environ.setdefault("LOCAL_RANK", "0"))  # ZeRO reads it too
    device = device_of(local_rank, torch.cuda.device_count() if cuda else 0)
    import deepspeed

    # Compiled on first use, it would take half a minute and a compiler, for something gloo does as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if cuda:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=COLLECTIVE_TIMEOUT)
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", auto_mpi_discovery=False, verbose=False)
    return device


def trains_on_gpus(usable: bool, present: bool, visible: str | None) -> bool:
    """Whether to train on GPUs: if PyTorch can use one. `visible` is CUDA_VISIBLE_DEVICES, empty to hide them all.

    Raises:
        RuntimeError: there are some that it can't use, and training on the CPU instead would take for ever.
    """
    if present and not usable and visible != "":
        raise RuntimeError(
            f"this machine has GPUs that PyTorch (CUDA {torch.version.cuda}) can't use: the driver may be too old, its "
            "libraries out of sight, or CUDA_VISIBLE_DEVICES wrong; set CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    return usable


def device_of(local_rank: int, gpus: int) -> torch.device:
    """The device of a rank on a node that shows so many GPUs. BadSpec if they are too few for one each."""
    if not gpus:
        return torch.device("cpu")
    if local_rank >= gpus:
        raise BadSpec(
            f"learner.processes: {local_rank + 1} or more need a GPU each, but this node shows {gpus}; lower "
            "learner.processes or give the node more"
        )
    return torch.device("cuda", local_rank)


class Ranks:
    """All ranks of the learner. Rank 0 alone writes to the run directory and decides; the others follow."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()
        self._beaten = time.monotonic()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def lead(self, act: Callable[[], bytes]) -> bytes:
        """Run `act` on rank 0 alone and give its result to every rank.

        A Stop there, Fenced or StorageFull stops every rank with the same code; what ends rank 0 alone ends the others
        as crashes.
        """
        if not self.leads:
            while (message := json.loads(_broadcast(None))).get("wait"):
                pass
            if "stop" in message:
                raise Stop(message["stop"], message["code"])
            return _broadcast(None)
        try:
            result = act()
        except (Fenced, StorageFull) as error:
            self._send({"stop": str(error), "code": Stop.code})
            raise
        except Stop as stop:
            self._send({"stop": str(stop), "code": stop.code})
            raise
        self._send({})
        return _broadcast(result)

    def beat(self) -> None:
        """On rank 0 inside `lead`: keep the others waiting without a time-out."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._send({"wait": True})

    def _send(self, message: dict[str, object]) -> None:
        self._beaten = time.monotonic()
        _broadcast(json.dumps(message).encode())


def _broadcast(data: bytes | None) -> bytes:
    """Rank 0 gives `data`, every rank gets it. Travels on the CPU."""
    if dist.get_world_size() == 1:
        assert data is not None
        return data
    size = torch.tensor([len(data) if data is not None else 0], dtype=torch.int64)
    dist.broadcast(size, 0)
    buffer = torch.empty(int(size), dtype=torch.uint8)
    if data:
        buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    if len(buffer):
        dist.broadcast(buffer, 0)
    return buffer.numpy().tobytes()
