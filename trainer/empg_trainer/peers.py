"""What the launchers of several nodes know of each other: whether they live, and how they ended.

Collective operations tell little of that: a rank that waits for one on a node that lost its power waits for hours, and
the ranks that a failed one leaves behind end as crashes, whatever it failed of.
"""

from __future__ import annotations

import datetime
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import torch.distributed as dist

from empg import exit_codes
from empg.cluster.termination import leave_word

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
SILENT_SECONDS = 60.0
"""A node that says nothing for so long is lost."""
SETTLE_SECONDS = 15.0
"""Longest wait of a node whose ranks failed for what the others have to say."""


class NotMet(Exception):
    """The launchers of the nodes did not come together; says who did not come."""


def resolve(
    host: str,
    port: int,
    seconds: float,
    *,
    look_up: Callable[..., object] = socket.getaddrinfo,
    pause: float = 1.0,
) -> None:
    """Return when a name has an address: that of a new pod is known late. NotMet after `seconds`."""
    deadline = time.monotonic() + seconds
    said = False
    while True:
        try:
            look_up(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if time.monotonic() + pause > deadline:
                raise NotMet(f"MASTER_ADDR: {host} has no address after {seconds:g} s: {error.strerror}") from error
            if not said:
                logger.info("waiting for an address of %s", host)
                said = True
        else:
            return
        time.sleep(pause)


def verdict(ends: Iterable[int]) -> int:
    """The code of several nodes that says why they ended; 0 where all have done their work.

    A node that wants to be started again, as one that is evicted does, makes the others crash: its word counts more
    than theirs. Diverged and a bad manifest count more still.
    """
    codes = list(ends)
    for code in (exit_codes.DIVERGED, exit_codes.SPEC, exit_codes.WAITING, exit_codes.RETRY):
        if code in codes:
            return code
    return max(codes, default=exit_codes.OK)


class Peers:
    """The launchers of all nodes. While it is entered, this process ends with 75 when one of them is lost.

    Each writes under a key of its own: a number that rises while it lives, then how it ended.
    """

    def __init__(self, store: Any, node: int, nodes: int) -> None:
        self._store = store
        self._node = node
        self._others = [other for other in range(nodes) if other != node]
        self._code = exit_codes.RETRY
        """What to end with where node 0 no longer answers."""
        self._answered = time.monotonic()
        self._settling = threading.Event()
        self._done = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._guarding = threading.Thread(target=self._guard, name="peers-guard", daemon=True)

    @classmethod
    def meet(cls, host: str, port: int, name: str, node: int, nodes: int, seconds: float) -> Self:
        """Wait for all launchers of the attempt `name`, node 0 being at `host`. NotMet if one does not come."""
        deadline = time.monotonic() + seconds
        resolve(host, port, seconds)
        logger.info("node %d waits for all of %d at %s:%d", node, nodes, host, port)
        try:
            # The rendezvous of the ranks will find this very server: they share it in node 0's process.
            store = dist.TCPStore(
                host,
                port,
                is_master=node == 0,
                timeout=datetime.timedelta(seconds=max(1.0, deadline - time.monotonic())),
                wait_for_workers=False,
                multi_tenant=True,
            )
        except dist.DistError as error:
            raise NotMet(f"node 0 does not answer at {host}:{port} within {seconds:g} s ({error})") from error
        peers = cls(dist.PrefixStore(f"launchers/{name}", store), node, nodes)
        try:
            peers._say("alive 0")
            for other in range(nodes):
                left = max(1.0, deadline - time.monotonic())
                peers._store.wait([str(other)], datetime.timedelta(seconds=left))
        except dist.DistError as error:
            raise NotMet(f"not all of the {nodes} nodes came within {seconds:g} s ({error})") from error
        return peers

    def __enter__(self) -> Self:
        self._answered = time.monotonic()
        self._watching.start()
        self._guarding.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._settling.set()
        self._done.set()

    def settle(self, code: int) -> int:
        """Say how this node ended, hear how the others did, and return the code that all end with.

        A node that has done its work waits for nobody.
        """
        self._code = code
        self._settling.set()
        self._watching.join(BEAT_SECONDS)
        ends = {self._node: code}
        deadline = time.monotonic() + SETTLE_SECONDS
        try:
            self._say(f"ended {code}")
            if code == exit_codes.OK:
                return code
            while self._hear(ends) and time.monotonic() < deadline:
                time.sleep(0.1)
            self._say(f"settled {code}")
            # Node 0 has the store: it leaves last.
            while self._node == 0 and not self._all_settled() and time.monotonic() < deadline:
                time.sleep(0.1)
        except dist.DistError as error:
            logger.warning("node 0 is gone, and with it what other nodes had to say: %s", error)
        return verdict(ends.values())

    def _watch(self) -> None:
        """Beat, and end this process when another node ended or is silent."""
        count = 0
        heard = {other: ("", time.monotonic()) for other in self._others}
        while not self._settling.wait(BEAT_SECONDS):
            count += 1
            try:
                self._say(f"alive {count}")
                for other, (before, at) in heard.items():
                    now = self._get(other)
                    if now != before:
                        heard[other] = (now, time.monotonic())
                    elif self._settling.is_set():
                        return
                    elif time.monotonic() - at > SILENT_SECONDS:
                        self._leave(f"node {other} is silent for {SILENT_SECONDS:g} s", exit_codes.RETRY)
                    elif not now.startswith("alive") and time.monotonic() - at > SETTLE_SECONDS:
                        self._leave(f"node {other} ended and our ranks did not", int(now.split()[1]))
            except dist.DistError as error:
                if not self._settling.wait(SETTLE_SECONDS):  # Our ranks may be about to end by themselves.
                    self._leave(f"node 0 is gone: {error}", exit_codes.RETRY)

    def _guard(self) -> None:
        """End this process when node 0 keeps us waiting: once it is gone without a word, no call to it returns."""
        while not self._done.wait(BEAT_SECONDS):
            if time.monotonic() - self._answered > SILENT_SECONDS + SETTLE_SECONDS:
                self._leave("node 0 does not answer", self._code)

    def _hear(self, ends: dict[int, int]) -> bool:
        """Take note of how others ended; whether some have not."""
        for other in self._others:
            word, number = self._get(other).split()
            if word != "alive":
                ends[other] = int(number)
        return len(ends) <= len(self._others)

    def _all_settled(self) -> bool:
        return all(self._get(other).startswith("settled") for other in self._others)

    def _say(self, word: str) -> None:
        self._store.set(str(self._node), word)
        self._answered = time.monotonic()

    def _get(self, other: int) -> str:
        word = str(self._store.get(str(other)).decode())
        self._answered = time.monotonic()
        return word

    def _leave(self, reason: str, code: int) -> None:
        """End this process, and by the kernel its ranks; `code` 0 of another node does not make ours complete."""
        logger.error("%s", reason)
        leave_word(reason)
        os._exit(code or exit_codes.RETRY)
