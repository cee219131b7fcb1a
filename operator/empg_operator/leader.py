"""The election of the one operator that works, by a Lease.

Times are measured by the own clock alone: a candidate waits until it has seen a Lease stand still for as long as it
says, and a leader stops before anybody can have seen that of its own.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

from empg_operator.api import Api, ApiError
from empg_operator.kinds import LEASE

LEASE_SECONDS = 15
RENEW_SECONDS = 4.0
_DEADLINE_SECONDS = 10.0
"""A leader that could not renew its Lease for so long gives up; less than LEASE_SECONDS, by the time that its end may
take. A request that is on its way even then does no harm: a name makes one Job, deletions name a UID, and statuses the
version that they follow from."""
_log = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """Somebody else may work from now on."""


class Election:
    """One candidate."""

    def __init__(self, api: Api, namespace: str, name: str, identity: str) -> None:
        """`namespace` and `name` are those of the Lease."""
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._loop = asyncio.get_running_loop()
        self._seen: tuple[str, float] | None = None
        """Resource version of another's Lease, and since when it has stood still."""

    async def win(self) -> None:
        """Wait until this candidate leads. ApiError when it lacks the right to."""
        while True:
            try:
                if await self._try():
                    _log.info("%s leads", self._identity)
                    return
            except ApiError as error:
                if error.is_denial:
                    raise
                _log.warning("%s", error)
            await asyncio.sleep(RENEW_SECONDS)

    async def keep(self) -> None:
        """Renew the Lease, for ever.

        LeaseLostError: it could not be renewed in time, or another one has it.
        """
        renewed = self._loop.time()
        while True:
            try:
                async with asyncio.timeout_at(renewed + _DEADLINE_SECONDS):
                    await asyncio.sleep(RENEW_SECONDS)
                    begun = self._loop.time()
                    if not await self._try():
                        raise LeaseLostError(f"another operator took over from {self._identity}")
                    renewed = begun
            except ApiError as error:
                _log.warning("%s", error)
            except TimeoutError:
                raise LeaseLostError(
                    f"{self._identity} could not renew its Lease for {_DEADLINE_SECONDS:.0f} s"
                ) from None

    async def resign(self) -> None:
        """Let the next one lead at once."""
        lease = await self._api.get(LEASE, self._namespace, self._name)
        if lease and lease["spec"].get("holderIdentity") == self._identity:
            await self._api.put(
                LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}}
            )

    async def _try(self) -> bool:
        """Take or renew the Lease; whether this candidate has it."""
        lease = await self._api.get(LEASE, self._namespace, self._name)
        spec: dict[str, Any] = dict(lease["spec"]) if lease else {}
        holder = spec.get("holderIdentity")
        if lease and holder and holder != self._identity and not self._is_still(lease):
            return False
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if holder != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", -1) + 1}
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        about = {"name": self._name, "namespace": self._namespace, **(lease["metadata"] if lease else {})}
        body = {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": about, "spec": spec}
        return await self._api.put(LEASE, body) is not None

    def _is_still(self, lease: Any) -> bool:
        """Whether another's Lease has not changed for as long as it is good for."""
        version, now = lease["metadata"]["resourceVersion"], self._loop.time()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] > lease["spec"].get("leaseDurationSeconds", LEASE_SECONDS)
