"""The process group of the learner's ranks, and small messages from rank 0 to the others."""

from __future__ import annotations

import datetime
import json
import os
from typing import Any

import torch
import torch.distributed as dist

COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=60)
"""Longest wait for another rank: rank 0 may be publishing a large policy meanwhile. While rank 0 waits for samplers, for
however long, it tells the others every few seconds that it is alive."""


def initialise() -> torch.device:
    """Join the process group that the environment describes, or make one of this process alone; return the device.

    One process needs no port: its store is in memory.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    # Compiled on first use, it would take half a minute and a compiler, for something gloo does as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    cuda = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=COLLECTIVE_TIMEOUT)
    # ZeRO takes the local rank from the environment even when the group exists.
    os.environ.setdefault("LOCAL_RANK", str(local_rank))
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", auto_mpi_discovery=False, verbose=False)
    return torch.device("cuda", local_rank) if cuda else torch.device("cpu")


def broadcast_bytes(data: bytes | None) -> bytes:
    """Rank 0 gives ``data``, every rank gets it. Travels on the CPU."""
    if dist.get_world_size() == 1:
        assert data is not None
        return data
    size = torch.tensor([len(data) if data is not None else 0], dtype=torch.int64)
    dist.broadcast(size, 0)
    buffer = torch.empty(int(size), dtype=torch.uint8)
    if data is not None and len(data):
        buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    if len(buffer):
        dist.broadcast(buffer, 0)
    return buffer.numpy().tobytes()


def broadcast_message(message: dict[str, Any] | None) -> dict[str, Any]:
    """Rank 0 gives a JSON object, every rank gets it."""
    data = json.dumps(message).encode() if message is not None else None
    received: dict[str, Any] = json.loads(broadcast_bytes(data))
    return received
