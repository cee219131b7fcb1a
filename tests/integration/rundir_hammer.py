"""Samplers, learners and a reader on one run directory, and a killer among them.

    python rundir_hammer.py RUN_DIR KILLS

Prints what happened as JSON. Samplers pretend to work: what they commit is a function of the plan.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from empg.api.task import GraderSpec
from empg.exit_codes import RETRY
from empg.rundir import keys, records
from empg.rundir.claims import Claim, claim, fail, release, survey
from empg.rundir.final import Final, read_final, write_final
from empg.rundir.group import Manifest, newest_policy, policies, publish_policy, read_file, read_manifest
from empg.rundir.heartbeat import Liveness, SamplerRecord, read_records, write_record
from empg.rundir.identity import Identity, prepare
from empg.rundir.owner import Fenced, LearnerOwner
from empg.rundir.plan import Plan, PlannedPrompt, Sampling, Unit
from empg.rundir.plans import create_plan, planned, read_plans, unsealed
from empg.rundir.progress import Progress, write_progress
from empg.rundir.seal import Seal, SealedUnit, create_seal, read_seal, read_sealed
from empg.rundir.units import CorruptUnit, commit, find_unit, read_unit, reject
from empg.store.posix import PosixStore
from empg.trajectory import Trajectory, from_parquet, to_parquet
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


class Killer:
    """Starts processes by fork, so that starting one costs little, and ends them in various ways."""

    def __init__(self, store: PosixStore) -> None:
        self.store = store
        self.random = random.Random(0)
        self.names: dict[int, str] = {}
        self.stopped: dict[int, float] = {}
        self.happened: Counter[str] = Counter()
        self.born = 0

    def start(self, name: str, body: Callable[[], int]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(body())
            except BaseException:  # noqa: BLE001 - whatever it is, the child must end here.
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
        self.names[pid] = name
        return pid

    def sampler(self, name: str | None = None) -> None:
        if name is None:
            self.born += 1
            name = f"fast-{self.born}"
        self.start(name, lambda: Sampler(self.store, name, steps=2, wicked=True).run())

    def slow_sampler(self, name: str) -> None:
        self.start(name, lambda: Sampler(self.store, name, steps=int(2.5 * LEASE / 0.05), wicked=False).run())

    def learner(self) -> None:
        self.start("learner", lambda: learner(self.store))

    def alive(self, prefix: str) -> list[int]:
        return [pid for pid, name in self.names.items() if name.startswith(prefix) and pid not in self.stopped]

    def end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.happened["killed"] += 1
        self.reap(pid, os.waitpid(pid, 0)[1])

    def reap(self, pid: int, status: int) -> None:
        name, code = self.names.pop(pid), os.waitstatus_to_exitcode(status)
        kind = name.split("-")[0]
        self.happened[f"{kind} ended with {code}"] += 1
        if kind == "learner" and not self.alive("learner") and read_final(self.store) is None:
            self.learner()

    def reap_all(self) -> None:
        while self.names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self.reap(pid, status)

    def wake(self, after: float) -> None:
        for pid, since in list(self.stopped.items()):
            if time.monotonic() - since >= after:
                os.kill(pid, signal.SIGCONT)
                del self.stopped[pid]

    def disturb(self) -> None:
        event = self.random.random()
        fast, learners = self.alive("fast"), self.alive("learner")
        if event < 0.85 and fast:
            pid = self.random.choice(fast)
            name = self.names[pid]
            self.end(pid)
            self.sampler(name if self.random.random() < 0.5 else None)
        elif event < 0.91 and learners:
            self.end(self.random.choice(learners))
        elif event < 0.93:
            self.learner()  # A second one takes over.
        elif event < 0.95 and learners:
            self.stop(self.random.choice(learners))
            self.learner()
        elif fast:
            self.stop(self.random.choice(fast))

    def stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.stopped[pid] = time.monotonic()
        self.happened["stopped"] += 1

    def run(self, kills: int, seconds: float) -> dict[str, int]:
        deadline = time.monotonic() + seconds
        self.start("reader", lambda: reader(self.store))
        self.learner()
        for number in range(2):
            self.slow_sampler(f"slow-{number}")
        for _ in range(8):
            self.sampler()
        while self.happened["killed"] < kills and time.monotonic() < deadline:
            time.sleep(self.random.uniform(0.02, 0.2))
            self.reap_all()
            self.wake(1.5 * LEASE)
            self.disturb()
        self.store.create(STOP, b"")
        self.wake(0)
        while self.names and time.monotonic() < deadline:
            self.reap_all()
            time.sleep(0.02)
        for pid in list(self.names):
            self.happened[f"{self.names.pop(pid)} was left over"] += 1
            os.kill(pid, signal.SIGKILL)
        return dict(self.happened)


def main() -> None:
    store = PosixStore(Path(sys.argv[1]))
    prepare(store, Identity(uid=RUN, name="hammer", spec_digest=""))
    # The first use imports pandas; do that once, and not in every child.
    from_parquet(to_parquet(answers(the_plan(0), "00-0000")))
    print(json.dumps(Killer(store).run(int(sys.argv[2]), seconds=150)))


if __name__ == "__main__":
    main()
