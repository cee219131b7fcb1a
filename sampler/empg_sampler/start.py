"""From a run directory and a command line to a sampler at work. Importing this imports vLLM, which takes seconds."""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing

import vllm.engine.arg_utils
import vllm.v1.engine.llm_engine  # noqa: F401 - what `Engine` uses

from empg.api.run import RunSpec
from empg.rundir.group import policies
from empg.store.base import Store
from empg_sampler import metrics
from empg_sampler.engine import Engine, engine_arguments
from empg_sampler.environment import Device
from empg_sampler.graders import Graders
from empg_sampler.health import START_SECONDS, Health
from empg_sampler.loop import Sampler
from empg_sampler.pulse import Pulse
from empg_sampler.rest import Rest
from empg_sampler.specs import starting_spec
from empg_sampler.survey import Surveyor, find_policy
from empg_sampler.turn import Turn
from empg_sampler.wait import wait_for
from empg_sampler.weights import BadPolicy

log = logging.getLogger("empg_sampler")

REFUSED_SECONDS = 10.0
"""A sampler that found no policy fit to be served tries again after this long."""


def work(
    store: Store,
    device: Device,
    given: argparse.Namespace,
    pulse: Pulse,
    health: Health,
    turn: Turn | None,
    on_stop: Callable[[Callable[[], None]], None],
) -> int:
    """Start an engine as soon as there is a policy, then run the loop; its exit code.

    `on_stop` takes what SIGTERM is to do from the moment on at which claims may be held.
    """
    started = time.monotonic()
    spec = wait_for("the learner's first spec", lambda: starting_spec(store, given.spec))
    for name in ("empg", "empg_sampler"):
        logging.getLogger(name).setLevel(spec.logging.level)
    port = (spec.sampler.metrics_port if given.metrics_port is None else given.metrics_port) or 0
    if port and given.metrics_port is None:
        metrics.serve(port, health)
    with closing(Graders()) as graders:
        graders.prepare(spec.task.grader, spec.task.name)
        rest = Rest(store, pulse, shared=given.sleep_while_learning)
        wait_for("the learner to leave the GPU", rest.may_start)
        engine = _start_engine(
            store, spec, device, pulse, health, policy=given.policy, stats=port > 0, sleeps=given.sleep_while_learning
        )
        log.info("policy %d served, engine ready after %.1f s", engine.version, time.monotonic() - started)
        metrics.POLICY_VERSION.set(engine.version)
        pulse.say(policy=engine.version)
        stop = threading.Event()
        on_stop(stop.set)
        return Sampler(
            store=store,
            engine=engine,
            graders=graders,
            pulse=pulse,
            surveyor=Surveyor(store, given.id, spec.sampler.lease_seconds),
            id=given.id,
            incarnation=pulse.incarnation,
            max_sequences=spec.sampler.max_concurrent_sequences,
            deterministic=spec.sampler.deterministic,
            rest=rest,
            pinned=given.policy is not None,
            manifest=given.spec,
            health=health,
            turn=turn,
            stop=stop,
        ).run()


def _start_engine(
    store: Store,
    spec: RunSpec,
    device: Device,
    pulse: Pulse,
    health: Health,
    *,
    policy: int | None,
    stats: bool,
    sleeps: bool,
) -> Engine:
    """An engine on the newest policy that is fit to be served, or on a given one."""

    def candidates() -> list[int]:
        return [version for version in policies(store) if policy in (None, version)]

    what = "the learner's first policy" if policy is None else f"policy {policy}"
    while True:
        for version in sorted(wait_for(what, candidates), reverse=True):
            # vLLM may take minutes to read it, in which the learner must not remove it.
            pulse.say(policy=None, loading=version)
            try:
                found = find_policy(store, version)
                arguments = engine_arguments(spec, found.directory, device, stats=stats, sleeps=sleeps)
                with health.within(START_SECONDS):
                    return Engine(found, arguments)
            except BadPolicy as error:
                metrics.REFUSED_POLICIES.inc()
                log.error("policy %d refused: %s", version, error)
        time.sleep(REFUSED_SECONDS)
