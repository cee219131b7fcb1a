"""Signs of life of kopf's watches: its requests, seen from the session they are made with, and their events."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import aiohttp

from empg_operator.kinds import WATCHED, Kind
from empg_operator.metrics import Metrics


class Watches:
    """When each watch was last busy.

    A watch whose API server is away is busy, as it tries again and again; one that hangs is not.
    """

    def __init__(
        self, metrics: Metrics, doubt: Callable[[Kind], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`doubt` is called when a kind was listed anew, before its watch begins."""
        self._doubt = doubt
        self._clock = clock
        now = self._clock()
        self._tried = dict.fromkeys(WATCHED, now)
        self._heard = dict.fromkeys(WATCHED, now)
        self._begun: set[Kind] = set()
        for kind in WATCHED:
            metrics.watch_age_seconds.labels(kind.plural).set_function(partial(self._age, kind))

    def heard(self, kind: Kind) -> None:
        """An event came."""
        self._heard[kind] = self._tried[kind] = self._clock()

    @property
    def have_begun(self) -> bool:
        """Whether the API server has answered all watches."""
        return len(self._begun) == len(WATCHED)

    def silence(self) -> float:
        """Seconds since the idlest watch was busy."""
        return self._clock() - min(self._tried.values())

    def _age(self, kind: Kind) -> float:
        return self._clock() - self._heard[kind]

    def trace(self) -> aiohttp.TraceConfig:
        """For the session that kopf uses."""
        trace = aiohttp.TraceConfig()

        async def begin(
            session: aiohttp.ClientSession, context: SimpleNamespace, said: aiohttp.TraceRequestStartParams
        ) -> None:
            if kind := _kind(said.url.path):
                self._tried[kind] = self._clock()

        async def answer(
            session: aiohttp.ClientSession, context: SimpleNamespace, said: aiohttp.TraceRequestEndParams
        ) -> None:
            if (kind := _kind(said.url.path)) and said.response.ok:
                self.heard(kind)
                if "watch" in said.url.query:
                    self._begun.add(kind)
                else:
                    self._doubt(kind)

        trace.on_request_start.append(begin)
        trace.on_request_end.append(answer)
        return trace


def _kind(path: str) -> Kind | None:
    plural = path.rpartition("/")[2]
    return next((kind for kind in WATCHED if kind.plural == plural), None)
