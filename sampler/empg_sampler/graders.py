"""Grading beside generation: a pool of killable processes per grader."""

from __future__ import annotations

from typing import cast

from empg.api.task import GraderSpec
from empg.grading import GradePool
from empg.grading.process import WorkerLost
from empg.verdict import Grade
from empg_sampler.errors import InvalidSpec
from empg_sampler.work import Answer


class Graders:
    """The pools of the graders in use. A live edit of the grader makes a new one; the old one goes when it is done."""

    def __init__(self) -> None:
        self._pools: dict[tuple[GraderSpec, str], GradePool] = {}
        self._failures: dict[tuple[GraderSpec, str], Exception] = {}
        """Why graders can't run that were found not to."""

    @property
    def pending(self) -> int:
        """Answers that wait for their grade."""
        return sum(pool.pending for pool in self._pools.values())

    def prepare(self, spec: GraderSpec, task: str) -> None:
        """Start a grader's processes, if they don't run yet."""
        if (spec, task) in self._pools:
            return
        for key in [key for key, pool in self._pools.items() if not pool.pending]:
            self._pools.pop(key).close()
        self._pools[spec, task] = GradePool(spec, task)

    def failure(self, spec: GraderSpec, task: str) -> Exception | None:
        """Why a grader can't run, as far as its processes have told by now; they are started if they don't run."""
        if (spec, task) not in self._failures:
            self.prepare(spec, task)
            if (failure := self._pools[spec, task].failure) is None:
                return None
            self._failures[spec, task] = failure
        return self._failures[spec, task]

    def submit(self, spec: GraderSpec, task: str, answer: Answer, text: str, gold: str) -> None:
        """Queue an answer."""
        self.prepare(spec, task)
        self._pools[spec, task].submit(answer, text, gold)

    def poll(self, timeout: float) -> list[tuple[Answer, Grade]]:
        """All finished grades; waits up to `timeout` seconds for the first while any is pending.

        InvalidSpec when a grader can't run, as a user's function that can't be imported; WorkerLost when its processes
        don't start.
        """
        waiting = [pool for pool in self._pools.values() if pool.pending]
        try:
            grades = [item for pool in waiting for item in pool.poll(timeout / len(waiting))]
        except ValueError as error:
            raise InvalidSpec(str(error)) from error
        except OSError as error:
            raise WorkerLost(f"no grading process can be started: {error}") from error
        return [(cast(Answer, answer), grade) for answer, grade in grades]

    def close(self) -> None:
        """Kill the processes."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
