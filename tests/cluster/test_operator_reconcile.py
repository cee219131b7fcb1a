"""One pass at a time against a real API server, with plans that the tests make up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import operator_bench
import pytest
from operator_bench import Bench, child, pod
from run_documents import run
from run_view import RunView
from waiting import eventually

from empg_operator import names
from empg_operator.cache import RunKey
from empg_operator.decision import Event, Observed, Plan, Reference
from empg_operator.queue import TryLaterError
from empg_operator.reconcile import DIAGNOSIS_SECONDS, REFUSAL_SECONDS, SETTLE_SECONDS
from hack.controlplane.access import Access
from hack.rest import Rest


@pytest.fixture
def demo(empgruns: Access, namespace: str) -> RunView:
    return RunView(Rest(empgruns.kubeconfig, "test"), namespace, run("demo"))


@pytest.fixture
def on_bench(empgruns: Access, namespace: str, demo: RunView) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    """Does something with a bench for the run `demo`."""
    return partial(operator_bench.on_bench, empgruns.kubeconfig, RunKey(namespace, "demo"))


def test_what_the_api_server_spells_in_another_way_is_applied_once(on_bench: Any) -> None:
    """A planner that compares texts would apply this Deployment for ever."""

    def plan(observed: Observed) -> Plan:
        labels = names.selector("demo", "sampler")
        limits = {"cpu": "1000m", "memory": "1024Mi"}
        container = {"name": "it", "image": "example/it", "resources": {"limits": limits}}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        return Plan(apply=(child(observed, "Deployment", "demo-sampler", spec=spec),))

    async def work(bench: Bench) -> None:
        reconcile = bench.reconciler(plan)
        assert await reconcile(bench.key) == SETTLE_SECONDS
        await asyncio.sleep(1)  # its controller writes a status and an annotation
        await bench.observe()
        await reconcile(bench.key)
        await bench.observe()
        applied = bench.requests("apply")
        for _ in range(3):
            assert await reconcile(bench.key) is None
        assert bench.requests("apply") == applied <= 2

    on_bench(work)


def test_our_writes_are_in_the_cache_before_any_event(on_bench: Any) -> None:
    seen: list[set[tuple[str, str]]] = []

    def plan(observed: Observed) -> Plan:
        seen.append(set(observed.children))
        if ("ConfigMap", "demo-run") in observed.children:
            return Plan(delete=(Reference("ConfigMap", "demo-run"),))
        return Plan(apply=(child(observed, "ConfigMap", "demo-run", data={"a": "b"}),) if len(seen) == 1 else ())

    async def work(bench: Bench) -> None:
        reconcile = bench.reconciler(plan)
        for _ in range(3):
            await reconcile(bench.key)
        assert seen == [set(), {("ConfigMap", "demo-run")}, set()]
        assert bench.requests("delete") == 1

    on_bench(work)


def test_a_status_is_written_when_it_differs_and_leaves_that_of_others(on_bench: Any, demo: RunView) -> None:
    plans = [Plan(status={"phase": "Pending", "attempt": 1, "nextAttemptTime": None})] * 3
    plans.append(Plan(status={"phase": "Starting"}))

    async def work(bench: Bench) -> None:
        reconcile = bench.reconciler(lambda observed: plans.pop(0))
        for _ in range(2):
            await reconcile(bench.key)
        assert bench.requests("apply_status") == 1
        demo.report(iteration=2)
        await bench.observe()
        await reconcile(bench.key)
        assert bench.requests("apply_status") == 1, "the learner's report is no difference"
        await reconcile(bench.key)
        status = demo.status()
        assert status["phase"] == "Starting"
        assert status["progress"]["iteration"] == 2
        assert "attempt" not in status, "what is no longer said is gone"

    on_bench(work)


def test_runs_that_start_from_this_one_learn_of_its_status(on_bench: Any, demo: RunView) -> None:
    async def work(bench: Bench) -> None:
        RunView(demo.rest, bench.key.namespace, run("fork", {"model": {"fromRun": {"name": "demo"}}}))
        await bench.observe()
        reconcile = bench.reconciler(lambda observed: Plan(status={"phase": "Complete"}))
        for _ in range(2):
            await reconcile(bench.key)
        assert bench.woken == [RunKey(bench.key.namespace, "fork")]

    on_bench(work)


def test_a_status_of_another_run_of_the_name_is_not_written(on_bench: Any, demo: RunView) -> None:
    told: list[str] = []

    async def work(bench: Bench) -> None:
        reconcile = bench.reconciler(
            lambda observed: Plan(status={"phase": "Failed"}, events=(Event("Warning", "Failed", "x"),))
        )
        demo.delete()
        again = RunView(demo.rest, bench.key.namespace, run("demo"))
        with pytest.raises(TryLaterError, match="409 Conflict") as caught:
            await reconcile(bench.key)
        assert caught.value.result == "conflict"
        assert again.status() == {}
        told.extend(again.events())

    on_bench(work)
    assert told == [], "events follow a status that was written"


def test_a_status_that_is_refused_is_no_matter_of_rights(on_bench: Any) -> None:
    async def work(bench: Bench) -> None:
        with pytest.raises(TryLaterError, match="Unsupported value") as caught:
            await bench.reconciler(lambda observed: Plan(status={"phase": "Dreaming"}))(bench.key)
        assert caught.value.result == "refused"

    on_bench(work)


def test_a_pod_that_is_refused_is_planned_with_and_tried_again_later(on_bench: Any, empgruns: Access) -> None:
    seen: list[dict[str, str]] = []

    def plan(observed: Observed) -> Plan:
        seen.append(dict(observed.refusals))
        if set(observed.refusals) < {"bad", "good"}:
            good = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
            restricted = {**good, "seccompProfile": {"type": "RuntimeDefault"}}
            return Plan(try_pods={"bad": pod(observed), "good": pod(observed, securityContext=restricted)})
        return Plan()

    async def work(bench: Bench) -> None:
        label = "pod-security.kubernetes.io/enforce=restricted"
        empgruns.kubectl("label", "namespace", bench.key.namespace, label)
        reconcile = bench.reconciler(plan)
        await reconcile(bench.key)
        assert seen[0] == {}
        assert 'violates PodSecurity "restricted' in seen[1]["bad"]
        assert seen[1]["good"] == ""
        await reconcile(bench.key)
        assert bench.requests("dry_run") == 2, "answers are kept"
        bench.clock.now += REFUSAL_SECONDS + 1
        await reconcile(bench.key)
        assert set(seen[-2]) == {"good"}, "only refusals are forgotten, as they may have been lifted"
        assert empgruns.kubectl("get", "pods", "-n", bench.key.namespace, "-o", "name") == ""

    on_bench(work)


def test_a_look_takes_four_requests_at_most_and_shows_why_nothing_runs(on_bench: Any, empgruns: Access) -> None:
    looks: list[Observed] = []

    def plan(observed: Observed) -> Plan:
        looks.append(observed)
        return Plan(diagnose=observed.diagnosis is None)

    def refused() -> bool:
        events = json.loads(empgruns.kubectl("get", "events", "-n", namespace, "-o", "json"))["items"]
        return {event["reason"] for event in events} >= {"FailedCreate"} and len(events) > 1

    async def work(bench: Bench) -> None:
        nonlocal namespace
        namespace = bench.key.namespace
        empgruns.kubectl("create", "quota", "none", "--hard=pods=0", "-n", namespace)
        labels = {role: names.labels("demo", role) for role in ("learner", "sampler")}  # type: ignore[arg-type]
        containers = {"containers": [{"name": "it", "image": "example/it"}]}
        observed = Observed(run=bench.cache.run(bench.key) or {})
        job = {
            "template": {"metadata": {"labels": labels["learner"]}, "spec": {**containers, "restartPolicy": "Never"}}
        }
        samplers = {"metadata": {"labels": labels["sampler"]}, "spec": containers}
        deployment = {"replicas": 1, "selector": {"matchLabels": labels["sampler"]}, "template": samplers}
        await bench.api.create(child(observed, "Job", "demo-learner-1", spec=job))
        await bench.api.create(child(observed, "Deployment", "demo-sampler", spec=deployment))
        await asyncio.to_thread(eventually, refused, "events about the quota")
        await bench.observe()
        before = bench.requests("list") + bench.requests("get")
        reconcile = bench.reconciler(plan)
        await reconcile(bench.key)
        assert 1 <= bench.requests("list") + bench.requests("get") - before <= 4
        diagnosis = looks[-1].diagnosis
        assert diagnosis is not None
        assert diagnosis.taken == bench.clock.now
        kinds = {event["involvedObject"]["kind"] for event in diagnosis.events if "exceeded quota" in event["message"]}
        assert kinds == {"Job", "ReplicaSet"}
        await reconcile(bench.key)
        assert len(looks) == 3, "the look is kept for the next pass"
        bench.clock.now += DIAGNOSIS_SECONDS + 1
        await reconcile(bench.key)
        assert len(looks) == 5

    namespace = ""
    on_bench(work)


def test_a_refused_apply_is_told_to_the_user_and_holds_nothing_else_up(on_bench: Any, demo: RunView) -> None:
    spec = {"replicas": -1, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": []}}}

    async def work(bench: Bench) -> None:
        reconcile = bench.reconciler(
            lambda observed: Plan(
                apply=(
                    child(observed, "Deployment", "demo-sampler", spec=spec),
                    child(observed, "ConfigMap", "demo-run", data={}),
                ),
                status={"phase": "Starting"},
                requeue_after=3.0,
            )
        )
        for _ in range(2):
            with pytest.raises(TryLaterError, match=r"Deployment demo-sampler: .*spec\.replicas") as caught:
                await reconcile(bench.key)
        assert (caught.value.result, caught.value.due) == ("refused", 3.0)

    on_bench(work)
    assert demo.events() == ["ApplyFailed"], "once, although it was tried twice"
    assert demo.child("ConfigMap", "demo-run")
    assert demo.status() == {"phase": "Starting"}


def test_a_refusal_of_what_is_no_longer_wanted_is_forgotten_without_any_event(on_bench: Any) -> None:
    spec = {"replicas": -1, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": []}}}

    async def work(bench: Bench) -> None:
        wanted, known = [True], []

        def plan(observed: Observed) -> Plan:
            known.append(set(observed.blocked))
            refused = child(observed, "Deployment", "demo-sampler", spec=spec)
            return Plan(apply=(refused,) if wanted else ())

        reconcile = bench.reconciler(plan)
        with pytest.raises(TryLaterError):
            await reconcile(bench.key)
        wanted.clear()
        assert await reconcile(bench.key) is None
        bench.clock.now += REFUSAL_SECONDS
        assert await reconcile(bench.key) == SETTLE_SECONDS
        assert await reconcile(bench.key) is None
        place = ("Deployment", "demo-sampler")
        assert known == [set(), {place}, {place}, set()]

    on_bench(work)


def test_objects_of_an_earlier_run_are_waited_for_and_not_taken_over(on_bench: Any, demo: RunView) -> None:
    def plan(observed: Observed) -> Plan:
        if ("ConfigMap", "demo-run") in observed.children:
            return Plan()
        spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "it", "image": "x"}]}}}
        return Plan(
            apply=(child(observed, "ConfigMap", "demo-run", data={}),),
            create=(child(observed, "Job", "demo-learner-1", spec=spec),),
        )

    async def work(bench: Bench) -> None:
        reconcile = bench.reconciler(plan)
        await reconcile(bench.key)
        demo.patch_child("ConfigMap", "demo-run", {"metadata": {"finalizers": ["example.com/wait"]}})
        demo.delete()
        again = RunView(demo.rest, bench.key.namespace, run("demo"))
        bench.cache.put(demo.document())
        with pytest.raises(TryLaterError, match="of an earlier run of this name is still there"):
            await reconcile(bench.key)
        demo.patch_child("ConfigMap", "demo-run", {"metadata": {"finalizers": []}})
        for kind, name in (("ConfigMap", "demo-run"), ("Job", "demo-learner-1")):
            await asyncio.to_thread(eventually, lambda place=(kind, name): not again.child(*place), "collected garbage")
        await reconcile(bench.key)
        uid = again.created["metadata"]["uid"]
        for kind, name in (("ConfigMap", "demo-run"), ("Job", "demo-learner-1")):
            made = again.child(kind, name)
            assert made
            assert [owner["uid"] for owner in made["metadata"]["ownerReferences"]] == [uid]
        assert again.events() == []

    on_bench(work)


def test_plans_that_never_know_enough_are_a_bug(on_bench: Any) -> None:
    asked = iter(range(100))

    async def work(bench: Bench) -> None:
        reconcile = bench.reconciler(lambda observed: Plan(try_pods={f"digest-{next(asked)}": pod(observed)}))
        with pytest.raises(AssertionError, match="plans in a row asked for something new"):
            await reconcile(bench.key)

    on_bench(work)


def test_the_same_event_is_told_once_in_a_while(on_bench: Any, demo: RunView) -> None:
    async def work(bench: Bench) -> None:
        reconcile = bench.reconciler(lambda observed: Plan(events=(Event("Normal", "Evicted", "attempt 1"),)))
        for _ in range(3):
            await reconcile(bench.key)
        assert demo.events() == ["Evicted"]
        bench.clock.now += 3600
        await reconcile(bench.key)
        assert demo.events() == ["Evicted", "Evicted"]

    on_bench(work)
