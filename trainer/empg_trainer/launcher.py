"""Starts the ranks of one node and turns their ends into one exit code."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence

from empg import exit_codes

RENDEZVOUS_SECONDS = 900
"""Longest wait for the launchers of the other nodes."""
MASTER_PORT = 29400

logger = logging.getLogger(__name__)


def gravest(codes: Iterable[int]) -> int:
    """The code of several ranks of a node that says most about why they ended.

    Diverged, then a bad manifest: trying again is pointless. Then a crash, the highest code, with signals as 128 + n.
    Then 76 and 75, if all end so: a rank that leaves alone makes the others crash (see `Ranks.lead`).
    """
    ends = [128 - code if code < 0 else code for code in codes]
    for fatal in (exit_codes.DIVERGED, exit_codes.SPEC):
        if fatal in ends:
            return fatal
    crashes = [code for code in ends if code not in (exit_codes.OK, exit_codes.RETRY, exit_codes.WAITING)]
    return max(crashes) if crashes else max(ends, default=exit_codes.OK)


def rendezvous(environment: Mapping[str, str], nodes: int) -> tuple[int, str, int]:
    """(rank of this node, host of node 0, port) from the environment of a Kubernetes Job or of torchrun.

    ValueError names the variable that is missing.
    """
    node = next((environment[name] for name in ("NODE_RANK", "JOB_COMPLETION_INDEX") if environment.get(name)), None)
    if node is None or not environment.get("MASTER_ADDR"):
        raise ValueError(
            f"learner.nodes is {nodes}: MASTER_ADDR (host of node 0) and JOB_COMPLETION_INDEX or NODE_RANK must be set"
        )
    if not 0 <= int(node) < nodes:
        raise ValueError(f"node rank {node} does not fit learner.nodes: {nodes}")
    return int(node), environment["MASTER_ADDR"], int(environment.get("MASTER_PORT", MASTER_PORT))


def launch(arguments: Sequence[str], processes: int, nodes: int, name: str) -> int:
    """Run `processes` ranks with these command line arguments until all have ended; returns the exit code.

    There are no restarts here: a rank that ends takes the others with it, on every node, and whoever started the
    launchers decides. `name` is that of this attempt, the same on all nodes. ValueError names what is missing in the
    environment.
    """
    if nodes == 1:
        return run_ranks(arguments, processes, 1, 0, "localhost:0", str(uuid.uuid4()))
    node, host, port = rendezvous(os.environ, nodes)
    from empg_trainer.peers import NotMet, Peers

    try:
        peers = Peers.meet(host, port, name, node, nodes, RENDEZVOUS_SECONDS)
    except NotMet as error:
        logger.error("%s", error)
        return exit_codes.RETRY
    with peers:
        return peers.settle(run_ranks(arguments, processes, nodes, node, f"{host}:{port}", name))


def run_ranks(arguments: Sequence[str], processes: int, nodes: int, node: int, endpoint: str, name: str) -> int:
    """Run the ranks of this node to their end; returns the gravest of their exit codes."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes,
        run_id=name,
        rdzv_backend="c10d" if nodes == 1 else "static",
        rdzv_endpoint=endpoint,
        rdzv_configs={"rank": node, "timeout": RENDEZVOUS_SECONDS},
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "empg_trainer.worker", *arguments)
    except ChildFailedError as failed:
        return gravest(failure.exitcode for failure in failed.failures.values())
    except SignalException:
        return exit_codes.RETRY
    return exit_codes.OK
