"""Events of runs, as `kubectl describe` shows them."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from empg_operator import names
from empg_operator.api import Api, ApiError
from empg_operator.decision import Event, Manifest
from empg_operator.kinds import RUN

QUIET_SECONDS = 600.0
"""Time for which the same event of the same run is not told again."""
_MESSAGE_CHARACTERS = 1000  # the API refuses more than 1,024
_NUMBERS = re.compile(r"[0-9]+")
_log = logging.getLogger(__name__)


class Recorder:
    """Tells events to the API server."""

    def __init__(self, api: Api, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._told: dict[tuple[str, str, str], float] = {}

    async def tell(self, run: Manifest, event: Event) -> None:
        """Post an event. Nothing depends on events: one that is refused is logged, and missing."""
        now = self._clock()
        self._told = {key: when for key, when in self._told.items() if when > now - QUIET_SECONDS}
        # What stands in the way may be told with other numbers each time, as those of a quota.
        message = _NUMBERS.sub("", event.message) if event.reason == "ApplyFailed" else event.message
        key = (run["metadata"]["uid"], event.reason, message)
        if key in self._told:
            return
        self._told[key] = now
        try:
            await self._api.create_event(_manifest(run, event, now))
        except ApiError as error:
            level = logging.INFO if error.namespace_ends else logging.WARNING
            _log.log(level, "event %s of run %s/%s: %s", event.reason, *_where(run), error)


def _where(run: Manifest) -> tuple[str, str]:
    return run["metadata"]["namespace"], run["metadata"]["name"]


def _manifest(run: Manifest, event: Event, now: float) -> Manifest:
    namespace, name = _where(run)
    time = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "generateName": f"{name}."},
        "involvedObject": {
            "apiVersion": RUN.api_version,
            "kind": RUN.name,
            "namespace": namespace,
            "name": name,
            "uid": run["metadata"]["uid"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:_MESSAGE_CHARACTERS],
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "reportingInstance": socket.gethostname(),
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
