"""`empg-sampler RUN_DIR`: sample the planned units of a run until it is finished."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from empg.api.load import InvalidManifest, load_run
from empg.api.run import EMPGRun
from empg.cluster.account import name_user
from empg.cluster.api_server import RunStatus
from empg.cluster.reporter import StatusReporter
from empg.cluster.termination import STOPPED, leave_word
from empg.crash import end_at_once_on_crash
from empg.exit_codes import OK, RETRY, SPEC
from empg.rundir import keys
from empg.store.posix import PosixStore
from empg_sampler import metrics
from empg_sampler.environment import detect_device, prepare
from empg_sampler.errors import InvalidSpec
from empg_sampler.finished import finished
from empg_sampler.health import Health
from empg_sampler.pulse import Pulse
from empg_sampler.turn import FIELD_MANAGER, Turn, attempt
from empg_sampler.wait import wait_for

log = logging.getLogger("empg_sampler")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; ends the process with a code of `empg.exit_codes`."""
    end_at_once_on_crash()
    given = _parse(arguments)
    _log_to_stderr(given.id)
    _on_stop(_leave)  # nothing is claimed yet
    name_user()
    try:
        code = _run(given)
    except (InvalidManifest, InvalidSpec) as error:
        log.error("%s", error)
        leave_word(str(error))
        code = SPEC
    logging.shutdown()
    # Not sys.exit: taking torch and vLLM down takes seconds, and all that matters is on the storage.
    os._exit(code)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="empg-sampler", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run directory")
    parser.add_argument("--id", default=socket.gethostname(), help="name of this sampler, unique in the run")
    parser.add_argument("--metrics-port", type=int, help="port of /metrics, /healthz and /readyz; default: the spec's")
    parser.add_argument(
        "--spec",
        type=Path,
        metavar="FILE",
        help="manifest to take engine settings from; default: the newest spec that the learner has fixed",
    )
    parser.add_argument(
        "--policy", type=int, metavar="N", help="serve this policy alone; default: the newest one at any time"
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="tell the Kubernetes API when nothing is left to sample for the learner's attempt EMPG_ATTEMPT",
    )
    parser.add_argument(
        "--sleep-while-learning", action="store_true", help="leave the GPU's memory to the learner while it trains"
    )
    return parser.parse_args(arguments)


def _log_to_stderr(sampler: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s {sampler} %(levelname)s %(message)s", "%H:%M:%S"))
    for name in ("empg", "empg_sampler"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)


def _on_stop(action: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: action())


def _leave() -> None:
    leave_word(STOPPED)
    os._exit(RETRY)


def _run(given: argparse.Namespace) -> int:
    try:
        keys.sampler_key(given.id)
    except ValueError as error:
        raise InvalidSpec(f"--id: {error}") from error
    try:
        manifest = load_run(given.spec) if given.spec else None
    except OSError as error:
        raise InvalidSpec(f"--spec: {error}") from error
    turn = _turn(manifest) if given.report else None
    if not given.run_dir.is_dir() and not given.run_dir.absolute().parent.is_dir():
        raise InvalidSpec(f"RUN_DIR: {given.run_dir} is no directory; create or mount it first")
    store = PosixStore(given.run_dir)
    if finished(store, given.spec):
        log.info("the run is finished")
        return OK
    device = detect_device()
    prepare(device)
    # Takes seconds, or minutes from a cold disk, in which nothing answers: a startup probe has patience with it.
    from empg_sampler.start import work

    health = Health()
    if given.metrics_port:
        metrics.serve(given.metrics_port, health)
    if not given.run_dir.is_dir():
        log.info("waiting for the learner to make %s", given.run_dir)
        wait_for(f"the learner to make {given.run_dir}", given.run_dir.is_dir)
    with ExitStack() as stack:
        if turn:
            stack.enter_context(turn)
        pulse = stack.enter_context(Pulse(store, given.id, secrets.token_hex(8)))
        return work(store, device, given, pulse, health, turn, _on_stop)


def _turn(manifest: EMPGRun | None) -> Turn:
    uid = manifest.metadata.uid if manifest else None
    try:
        status = RunStatus.of_this_pod(os.environ, uid, FIELD_MANAGER)
    except ValueError as error:
        raise InvalidSpec(str(error)) from error
    return Turn(StatusReporter(status.apply), attempt(os.environ))


if __name__ == "__main__":
    main()
