"""Under `rollStrategy: Alternate`, the end of the samplers' turn."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Self

from empg.cluster.reporter import StatusReporter
from empg_sampler.choose import Board
from empg_sampler.errors import InvalidSpec

log = logging.getLogger(__name__)

FIELD_MANAGER = "empg-sampler"
ATTEMPT_VARIABLE = "EMPG_ATTEMPT"
SECONDS_AT_EXIT = 5.0
LOOKS = 2
"""Looks at the run directory, one after the other, that must find nothing to do."""


def attempt(environment: Mapping[str, str]) -> int:
    """The learner's attempt that planned the work. InvalidSpec if the environment does not say."""
    text = environment.get(ATTEMPT_VARIABLE, "")
    if not text.isdecimal():
        raise InvalidSpec(f"--report needs {ATTEMPT_VARIABLE}, the learner's attempt; it is {text!r}")
    return int(text)


class Turn:
    """While it is entered, reports once, as `status.sampled`, that everything planned is there or void."""

    def __init__(self, reporter: StatusReporter, attempt: int) -> None:
        self._reporter = reporter
        self._attempt = attempt
        self._idle_looks = 0
        self._over = False

    def __enter__(self) -> Self:
        self._reporter.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._reporter.close(SECONDS_AT_EXIT)

    def look(self, board: Board) -> None:
        """Take note of what a look at the run directory found.

        Where nothing at all is planned the learner's plans are not to be seen yet.
        """
        idle = bool(board.iterations) and not board.open and not board.held
        self._idle_looks = self._idle_looks + 1 if idle else 0
        if self._idle_looks >= LOOKS and not self._over:
            self._over = True
            self._reporter.offer({"sampled": self._attempt}, news=self._attempt)
            log.info("nothing is left to sample for attempt %d of the learner", self._attempt)
