"""Run a function on several ranks, each a process of its own, and return what each one returned."""

import os
import pickle
import socket
from pathlib import Path

import torch.multiprocessing as mp
import warm  # noqa: F401 - forks that have torch


def run_ranks(function, world, directory: Path, *args):
    """`[function(*args) on rank 0, …]`; results must be picklable. Failures of a rank are raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_rank, (world, port, str(directory), function, args), nprocs=world, start_method="forkserver")
    return [pickle.loads((directory / f"rank{rank}").read_bytes()) for rank in range(world)]


def _rank(rank, world, port, directory, function, args):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    import torch

    torch.set_num_threads(1)
    result = function(*args)
    Path(directory, f"rank{rank}").write_bytes(pickle.dumps(result))
