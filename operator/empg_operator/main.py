"""`empg-operator`: the operator's process."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
import uuid
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import kopf

from empg.cluster import endpoint
from empg_operator import flags, handlers, logs
from empg_operator.api import Api, ApiError
from empg_operator.cache import Cache, RunKey
from empg_operator.connection import Connection
from empg_operator.events import Recorder
from empg_operator.health import Health
from empg_operator.leader import Election, LeaseLostError
from empg_operator.metrics import Metrics
from empg_operator.plan import plan
from empg_operator.queue import Queue
from empg_operator.reconcile import Reconciler
from empg_operator.resync import Resync
from empg_operator.run_metrics import RunCollector
from empg_operator.settings import Settings
from empg_operator.watches import Watches

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code. 1: something went wrong that a new process may not suffer from."""
    settings, others = flags.parse(arguments)
    logs.configure(others.log_format, others.log_level)
    code = 0
    try:
        asyncio.run(_operate(settings, others.kubeconfig))
    except* (ApiError, LeaseLostError, OSError, ValueError) as group:
        code = 1
        for error in group.exceptions:
            _log.error("%s", error)
    return code


async def _operate(settings: Settings, kubeconfig: Path | None) -> None:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    metrics, health = Metrics(), Health()
    if settings.metrics_port:
        endpoint.serve(settings.metrics_port, metrics.registry, alive=health.alive, ready=health.ready)
    connection = await Connection.load(kubeconfig)
    async with connection.session() as session, asyncio.TaskGroup() as group:
        beat = group.create_task(health.beat())
        api = Api(session, connection.server, metrics)
        if settings.leader_election:
            await _lead(stop, group, connection, api, settings, metrics, health)
        else:
            await _work(stop, connection, api, settings, metrics, health)
        beat.cancel()


async def _lead(
    stop: asyncio.Event,
    group: asyncio.TaskGroup,
    connection: Connection,
    api: Api,
    settings: Settings,
    metrics: Metrics,
    health: Health,
) -> None:
    """Work once elected. LeaseLostError: another process may have begun to work."""
    identity = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    election = Election(api, settings.lease_namespace, settings.lease_name, identity)
    health.stands_by = True
    if not await _done(stop, election.win()):
        return
    health.stands_by = False
    keep = group.create_task(election.keep())
    await _work(stop, connection, api, settings, metrics, health)
    keep.cancel()
    await election.resign()


async def _work(
    stop: asyncio.Event, connection: Connection, api: Api, settings: Settings, metrics: Metrics, health: Health
) -> None:
    """Look after runs until `stop`."""
    shown = RunCollector()
    metrics.registry.register(shown)
    cache = Cache()
    metrics.show_sizes(cache.sizes)
    queue: Queue[RunKey] = Queue(lambda key: reconciler(key), settings.workers, metrics)
    reconciler = Reconciler(plan, cache, api, settings, Recorder(api, time.time), shown, time.time, queue.add)
    resync = Resync(api, cache, queue, reconciler, settings, metrics)
    if not await _done(stop, resync.fill()):
        return
    health.is_filled = True
    metrics.leading.set(1)
    _log.info("%s", ", ".join(f"{count} {kind}" for kind, count in sorted(cache.sizes().items())))
    health.watches = Watches(metrics, resync.doubt)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(task) for task in (queue.run(), resync.run())]
        await asyncio.sleep(0)  # so that all our tasks are there: kopf ends those that come after its own
        ours = asyncio.all_tasks()
        watching = await kopf.spawn_tasks(
            registry=handlers.registry(connection, cache, queue, health.watches),
            settings=handlers.settings(),
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            stop_flag=stop,
        )
        _stop_on_signals(stop)  # again: kopf took them over
        await kopf.run_tasks(watching, ignored=ours)
        for task in tasks:
            task.cancel()


def _stop_on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _done(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do this unless `stop` comes first; whether it was done."""
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.wait({task})
    return False


if __name__ == "__main__":
    sys.exit(main())
