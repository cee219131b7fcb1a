"""Sampler processes on a run directory: what they commit, share, release and take over."""

import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sampler_runs import RUN, Process, a_plan, a_spec, launcher, new_run, publish, until

from empg.exit_codes import OK, RETRY, SPEC
from empg.rundir.claims import Claim, survey
from empg.rundir.final import Final, write_final
from empg.rundir.heartbeat import Liveness, read_record
from empg.rundir.plan import Plan, Sampling
from empg.rundir.plans import create_plan
from empg.rundir.records import read
from empg.rundir.specs import write_spec
from empg.rundir.units import read_unit
from empg.store.posix import PosixStore
from empg.trajectory import Trajectory

pytestmark = pytest.mark.slow

LONG = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=150)
PORT = 19421
GRACE_SECONDS = 30
"""Half of what a pod has to end by itself."""


@pytest.fixture
def launch() -> Iterator[Callable[..., Process]]:
    with launcher() as launch:
        yield launch


def statuses(store: PosixStore, plan: Plan) -> Counter[str]:
    return Counter(status.state for status in survey(store, [plan], Liveness(5)).values())


def committed(store: PosixStore, *plans: Plan) -> bool:
    return all(statuses(store, plan)["committed"] == len(plan.units) for plan in plans)


def rows(store: PosixStore, plan: Plan) -> list[Trajectory]:
    found = survey(store, [plan], Liveness(5))
    return [row for unit in plan.units for row in read_unit(store, plan, unit.name, found[unit.name].attempt)[0]]


def committers(store: PosixStore, plan: Plan) -> Counter[str]:
    keys = store.list(f"{plan.kind}/{plan.iteration:06d}/units")
    return Counter(
        read(store, key.replace("/units/", "/claims/").removesuffix(".parquet"), Claim).sampler for key in keys
    )


def finish(store: PosixStore) -> None:
    write_final(store, Final(run=RUN, iterations=2, policy=0, evaluations={}))


def ready(store: PosixStore, sampler: str) -> bool:
    record = read_record(store, sampler)
    return record is not None and record.policy is not None


def test_one_sampler_does_all_there_is_to_do(tmp_path: Path, launch: Callable[..., Process]) -> None:
    store = new_run(tmp_path / "run")
    rollout, greedy = (
        a_plan(3),
        a_plan(2, kind="eval", sampling=Sampling(temperature=0, top_p=1, top_k=0, max_tokens=8)),
    )
    for plan in (rollout, greedy):
        create_plan(store, plan)
    sampler = launch(store, "a", "--metrics-port", str(PORT))
    until(lambda: committed(store, rollout, greedy), sampler)
    answers = rows(store, rollout)
    assert len(answers) == 3 * 2 * 4
    assert {run for row in answers for run, _ in row.policy_versions} == {0}
    assert {row.verdict for row in answers} <= {"correct", "wrong", "unparseable"}
    assert len({row.response_ids for row in answers}) > 20  # every answer has a seed of its own
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5) as reply:
        metrics = reply.read().decode()
    assert 'empg_sampler_units_total{kind="rollout",outcome="committed"} 3.0' in metrics
    assert "vllm:generation_tokens_total" in metrics

    # The next policy, an iteration for it, and an evaluation that nobody did in time.
    missed, following = a_plan(1, kind="eval", round=1), a_plan(2, iteration=1)
    following_eval = a_plan(1, iteration=1, kind="eval")
    publish(store, 1)
    until(lambda: read_record(store, "a").policy == 1, sampler)
    for plan in (missed, following, following_eval):
        create_plan(store, plan)
    until(lambda: committed(store, missed, following, following_eval), sampler)
    assert {run for row in rows(store, missed) for run, _ in row.policy_versions} == {0}
    assert {run for row in rows(store, following) for run, _ in row.policy_versions} == {1}
    until(lambda: read_record(store, "a").policy == 1, sampler)

    # A policy that can't be served, then a good one.
    store.put("policy/000002/MANIFEST.json", b"garbage")
    until(lambda: "policy 2 refused" in sampler.log.read_text(), sampler)
    publish(store, 3)
    until(lambda: read_record(store, "a").policy == 3, sampler)

    # Longer than this engine's sequences: the unit fails and says why.
    longer = LONG.model_copy(update={"max_tokens": 400})
    too_long = a_plan(1, iteration=2, min_policy=0, sampling=longer)
    create_plan(store, too_long)
    until(lambda: statuses(store, too_long)["void"] == 1, sampler)
    assert "sampler.maxModelLength" in read(store, "rollout/000002/claims/00-0000.2", Claim).reason
    # Where a newer spec has room for it, the sampler starts anew.
    write_spec(store, 3, a_spec(max_tokens=LONG.max_tokens))
    create_plan(store, a_plan(1, iteration=3, min_policy=0, sampling=longer))
    assert sampler.popen.wait(10) == RETRY


def test_a_finished_run_and_a_wrong_command_line_end_at_once(tmp_path: Path, launch: Callable[..., Process]) -> None:
    store = new_run(tmp_path / "run")
    finish(store)
    assert launch(store, "a").popen.wait(10) == OK
    assert launch(store, "no/id").popen.wait(10) == SPEC


def test_engine_arguments_that_vllm_refuses_are_a_wrong_spec(tmp_path: Path, launch: Callable[..., Process]) -> None:
    store = new_run(tmp_path / "run", max_tokens=400)
    sampler = launch(store, "a")
    assert sampler.popen.wait(120) == SPEC
    assert "max_model_len" in sampler.log.read_text()


def test_two_samplers_share_stop_and_take_over(tmp_path: Path, launch: Callable[..., Process]) -> None:
    store = new_run(tmp_path / "run", max_tokens=150, max_concurrent_sequences=8)
    samplers = {name: launch(store, name) for name in ("a", "b")}
    until(lambda: all(ready(store, name) for name in samplers), *samplers.values())
    time.sleep(2.5)  # both have seen the other's heart beat
    plan = a_plan(8)
    create_plan(store, plan)
    until(lambda: committed(store, plan), *samplers.values())
    shares = committers(store, plan)
    assert sum(shares.values()) == 8
    assert min(shares["a"], shares["b"]) >= 1

    long = a_plan(6, iteration=1, min_policy=0, samples=32, sampling=LONG)
    create_plan(store, long)
    until(lambda: statuses(store, long)["held"] >= 2, *samplers.values())
    code, _ = samplers["a"].stop(signal.SIGTERM, GRACE_SECONDS)
    assert code == RETRY
    claims = [read(store, key, Claim) for key in store.list("rollout/000001/claims")]
    assert {claim.state for claim in claims if claim.sampler == "a"} <= {"released"}

    until(lambda: any(c.sampler == "b" and c.state == "held" for c in _claims(store)), samplers["b"])
    held_by_b = {c.incarnation for c in _claims(store) if c.sampler == "b"}
    samplers["b"].stop(signal.SIGKILL, 10)
    again = launch(store, "b")
    until(lambda: committed(store, long), again)
    assert len(rows(store, long)) == 6 * 2 * 32
    assert read_record(store, "b").incarnation not in held_by_b
    code, _ = again.stop(signal.SIGTERM, GRACE_SECONDS)
    assert code == RETRY


def _claims(store: PosixStore) -> list[Claim]:
    return [read(store, key, Claim) for key in store.list("rollout/000001/claims")]


def test_deterministic_samplers_agree_to_the_bit(tmp_path: Path, launch: Callable[..., Process]) -> None:
    plan = a_plan(4)
    found = []
    # Their names have them start at different units, and the second has other work before.
    for name, before in (("a", 0), ("other", 3)):
        store = new_run(tmp_path / name / "run", deterministic=True)
        earlier = a_plan(before or 1, kind="eval", seed=7)
        if before:
            create_plan(store, earlier)
        create_plan(store, plan)
        sampler = launch(store, name)
        until(lambda: committed(store, plan), sampler)  # noqa: B023 - called at once
        found.append([(row.response_ids, row.logprobs, row.reward) for row in rows(store, plan)])
        finish(store)
        assert sampler.popen.wait(10) == OK
    assert found[0] == found[1]
