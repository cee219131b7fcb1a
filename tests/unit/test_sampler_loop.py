"""What the sampler's loop makes of answers that end late or with an error. The engine is scripted, all else is real."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from rundir_samples import a_plan, new_run

from empg.api.task import GraderSpec
from empg.exit_codes import RETRY
from empg.rundir.claims import survey
from empg.rundir.heartbeat import Liveness
from empg.rundir.plan import Plan, Sampling
from empg.rundir.plans import create_plan
from empg.rundir.status import UnitStatus
from empg.rundir.units import read_unit
from empg.store.posix import PosixStore
from empg_sampler.engine import Completion
from empg_sampler.errors import InvalidSpec
from empg_sampler.graders import Graders
from empg_sampler.health import Health
from empg_sampler.loop import Sampler
from empg_sampler.pulse import Pulse
from empg_sampler.rest import Rest
from empg_sampler.survey import Surveyor
from empg_sampler.work import TRIES, Answer


@dataclass
class ScriptedEngine:
    """Answers everything in one step, rightly, but for what the script lets fail or take longer."""

    fails: Callable[[Answer], bool] = lambda answer: False
    lasts: Callable[[Answer], bool] = lambda answer: False
    version: int = 2
    model_length: int = 64
    asked: list[tuple[Answer, int]] = field(default_factory=list)
    """Requests and their seeds, in order."""
    queue: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def running(self) -> int:
        return len(self.queue)

    def add(self, request_id: str, prompt_ids: tuple[int, ...], sampling: Sampling, seed: int) -> None:
        self.asked.append((Answer.parse(request_id), seed))
        self.queue[request_id] = prompt_ids

    def step(self) -> list[Completion]:
        done = {name: ids for name, ids in self.queue.items() if not self.lasts(Answer.parse(name))}
        for name in done:
            del self.queue[name]
        return [self.complete(request_id, prompt_ids) for request_id, prompt_ids in done.items()]

    def complete(self, request_id: str, prompt_ids: tuple[int, ...]) -> Completion:
        failed = self.fails(Answer.parse(request_id))
        text = str(prompt_ids[-1])  # the gold answer of these plans
        return Completion(request_id, (7, 2), (-0.5, -1.0), text, "error" if failed else "stop", ((self.version, 2),))

    def abort(self, requests: Sequence[str]) -> None:
        for request_id in requests:
            self.queue.pop(request_id, None)


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    return new_run(tmp_path)


@pytest.fixture
def graders() -> Iterator[Graders]:
    with closing(Graders()) as graders:
        yield graders


def a_sampler(
    store: PosixStore,
    graders: Graders,
    engine: ScriptedEngine,
    pulse: Pulse,
    stop: threading.Event,
    max_sequences: int = 16,
    health: Health | None = None,
) -> Sampler:
    return Sampler(
        store=store,
        engine=engine,  # type: ignore[arg-type]
        graders=graders,
        pulse=pulse,
        surveyor=Surveyor(store, "a", 60.0),
        id="a",
        incarnation="a1",
        max_sequences=max_sequences,
        deterministic=False,
        rest=Rest(store, pulse, shared=False),
        pinned=True,
        manifest=None,
        health=health or Health(),
        turn=None,
        stop=stop,
    )


def sampled(
    store: PosixStore, graders: Graders, engine: ScriptedEngine, plan: Plan, max_sequences: int = 16
) -> list[UnitStatus]:
    """What became of the units of a plan."""
    create_plan(store, plan)
    stop, ended = threading.Event(), list[int]()
    pulse = Pulse(store, "a", "a1")
    with pulse:
        sampler = a_sampler(store, graders, engine, pulse, stop, max_sequences)
        thread = threading.Thread(target=lambda: ended.append(sampler.run()))
        thread.start()
        liveness, deadline = Liveness(60), time.monotonic() + 60
        try:
            found = survey(store, [plan], liveness)
            while any(unit.state not in ("committed", "void") for unit in found.values()):
                assert time.monotonic() < deadline, found
                assert thread.is_alive()
                time.sleep(0.02)
                found = survey(store, [plan], liveness)
        finally:
            stop.set()
            thread.join()
    assert ended == [RETRY]
    return list(found.values())


def test_an_answer_that_ends_with_an_error_is_asked_for_again(store: PosixStore, graders: Graders) -> None:
    plan = a_plan(1)
    engine = ScriptedEngine(lambda answer: (answer.prompt, answer.sample) == (1, 0) and answer.tried < TRIES - 1)
    [status] = sampled(store, graders, engine, plan)
    assert (status.state, status.attempt, status.failures) == ("committed", 0, 0)
    tries = Counter((answer.prompt, answer.sample) for answer, _ in engine.asked)
    assert tries == {(0, 0): 1, (0, 1): 1, (1, 0): TRIES, (1, 1): 1}
    assert len({seed for answer, seed in engine.asked if (answer.prompt, answer.sample) == (1, 0)}) == 1
    rows, _ = read_unit(store, plan, plan.units[0].name, 0)
    assert [row.reward for row in rows] == [1.0] * 4


def test_a_unit_with_an_answer_that_never_comes_fails_and_gives_no_reward(store: PosixStore, graders: Graders) -> None:
    plan = a_plan(1, attempts=2)
    engine = ScriptedEngine(lambda answer: (answer.prompt, answer.sample) == (1, 0))
    [status] = sampled(store, graders, engine, plan)
    assert (status.state, status.failures) == ("void", 2)
    tries = Counter(answer.attempt for answer, _ in engine.asked if (answer.prompt, answer.sample) == (1, 0))
    assert tries == {0: TRIES, 1: TRIES}
    assert store.list("rollout/000003/units") == []
    claims = [store.get(key).decode() for key in store.list("rollout/000003/claims")]
    assert len(claims) == 2
    assert all(f"an answer ended with 'error' {TRIES} times" in claim for claim in claims)


def test_answers_are_graded_while_others_of_their_unit_are_generated(store: PosixStore, graders: Graders) -> None:
    def graded() -> float:
        return REGISTRY.get_sample_value("empg_sampler_answers_total", {"verdict": "correct"}) or 0.0

    before = graded()
    engine = ScriptedEngine(lasts=lambda answer: (answer.prompt, answer.sample) == (1, 1) and graded() < before + 3)
    [status] = sampled(store, graders, engine, a_plan(1))
    assert (status.state, graded()) == ("committed", before + 4)


def test_a_unit_is_begun_as_soon_as_the_engine_has_room(store: PosixStore, graders: Graders) -> None:
    """One answer of the first unit lasts until the last unit is asked for, for which there was no room at first."""
    plan = a_plan(3)
    first: list[Answer] = []
    third: list[int] = []

    def lasts(answer: Answer) -> bool:
        first[:] = first or [answer]
        if len({asked.unit for asked, _ in engine.asked}) == 3:
            return False
        third.append(engine.running)
        return answer == first[0]

    engine = ScriptedEngine(lasts=lasts)
    assert [unit.state for unit in sampled(store, graders, engine, plan, max_sequences=5)] == ["committed"] * 3
    assert max(third) == 8


def test_a_grader_that_can_not_run_costs_no_unit(store: PosixStore, graders: Graders) -> None:
    plan = a_plan(2, grader=GraderSpec(name="function", function="no_such_module:grade", workers=1))
    create_plan(store, plan)
    with Pulse(store, "a", "a1") as pulse, pytest.raises(InvalidSpec, match="no_such_module"):
        a_sampler(store, graders, ScriptedEngine(), pulse, threading.Event()).run()
    found = survey(store, [plan], Liveness(60)).values()
    assert {(unit.state, unit.failures) for unit in found} == {("open", 0)}


def test_a_step_that_hangs_is_told_from_a_storage_that_stalls(store: PosixStore, graders: Graders) -> None:
    """By whether the sampler still counts as alive two minutes later."""
    now, stop = [0.0], threading.Event()
    health = Health(lambda: now[0])
    in_step, after = [], []

    class Engine(ScriptedEngine):
        def step(self) -> list[Completion]:
            now[0] += 120
            in_step.append(health.alive())
            return super().step()

    class SlowStore(PosixStore):
        def create(self, key: str, data: bytes) -> None:
            if "/units/" in key:
                now[0] += 120
                after.append(health.alive())
                stop.set()
            super().create(key, data)

    plan = a_plan(1)
    create_plan(store, plan)
    slow = SlowStore(store.root)
    with Pulse(store, "a", "a1") as pulse:
        assert a_sampler(slow, graders, Engine(), pulse, stop, health=health).run() == RETRY
    assert (in_step, after) == ([False], [True])
