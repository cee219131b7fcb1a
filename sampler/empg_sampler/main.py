"""`empg-sampler RUN_DIR`: sample the planned units of a run until it is finished."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from empg.api.load import InvalidManifest
from empg.exit_codes import OK, RETRY, SPEC
from empg.rundir import keys
from empg.store.posix import PosixStore
from empg_sampler.environment import detect_device, prepare
from empg_sampler.errors import InvalidSpec
from empg_sampler.finished import finished
from empg_sampler.pulse import Pulse

log = logging.getLogger("empg_sampler")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; ends the process with a code of `empg.exit_codes`."""
    given = _parse(arguments)
    _log_to_stderr(given.id)
    _on_stop(lambda: os._exit(RETRY))  # nothing is claimed yet
    try:
        code = _run(given)
    except (InvalidManifest, InvalidSpec) as error:
        log.error("%s", error)
        code = SPEC
    logging.shutdown()
    # Not sys.exit: taking torch and vLLM down takes seconds, and all that matters is on the storage.
    os._exit(code)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="empg-sampler", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run directory")
    parser.add_argument("--id", default=socket.gethostname(), help="name of this sampler, unique in the run")
    parser.add_argument("--metrics-port", type=int, help="port of the Prometheus endpoint; default: the spec's")
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


def _run(given: argparse.Namespace) -> int:
    try:
        keys.sampler_key(given.id)
    except ValueError as error:
        raise InvalidSpec(f"--id: {error}") from error
    if not given.run_dir.is_dir():
        raise InvalidSpec(f"RUN_DIR: {given.run_dir} is no directory; create or mount it first")
    store = PosixStore(given.run_dir)
    if finished(store):
        log.info("the run is finished")
        return OK
    device = detect_device()
    prepare(device)
    with Pulse(store, given.id, secrets.token_hex(8)) as pulse:
        # Takes seconds, in which the learner gets its model ready.
        from empg_sampler.start import work

        return work(store, device, pulse, given, _on_stop)


if __name__ == "__main__":
    main()
