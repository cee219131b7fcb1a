"""Samplers, learners and a reader of a run directory that pretend to work: what they commit follows from the plan."""

from __future__ import annotations

import os
import random
import secrets
import time
from dataclasses import replace

from empg.api.task import GraderSpec
from empg.exit_codes import RETRY
from empg.rundir import keys, records
from empg.rundir.claims import Claim, claim, fail, release, survey
from empg.rundir.final import Final, read_final, write_final
from empg.rundir.group import Manifest, newest_policy, policies, publish_policy, read_file, read_manifest
from empg.rundir.heartbeat import Liveness, SamplerRecord, read_records, write_record
from empg.rundir.owner import Fenced, LearnerOwner
from empg.rundir.plan import Plan, PlannedPrompt, Sampling, Unit
from empg.rundir.plans import create_plan, planned, read_plans, unsealed
from empg.rundir.progress import Progress, write_progress
from empg.rundir.seal import Seal, SealedUnit, create_seal, read_seal, read_sealed
from empg.rundir.units import CorruptUnit, commit, find_unit, read_unit, reject
from empg.store.posix import PosixStore
from empg.trajectory import Trajectory, from_parquet
from empg.verdict import Verdict

RUN = "hammer"
LEASE = 0.75
UNITS = 40
STOP = "probe/stop"
WINS = "wins"
GARBAGE = b"GARBAGE " * 512


def the_plan(iteration: int) -> Plan:
    def prompt(index: int) -> PlannedPrompt:
        return PlannedPrompt(prompt_id=f"{iteration}-{index}", prompt=f"What is {index}?", prompt_ids=(index,), gold="")

    return Plan(
        run=RUN,
        kind="rollout",
        iteration=iteration,
        round=0,
        min_policy=0,
        seed=0,
        samples=2,
        attempts=100,
        sampling=Sampling(temperature=1, top_p=1, top_k=0, max_tokens=64),
        grader=GraderSpec(name="exact"),
        task="dataset",
        units=tuple(Unit(name=f"00-{n:04d}", prompts=(prompt(2 * n), prompt(2 * n + 1))) for n in range(UNITS)),
    )


def answers(plan: Plan, unit: str) -> list[Trajectory]:
    """What every attempt of a unit comes to."""
    rows = []
    for prompt in find_unit(plan, unit).prompts:
        for sample in range(plan.samples):
            tokens = tuple(random.Random(f"{prompt.prompt_id} {sample}").choices(range(1000), k=64))
            rows.append(
                Trajectory(
                    run=plan.run,
                    iteration=plan.iteration,
                    unit=unit,
                    prompt_id=prompt.prompt_id,
                    sample=sample,
                    prompt=prompt.prompt,
                    prompt_ids=prompt.prompt_ids,
                    response_ids=tokens,
                    response=" ".join(map(str, tokens)),
                    logprobs=tuple(-token / 1024 for token in tokens),
                    policy_versions=((0, 64),),
                    finish_reason="length",
                    reward=float(sum(tokens)),
                    rewards={},
                    verdict=Verdict.WRONG,
                )
            )
    return rows


class Sampler:
    def __init__(self, store: PosixStore, name: str, steps: int, wicked: bool) -> None:
        self.store, self.name, self.steps, self.wicked = store, name, steps, wicked
        self.incarnation = secrets.token_hex(8)
        self.random = random.Random(self.incarnation)
        self.liveness = Liveness(LEASE)
        self.progress = self.beats = 0
        self.beat_at = 0.0

    def beat(self) -> None:
        self.beats += 1
        record = SamplerRecord(
            id=self.name, incarnation=self.incarnation, counter=self.beats, progress=self.progress, policy=0
        )
        write_record(self.store, record)
        self.beat_at = time.monotonic()

    def run(self) -> int:
        self.beat()
        since = 0
        while read_final(self.store) is None:
            self.liveness.observe(read_records(self.store))
            open_iterations = unsealed(self.store, "rollout", since)
            since = min(open_iterations, default=since)
            if not any(self.try_iteration(iteration) for iteration in open_iterations):
                time.sleep(0.05)
            if time.monotonic() - self.beat_at > LEASE / 10:
                self.beat()
        return 0

    def try_iteration(self, iteration: int) -> bool:
        plans = read_plans(self.store, "rollout", iteration)
        found = [status for status in survey(self.store, plans, self.liveness).values() if status.state == "open"]
        if not found:
            return False
        status = self.random.choice(found[:3])
        if claim(self.store, plans[0], status.unit, status.attempt, self.name, self.incarnation, 0):
            self.store.put(f"{WINS}/{iteration}/{status.unit}.{status.attempt}/{self.incarnation}", b"")
            self.work(plans[0], status.unit, status.attempt)
        return True

    def work(self, plan: Plan, unit: str, attempt: int) -> None:
        for _ in range(self.steps):
            time.sleep(0.05)
            self.progress += 1
            if time.monotonic() - self.beat_at > LEASE / 10:
                self.beat()
        mine = Claim(sampler=self.name, incarnation=self.incarnation, policy=0)
        mood = self.random.random() if self.wicked else 1.0
        if mood < 0.03:
            fail(self.store, plan, unit, attempt, mine, "bad mood")
        elif mood < 0.06:
            release(self.store, plan, unit, attempt, mine)
        elif mood < 0.09:
            self.store.create(keys.unit_key(plan.kind, plan.iteration, unit, attempt), GARBAGE)
        else:
            # Marked, so that a commit that replaces another shows.
            mark = {"mark": self.random.random()}
            commit(self.store, plan, unit, attempt, [replace(row, rewards=mark) for row in answers(plan, unit)])


def learner(store: PosixStore) -> int:
    try:
        owner = LearnerOwner.acquire(store, f"learner-{os.getpid()}")
        liveness = Liveness(LEASE)
        iteration = 0
        while read_final(store) is None:
            for ahead in (iteration, iteration + 1):
                create_plan(store, the_plan(ahead))
            seal = read_seal(store, "rollout", iteration) or seal_iteration(store, owner, liveness, iteration)
            rows = read_sealed(store, read_plans(store, "rollout", iteration), seal)
            files = [(f"shard-{n}", str(sum(row.reward for row in rows)).encode() * 999) for n in range(3)]
            publish_policy(store, owner, iteration + 1, files, {"trained_on": iteration})
            write_progress(store, Progress(attempt=owner.number, iteration=iteration, iterations=0, phase="learning"))
            iteration += 1
            if iteration == newest_policy(store) and STOP in store.list(keys.PROBES):
                owner.check()
                write_final(store, Final(run=RUN, iterations=iteration, policy=iteration, evaluations={}))
        return 0
    except Fenced:
        return RETRY


def seal_iteration(store: PosixStore, owner: LearnerOwner, liveness: Liveness, iteration: int) -> Seal:
    plans = read_plans(store, "rollout", iteration)
    good: dict[str, SealedUnit] = {}
    while len(good) < UNITS:
        owner.check()
        owner.heartbeat()
        liveness.observe(read_records(store))
        for status in survey(store, plans, liveness).values():
            if status.state == "committed" and status.unit not in good:
                try:
                    rows, digest = read_unit(store, plans[0], status.unit, status.attempt)
                except CorruptUnit as error:
                    reject(store, plans[0], status.unit, status.attempt, error.reason)
                else:
                    good[status.unit] = SealedUnit(
                        unit=status.unit, attempt=status.attempt, digest=digest, rows=len(rows)
                    )
        time.sleep(0.05)
    owner.check()
    return create_seal(store, Seal(run=RUN, kind="rollout", iteration=iteration, units=tuple(good.values())))


def reader(store: PosixStore) -> int:
    """Read whatever is there, all the time; anything half-written or vanished raises."""
    since = 0
    while read_final(store) is None:
        for version in policies(store)[-2:]:
            check_policy(store, version)
        read_records(store)
        iterations = planned(store, "rollout", since)
        since = max(0, max(iterations, default=0) - 2)
        for iteration in iterations:
            for key in store.list(keys.iteration_dir("rollout", iteration)):
                check(key, store.get(key))
    return 0


def check(key: str, data: bytes) -> None:
    if "/claims/" in key:
        records.decode(key, data, Claim)
    elif "/plan/" in key:
        assert records.decode(key, data, Plan).run == RUN, key
    elif "/units/" in key and data != GARBAGE:
        assert len(from_parquet(data)) == 4, key
    elif key.endswith("seal.json"):
        assert len(records.decode(key, data, Seal).units) == UNITS, key


def check_policy(store: PosixStore, version: int) -> Manifest:
    prefix = keys.policy_prefix(version)
    manifest = read_manifest(store, prefix)
    assert manifest is not None, prefix
    assert len({read_file(store, prefix, manifest, name) for name in manifest.files}) == 1, "shards of two writers"
    return manifest
