"""Starts the ranks of one node and turns their ends into one exit code."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence

from empg import exit_codes
from empg.api.run import EMPGRun

RENDEZVOUS_SECONDS = 900
"""Longest wait for the launchers of the other nodes."""


def gravest(codes: Iterable[int]) -> int:
    """The code of several ranks that says most about why they ended.

    Diverged, then a bad manifest: trying again is pointless. Then a crash, the highest code, with signals as 128 + n.
    Then 75: one rank's wish to be started again often makes others fail, but those are stopped, not counted.
    """
    ends = [128 - code if code < 0 else code for code in codes]
    for fatal in (exit_codes.DIVERGED, exit_codes.SPEC):
        if fatal in ends:
            return fatal
    crashes = [code for code in ends if code not in (exit_codes.OK, exit_codes.RETRY)]
    return max(crashes) if crashes else max(ends, default=exit_codes.OK)


def rendezvous(environment: Mapping[str, str], nodes: int) -> tuple[int, str]:
    """(rank of this node, address:port of node 0) from the environment of a Kubernetes Job or of torchrun.

    ValueError names the variable that is missing.
    """
    if nodes == 1:
        return 0, "localhost:0"
    node = next((environment[name] for name in ("NODE_RANK", "JOB_COMPLETION_INDEX") if environment.get(name)), None)
    if node is None or not environment.get("MASTER_ADDR"):
        raise ValueError(
            f"learner.nodes is {nodes}: MASTER_ADDR (host of node 0) and JOB_COMPLETION_INDEX or NODE_RANK must be set"
        )
    if not 0 <= int(node) < nodes:
        raise ValueError(f"node rank {node} does not fit learner.nodes: {nodes}")
    return int(node), f"{environment['MASTER_ADDR']}:{environment.get('MASTER_PORT', '29400')}"


def launch(arguments: Sequence[str], processes: int, run: EMPGRun) -> int:
    """Run ``processes`` ranks with these command line arguments until all have ended; returns the exit code.

    There are no restarts here: a rank that ends takes the others with it, and whoever started the launcher decides.
    """
    nodes = run.spec.learner.nodes
    try:
        node, endpoint = rendezvous(os.environ, nodes)
    except ValueError as error:
        print(f"empg-learner: {error}", file=sys.stderr)
        return exit_codes.SPEC
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes,
        run_id=run.metadata.uid or (str(uuid.uuid4()) if nodes == 1 else run.metadata.name),
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
