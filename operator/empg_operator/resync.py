"""Lists of everything: at the start, and again and again for what is not watched and for what a watch missed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection

from empg_operator.api import Api, ApiError
from empg_operator.cache import Cache, RunKey
from empg_operator.kinds import LISTED, POD_MONITOR, RUN, WATCHED, Kind
from empg_operator.metrics import Metrics
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
        self,
        api: Api,
        cache: Cache,
        queue: Queue[RunKey],
        reconciler: Reconciler,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._api = api
        self._cache = cache
        self._queue = queue
        self._reconciler = reconciler
        self._settings = settings
        self._metrics = metrics
        self._refused: dict[str | None, ApiError] = {}
        """Namespaces that something could not be listed of at the last list of everything, and one refusal of each."""
        self._changed: set[RunKey] = set()
        """Runs that are to be queued: what the cache has taken in, no later list will show as changed."""
        self._doubtful: set[Kind] = set()
        self._doubt = asyncio.Event()

    async def fill(self) -> None:
        """List everything and queue every run; an API server that is away is waited for.

        Of several namespaces, those that refuse are left to later lists: who deletes one does not stop the others.

        ApiError: something may not be listed anywhere; ValueError: the cluster does not know EMPGRun.
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
        self._changed.clear()
        for key in self._cache.runs():
            self._queue.add(key)

    def doubt(self, kind: Kind) -> None:
        """List a kind again soon: its watch began anew, and what was deleted before then it will never tell. All kinds
        while a namespace refuses, as it may be the one that is watched again."""
        self._doubtful.update((*WATCHED, *LISTED) if self._refused else (kind,))
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
                await self._relist_all()
            else:
                self._note({**self._refused, **await self._relist(kinds)})
        except ApiError as error:
            _log.warning("%s; listing again in %.0f s", error, _RETRY_SECONDS)
            self._doubtful |= kinds
            self._doubt.set()
            return False
        finally:
            while self._changed:
                self._queue.add(self._changed.pop())
        return True

    async def _relist_all(self) -> None:
        # Whether or not the settings want any: those that were made when they did are to go.
        pod_monitors = await self._api.serves(POD_MONITOR)
        if pod_monitors != self._reconciler.pod_monitors:
            self._reconciler.pod_monitors = pod_monitors
            self._changed.update(self._cache.runs())
        kinds = (*WATCHED, *LISTED, *((POD_MONITOR,) if pod_monitors else ()))
        self._note(await self._relist(kinds))

    def _note(self, refused: dict[str | None, ApiError]) -> None:
        self._refused = refused
        self._metrics.refused_namespaces.set(len(refused))

    async def _relist(self, kinds: Collection[Kind]) -> dict[str | None, ApiError]:
        """Make the cache of some kinds what the API server has, and note the runs that this concerns.

        The namespaces that refuse, and the first refusal of each. ApiError: all refuse a kind, or one fails for another
        reason.
        """
        refused: dict[str | None, ApiError] = {}
        namespaces: Collection[str | None] = dict.fromkeys(self._settings.namespaces) or (None,)
        for kind in kinds:
            refusing = 0
            for namespace in namespaces:
                try:
                    await self._relist_in(kind, namespace)
                except ApiError as error:
                    refusing += 1
                    if not error.is_refusal or refusing == len(namespaces):
                        raise
                    refused.setdefault(namespace, error)
        for namespace, refusal in refused.items():
            _log.warning("namespace %s is left to later lists: %s", namespace, refusal)
        return refused

    async def _relist_in(self, kind: Kind, namespace: str | None) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._list(kind, namespace)
                return
            except ApiError as error:
                if error.code != _GONE or attempt == _ATTEMPTS:
                    raise

    async def _list(self, kind: Kind, namespace: str | None) -> None:
        listed: set[tuple[str, str]] = set()
        taken = 0
        async for items, version in self._api.chunks(kind, namespace):
            taken = version
            for item in items:
                listed.add((item["metadata"]["namespace"], item["metadata"]["name"]))
                self._changed |= self._cache.put(item)
        self._changed |= self._cache.retain(kind.name, namespace, listed, taken)
