"""The sampler's loop: look, swap, claim, generate, grade, commit."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from empg.api.load import InvalidManifest, load_run
from empg.api.task import GraderSpec
from empg.cluster.termination import STOPPED, leave_word
from empg.exit_codes import OK, RETRY
from empg.grading.process import WorkerLost
from empg.rundir.claims import Claim, claim, fail, release
from empg.rundir.plan import Plan
from empg.rundir.probe import echo
from empg.rundir.specs import newest_spec
from empg.rundir.units import commit
from empg.store.base import StorageFull, Store, StoreError, retry_when_full
from empg_sampler import metrics
from empg_sampler.choose import (
    SHORTEST_WAIT,
    Board,
    OpenUnit,
    claims_allowed,
    idle_wait,
    in_order,
    target_policy,
)
from empg_sampler.engine import Completion, Engine
from empg_sampler.errors import InvalidSpec
from empg_sampler.finished import finished
from empg_sampler.graders import Graders
from empg_sampler.health import LOAD_SECONDS, Health
from empg_sampler.pulse import Pulse
from empg_sampler.rest import Rest
from empg_sampler.survey import Surveyor, find_policy
from empg_sampler.turn import Turn
from empg_sampler.weights import BadPolicy
from empg_sampler.work import TRIES, Answer, Work

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""A busy sampler looks at the run directory this often, or rarer where looking is slow (`LOOK_SHARE`)."""
LOOK_SHARE = 0.1
"""Largest share of a busy sampler's time that goes into looking."""
AGAIN_SECONDS = 10.0
"""After this long a policy that was refused is tried again, and a claim for which there was no room."""
FULL_SECONDS = 600.0
"""How long a finished unit waits for room on a full volume."""

OUTGROWN = "the plan needs longer sequences than this engine has: starting anew with the newest spec"


class Stopped(Exception):
    """The sampler was asked to stop while it waited for something."""


@dataclass
class Sampler:
    """One sampler at work. All waiting and all I/O of the loop are here; the decisions are in `choose`."""

    store: Store
    engine: Engine
    graders: Graders
    pulse: Pulse
    surveyor: Surveyor
    id: str
    incarnation: str
    max_sequences: int
    deterministic: bool
    rest: Rest
    pinned: bool
    """Whether to serve one policy alone."""
    manifest: Path | None
    """The manifest, where it is not in the run directory."""
    health: Health
    turn: Turn | None
    """What to do when nothing is left to sample."""
    stop: threading.Event
    works: dict[tuple[str, int, str, int], Work] = field(init=False, default_factory=dict)
    """Units in hand, by their `key`."""
    _refused: dict[int, float] = field(init=False, default_factory=dict)
    """When a refused policy may be tried again."""
    _loading: int | None = field(init=False, default=None)
    """The version that our record says we load, so that it is not removed."""
    _full_until: float = field(init=False, default=0.0)
    _look_at: float = field(init=False, default=0.0)
    """When to look at the run directory again (monotonic seconds)."""

    def run(self) -> int:
        """Work until the run is finished (0) or until asked to stop or to start anew (75)."""
        idle_since: float | None = None
        try:
            while not self.stop.is_set():
                self.health.beat()
                if time.monotonic() >= self._look_at and (code := self._look()) is not None:
                    return code
                if self._generate() | self._grade() | self._commit():
                    idle_since = None
                    continue
                idle_since = idle_since or time.monotonic()
                self.stop.wait(idle_wait(time.monotonic() - idle_since))
                self._look_at = 0.0
        except Stopped:
            pass
        except (InvalidManifest, InvalidSpec, WorkerLost, StoreError):  # no unit or engine is at fault
            self._release()
            raise
        # Not after a crash: a dead sampler's claims count as failed, so that a unit that ends engines becomes void.
        self._release()
        log.info("stopping: claims are released")
        leave_word(STOPPED)
        return RETRY

    def _look(self) -> int | None:
        """See what is there, serve the right policy and claim units; an exit code ends the loop."""
        if time.monotonic() < self._full_until:
            return None
        try:
            return self._see()
        except StorageFull as error:
            log.error("%s; no unit is claimed until there is room", error)
            self._full_until = time.monotonic() + AGAIN_SECONDS
            return None

    def _see(self) -> int | None:
        start = time.monotonic()
        if finished(self.store, self.manifest):
            log.info("the run is finished")
            return OK
        echo(self.store)
        board = self.surveyor.board()
        for work in list(self.works.values()):
            if (work.plan.kind, work.plan.iteration) not in board.iterations:
                self._drop(work, "sealed")
        if self.turn:
            self.turn.look(board)
        if self.rest.due():
            if not self.works and not self.rest.asleep:
                self.engine.sleep()
                self.rest.begin(self.engine.version)
        else:
            now = time.monotonic()
            published = set() if self.pinned else self.surveyor.policies()
            available = {version for version in published if self._refused.get(version, now) <= now}
            self._serve(board, available)
            outgrown = self._outgrown(board)
            if outgrown and not self.works:
                log.info(OUTGROWN)
                leave_word(OUTGROWN)
                return RETRY
            if not self.rest.asleep and not outgrown:
                # A pod with one policy does not come back to its evaluations either.
                self._claim(board, leaving=self.pinned or max(available, default=0) > self.engine.version)
        self._look_at = time.monotonic() + max(LOOK_SECONDS, (time.monotonic() - start) / LOOK_SHARE)
        return None

    def _serve(self, board: Board, available: set[int]) -> None:
        """Swap to another policy, if one is better."""
        version = target_policy(self.engine.version, available, board, self._generating, steady=self.deterministic)
        current, asleep = self.engine.version, self.rest.asleep
        if not (self.rest.may_end(current, version, board) if asleep else version != current):
            return
        if self._loading != version:
            self.pulse.say(policy=current, loading=version)
            self._loading = version
        try:
            policy = find_policy(self.store, version)
            if not self.engine.may_swap(policy):
                return
            self.health.beat(LOAD_SECONDS, stall=0)
            seconds = self.engine.wake(policy) if asleep else self.engine.swap(policy)
        except BadPolicy as error:
            self._refused[version] = time.monotonic() + AGAIN_SECONDS
            metrics.REFUSED_POLICIES.inc()
            log.error("policy %d refused, policy %d goes on: %s", version, self.engine.version, error)
        else:
            self.rest.asleep = False
            self.pulse.advance()
            metrics.SWAP_SECONDS.observe(seconds)
            metrics.POLICY_VERSION.set(version)
            log.info("policy %d served after %.0f ms", version, 1e3 * seconds)
        self.health.beat()
        self.pulse.say(policy=self.engine.version, asleep=self.rest.asleep)
        self._loading = None

    def _claim(self, board: Board, *, leaving: bool) -> None:
        """Take units, so that the engine is busy and every sampler has its share.

        A unit that failed before is taken alone: if it ends the engine once more, no other is lost with it.
        """
        if any(work.suspect for work in self.works.values()):
            return
        version, mine = self.engine.version, len(self._generating)
        allowed = 1 - mine if self.deterministic else claims_allowed(board, version, mine, self.surveyor.samplers)
        free = self.max_sequences - self.engine.running
        for candidate in in_order(board, version, self.id, leaving=leaving):
            if allowed <= 0 or free <= 0 or self.stop.is_set():
                return
            if candidate.failures and self.works:
                continue
            plan, unit, attempt = candidate.plan, candidate.unit, candidate.attempt
            grader = self._grader(plan)
            if claim(self.store, plan, unit.name, attempt, self.id, self.incarnation, version):
                held = Claim(sampler=self.id, incarnation=self.incarnation, policy=version)
                self._start(Work(plan, unit, attempt, held, grader, suspect=candidate.failures > 0))
                if candidate.failures:
                    return
                allowed -= 1
                free -= candidate.sequences

    def _start(self, work: Work) -> None:
        self.graders.prepare(work.grader, work.plan.task)
        if self.deterministic:
            self.engine.forget_prefixes()
        self.works[work.key] = work
        for answer in work.answers():
            try:
                self._ask(work, answer)
            except ValueError as error:  # the engine refuses the prompt
                self._fail(work, str(error))
                return

    def _grader(self, plan: Plan) -> GraderSpec:
        """What grades the answers of a plan. Where the grader that it names can't run, the one of the manifest: a plan
        never changes, so it could not be corrected otherwise."""
        if self.manifest is None or self.graders.failure(plan.grader, plan.task) is None:
            return plan.grader
        return load_run(self.manifest).spec.task.grader

    def _ask(self, work: Work, answer: Answer) -> None:
        self.engine.add(answer.request_id, work.prompt(answer).prompt_ids, work.plan.sampling, work.seed(answer))
        work.asked[answer.prompt, answer.sample] = answer

    def _generate(self) -> bool:
        """One engine step; what was answered goes to the graders."""
        metrics.REQUESTS_RUNNING.set(self.engine.running)
        if not self.engine.running:
            return False
        self.health.beat(stall=0)
        completions = self.engine.step()
        self.health.beat()
        for completion in completions:
            answer = Answer.parse(completion.request_id)
            if (work := self.works.get(answer.of)) is not None:
                self._take(work, answer, completion)
        self.pulse.advance()
        return True

    def _take(self, work: Work, answer: Answer, completion: Completion) -> None:
        self.pulse.advance(tokens=len(completion.token_ids))
        del work.asked[answer.prompt, answer.sample]
        if completion.answered:
            work.completions[answer.prompt, answer.sample] = completion
            metrics.TOKENS.inc(len(completion.token_ids))
            prompt = work.prompt(answer)
            self.graders.submit(work.grader, work.plan.task, answer, completion.text, prompt.gold)
        elif answer.tried + 1 < TRIES:
            metrics.RETRIES.inc()
            log.warning("%s: an answer ended with %r; asking again", work.name, completion.finish_reason)
            self._ask(work, answer._replace(tried=answer.tried + 1))
        else:
            self._fail(work, f"an answer ended with {completion.finish_reason!r} {TRIES} times")

    def _grade(self) -> bool:
        """Take finished grades; with an idle engine wait a little for them."""
        grades = self.graders.poll(0 if self.engine.running else SHORTEST_WAIT)
        for answer, grade in grades:
            self.pulse.advance()
            if (work := self.works.get(answer.of)) is not None:
                work.grades[answer.prompt, answer.sample] = grade
                metrics.ANSWERS.labels(grade.verdict).inc()
        metrics.GRADES_PENDING.set(self.graders.pending)
        if self.graders.pending:
            self.pulse.advance()  # each ends within its own limit, which may be longer than a lease
        return bool(grades)

    def _commit(self) -> bool:
        """Publish the units that are complete."""
        complete = [work for work in self.works.values() if work.done]
        for work in complete:
            rows = work.rows()
            publish = partial(commit, self.store, work.plan, work.unit.name, work.attempt, rows)
            committed = retry_when_full(publish, FULL_SECONDS, sleep=self._pause)
            self._forget(work, "committed" if committed else "late")
            self.pulse.committed()
            log.info("%s: %d answers %s", work.name, len(rows), "committed" if committed else "came too late")
        return bool(complete)

    def _fail(self, work: Work, reason: str) -> None:
        log.error("%s failed: %s", work.name, reason)
        tell = partial(fail, self.store, work.plan, work.unit.name, work.attempt, work.claim, reason)
        retry_when_full(tell, FULL_SECONDS, sleep=self._pause)
        self._drop(work, "failed")

    def _release(self) -> None:
        for work in list(self.works.values()):
            try:
                release(self.store, work.plan, work.unit.name, work.attempt, work.claim)
            except StoreError as error:
                log.error("%s is not released: %s", work.name, error)
            self._drop(work, "released")

    def _drop(self, work: Work, outcome: str) -> None:
        self.engine.abort([answer.request_id for answer in work.asked.values()])
        self._forget(work, outcome)

    def _forget(self, work: Work, outcome: str) -> None:
        del self.works[work.key]
        metrics.UNITS.labels(work.plan.kind, outcome).inc()

    @property
    def _generating(self) -> list[Plan]:
        """Plans of the units that still need the engine."""
        return [work.plan for work in self.works.values() if work.asked]

    def _outgrown(self, board: Board) -> bool:
        """Whether a live edit asks for longer sequences than the engine was built for: what is in hand is finished, and
        nothing more is claimed."""

        def longest(unit: OpenUnit) -> int:
            return max(len(prompt.prompt_ids) for prompt in unit.unit.prompts) + unit.plan.sampling.max_tokens

        units = [unit for unit in board.open if unit.plan.admits(self.engine.version)]
        if all(longest(unit) <= self.engine.model_length for unit in units):
            return False
        newest = newest_spec(self.store)
        return newest is not None and newest[1].model_length > self.engine.model_length

    def _pause(self, seconds: float) -> None:
        self.health.beat()
        if self.stop.wait(seconds):
            raise Stopped
