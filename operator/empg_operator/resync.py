"""Lists of everything: at the start, and again and again for what is not watched and for what a watch missed."""

from __future__ import annotations

import asyncio
import logging
import random

from empg_operator.api import Api, ApiError
from empg_operator.cache import Cache, RunKey
from empg_operator.kinds import LISTED, POD_MONITOR, RUN, WATCHED, Kind
from empg_operator.queue import Queue
from empg_operator.reconcile import Reconciler
from empg_operator.settings import Settings

_GONE = 410
_ATTEMPTS = 3
"""Lists whose continuation expired are begun again so often."""
_SOON_SECONDS = 1.0
_RETRY_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Resync:
    """Keeps the cache whole."""

    def __init__(
        self, api: Api, cache: Cache, queue: Queue[RunKey], reconciler: Reconciler, settings: Settings
    ) -> None:
        self._api = api
        self._cache = cache
        self._queue = queue
        self._reconciler = reconciler
        self._settings = settings
        self._doubtful: set[Kind] = set()
        self._doubt = asyncio.Event()

    async def fill(self) -> None:
        """List everything and queue every run; an API server that is away is waited for.

        ApiError: something may not be listed; ValueError: the cluster does not know EMPGRun.
        """
        while True:
            try:
                await self._fill()
                return
            except ApiError as error:
                if error.is_refusal:
                    raise
                _log.warning("%s; trying again in %.0f s", error, _RETRY_SECONDS)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _fill(self) -> None:
        if not await self._api.serves(RUN):
            raise ValueError(
                f"the cluster does not know {RUN.name} ({RUN.api_version}); install the custom resource definition: "
                "it comes with the chart (crds.enabled), and `empg crd` prints it"
            )
        await self._relist_all()
        for key in self._cache.runs():
            self._queue.add(key)

    def doubt(self, kind: Kind) -> None:
        """List a kind again soon: its watch began anew, and what was deleted before then it will never tell."""
        self._doubtful.add(kind)
        self._doubt.set()

    async def run(self) -> None:
        """List everything from time to time, and what is in doubt soon, for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._period()
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._doubt.wait()
                await asyncio.sleep(_SOON_SECONDS)  # more than one watch may begin anew
            except TimeoutError:
                due = loop.time() + self._period()
                self._doubtful.update((*WATCHED, *LISTED))
            if not await self._relist_doubtful():
                await asyncio.sleep(_RETRY_SECONDS)

    def _period(self) -> float:
        """Not the same for all operators of a cluster."""
        return self._settings.resync_seconds * random.uniform(0.9, 1.1)

    async def _relist_doubtful(self) -> bool:
        self._doubt.clear()
        kinds, self._doubtful = self._doubtful, set()
        try:
            if kinds.issuperset(LISTED):
                changed = await self._relist_all()
            else:
                changed = set[RunKey]().union(*[await self._relist(kind) for kind in kinds])
        except ApiError as error:
            _log.warning("%s; listing again in %.0f s", error, _RETRY_SECONDS)
            self._doubtful |= kinds
            self._doubt.set()
            return False
        for key in changed:
            self._queue.add(key)
        return True

    async def _relist_all(self) -> set[RunKey]:
        changed: set[RunKey] = set()
        # Whether or not the settings want any: those that were made when they did are to go.
        pod_monitors = await self._api.serves(POD_MONITOR)
        if pod_monitors != self._reconciler.pod_monitors:
            self._reconciler.pod_monitors = pod_monitors
            changed.update(self._cache.runs())
        kinds = (*WATCHED, *LISTED, *((POD_MONITOR,) if pod_monitors else ()))
        for kind in kinds:
            changed |= await self._relist(kind)
        return changed

    async def _relist(self, kind: Kind) -> set[RunKey]:
        """Make the cache of a kind what the API server has; the runs that this concerns."""
        changed: set[RunKey] = set()
        for namespace in self._settings.namespaces or (None,):
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    changed |= await self._relist_in(kind, namespace)
                    break
                except ApiError as error:
                    if error.code != _GONE or attempt == _ATTEMPTS:
                        raise
        return changed

    async def _relist_in(self, kind: Kind, namespace: str | None) -> set[RunKey]:
        changed: set[RunKey] = set()
        listed: set[tuple[str, str]] = set()
        taken = 0
        async for items, version in self._api.chunks(kind, namespace):
            taken = version
            for item in items:
                listed.add((item["metadata"]["namespace"], item["metadata"]["name"]))
                changed |= self._cache.put(item)
        return changed | self._cache.retain(kind.name, namespace, listed, taken)
