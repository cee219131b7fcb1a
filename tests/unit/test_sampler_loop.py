"""What the sampler's loop makes of answers that end late or with an error. The engine is scripted, all else is real."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from rundir_samples import a_plan, new_run

from empg.api.run import RunSpec
from empg.api.task import GraderSpec
from empg.exit_codes import RETRY
from empg.rundir.claims import survey
from empg.rundir.heartbeat import Liveness, read_records
from empg.rundir.plan import Plan, Sampling
from empg.rundir.plans import create_plan
from empg.rundir.specs import write_spec
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
    incarnation: str = "a1",
    lease_seconds: float = 60.0,
    manifest: Path | None = None,
) -> Sampler:
    return Sampler(
        store=store,
        engine=engine,  # type: ignore[arg-type]
        graders=graders,
        pulse=pulse,
        surveyor=Surveyor(store, "a", lease_seconds),
        id="a",
        incarnation=incarnation,
        max_sequences=max_sequences,
        deterministic=False,
        rest=Rest(store, pulse, shared=False),
        pinned=True,
        manifest=manifest,
        health=health or Health(),
        turn=None,
        stop=stop,
    )


def sampled(
    store: PosixStore,
    graders: Graders,
    engine: ScriptedEngine,
    plan: Plan,
    max_sequences: int = 16,
    lease_seconds: float = 60.0,
    manifest: Path | None = None,
) -> list[UnitStatus]:
    """What became of the units of a plan."""
    create_plan(store, plan)
    stop, ended = threading.Event(), list[int]()
    pulse = Pulse(store, "a", "a1")
    with pulse:
        sampler = a_sampler(
            store, graders, engine, pulse, stop, max_sequences, lease_seconds=lease_seconds, manifest=manifest
        )
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


def longer(max_tokens: int) -> RunSpec:
    """A spec whose sequences have room for so many tokens of an answer."""
    return RunSpec.model_validate(
        {
            "model": {"name": "m"},
            "task": {"name": "dataset", "source": "x.jsonl", "max_prompt_tokens": 16, "grader": {"name": "exact"}},
            "em": {"iterations": 9},
            "sampler": {"max_tokens": max_tokens},
        }
    )


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


def test_a_grader_that_can_not_run_is_corrected_in_the_manifest(
    store: PosixStore, graders: Graders, tmp_path: Path
) -> None:
    """Its plan names it for good, and no answer was graded by it."""
    manifest = tmp_path / "run.json"
    grader = {"name": "exact", "workers": 1}
    spec = {"model": {"name": "m"}, "task": {"name": "dataset", "source": "x.jsonl", "grader": grader}}
    run = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": "demo"}}
    manifest.write_text(json.dumps({**run, "spec": {**spec, "em": {"iterations": 9}}}))
    bad = GraderSpec(name="function", function="no_such_module:grade", workers=1)
    plan = a_plan(2, grader=bad)
    while graders.failure(bad, plan.task) is None:  # as while an engine starts
        time.sleep(0.05)
    found = sampled(store, graders, ScriptedEngine(), plan, manifest=manifest)
    assert [(unit.state, unit.attempt) for unit in found] == [("committed", 0)] * 2
    rows, _ = read_unit(store, plan, plan.units[0].name, 0)
    assert [row.reward for row in rows] == [1.0] * 4


def test_a_grader_may_take_longer_than_a_lease(store: PosixStore, graders: Graders) -> None:
    grader = GraderSpec(name="function", function="grading_functions:slow", workers=2, timeout_seconds=30)
    [status] = sampled(store, graders, ScriptedEngine(), a_plan(1, grader=grader), lease_seconds=0.5)
    assert (status.state, status.attempt, status.failures) == ("committed", 0, 0)
    assert len(store.list("rollout/000003/claims")) == 1


class Poisoned(ScriptedEngine):
    """Ends with the first step that has a certain unit."""

    def step(self) -> list[Completion]:
        if any(Answer.parse(name).unit == "00-0001" for name in self.queue):
            raise RuntimeError("CUDA error: device-side assert")
        return super().step()


def test_a_unit_that_ends_engines_takes_no_other_with_it(store: PosixStore, graders: Graders) -> None:
    plan = a_plan(4, attempts=3)
    create_plan(store, plan)
    liveness, found, lives = Liveness(60), dict[str, UnitStatus](), 0

    def settled() -> bool:
        liveness.observe(read_records(store))
        found.update(survey(store, [plan], liveness))
        return all(unit.state in ("committed", "void") for unit in found.values())

    while lives == 0 or not settled():
        lives += 1
        assert lives < 12, found
        with Pulse(store, "a", f"a{lives}") as pulse:
            sampler = a_sampler(store, graders, Poisoned(), pulse, threading.Event(), incarnation=f"a{lives}")
            with suppress(RuntimeError):
                deadline = time.monotonic() + 60
                while not settled():
                    assert time.monotonic() < deadline, found
                    assert sampler._see() is None
                    sampler._generate()
                    sampler._grade()
                    sampler._commit()
    states = {name: unit.state for name, unit in found.items()}
    assert states == {"00-0000": "committed", "00-0001": "void", "00-0002": "committed", "00-0003": "committed"}


def test_nothing_is_claimed_that_is_too_long_for_the_engine(store: PosixStore, graders: Graders) -> None:
    """A live edit asks for longer answers, and units of the iteration before are in hand."""
    write_spec(store, 0, longer(8))
    first, second = a_plan(1), a_plan(2, iteration=4, sampling=Sampling(temperature=1, top_p=1, top_k=0, max_tokens=90))
    create_plan(store, first)
    lasts = [True]

    class Short(ScriptedEngine):
        def add(self, request_id: str, prompt_ids: tuple[int, ...], sampling: Sampling, seed: int) -> None:
            if sampling.max_tokens > self.model_length:
                raise ValueError("too long")
            super().add(request_id, prompt_ids, sampling, seed)

    with Pulse(store, "a", "a1") as pulse:
        sampler = a_sampler(store, graders, Short(lasts=lambda answer: lasts[0]), pulse, threading.Event())
        assert sampler._see() is None
        assert sampler.engine.running == 4
        write_spec(store, 1, longer(90))
        create_plan(store, second)
        for _ in range(5):
            assert sampler._see() is None
            sampler._generate()
        lasts.clear()
        lasts.append(False)
        while sampler.works:
            sampler._generate()
            sampler._grade()
            sampler._commit()
        assert sampler._see() == RETRY
    assert [unit.state for unit in survey(store, [first], Liveness(60)).values()] == ["committed"]
    found = survey(store, [second], Liveness(60)).values()
    assert [(unit.state, unit.failures) for unit in found] == [("open", 0)] * 2
