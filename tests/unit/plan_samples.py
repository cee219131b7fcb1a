"""Runs and what surrounds them, for the tests of planning."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from empg_operator import names
from empg_operator.decision import Blocked, Diagnosis, Manifest, Observed, Place, Plan
from empg_operator.plan import plan
from empg_operator.plan.situation import Situation, survey
from empg_operator.plan.times import stamp
from empg_operator.settings import Settings

NOW = 1_800_000_000.0
"""A whole second, so that stamps lose nothing."""
NAME = "demo"
SETTINGS = Settings()

SPEC: dict[str, Any] = {
    "model": {"name": "org/base"},
    "task": {"name": "arithmetic"},
    "em": {"iterations": 3},
    "sampler": {"replicas": 2},
}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One JSON object over another, key by key."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result


def run(spec: Mapping[str, Any] | None = None, status: Mapping[str, Any] | None = None, **metadata: Any) -> Any:
    """A run as the API server has it."""
    about = {"name": NAME, "namespace": "team", "uid": "uid-1", "generation": 1, "resourceVersion": "1", **metadata}
    document = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": about}
    return document | {"spec": copy.deepcopy(merged(SPEC, spec or {}))} | ({"status": dict(status)} if status else {})


def job(
    attempt: int,
    *,
    pods: int = 1,
    ready: int = 0,
    failed: str | None = None,
    rule: int | None = None,
    complete: bool = False,
    **spec: Any,
) -> Manifest:
    """The Job of an attempt; `failed`: the message of a crash, `rule`: the rule of its policy that ended it."""
    conditions = []
    if rule is not None:
        message = f"Container learner for pod team/x failed with exit code 1 matching FailJob rule at index {rule}"
        conditions = [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": message}]
    elif failed is not None:
        conditions = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": failed}]
    elif complete:
        conditions = [{"type": "Complete", "status": "True", "reason": "CompletionsReached"}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.learner_job(NAME, attempt),
            "uid": f"job-{attempt}",
            "labels": names.job_labels(NAME, attempt),
        },
        "spec": {"parallelism": pods, "completions": pods, **spec},
        "status": {"ready": ready, "conditions": conditions},
    }


def deployment(replicas: int, *, ready: int = 0, created: int | None = None, **status: Any) -> Manifest:
    """The samplers' Deployment as far as planning reads it; `created`: pods that exist."""
    counts = {"replicas": replicas if created is None else created, "readyReplicas": ready, "updatedReplicas": replicas}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": names.sampler_deployment(NAME), "uid": "deployment-1", "generation": 1},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": 1, **counts, **status},
    }


def observed(run: Manifest, *children: Manifest, **others: Any) -> Observed:
    return Observed(run=run, children={(each["kind"], each["metadata"]["name"]): each for each in children}, **others)


def situation(
    *children: Manifest,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    now: float = NOW,
    generation: int = 1,
    **others: Any,
) -> Situation:
    """What policies are asked with."""
    return survey(observed(run(spec, status, generation=generation), *children, **others), now)


def progress(attempt: int = 1, iteration: int = 0, phase: str = "sampling", **more: Any) -> dict[str, Any]:
    """What a learner reports."""
    report = {"attempt": attempt, "iteration": iteration, "iterations": 3, "phase": phase, "updated": stamp(NOW)}
    return report | more


def pod(name: str, role: names.Role, *, phase: str = "Running", age: float = 10_000.0, **metadata: Any) -> Manifest:
    """A pod that a look finds."""
    about = {
        "name": name,
        "uid": f"uid-{name}",
        "creationTimestamp": stamp(NOW - age),
        "labels": names.labels(NAME, role),
    }
    return {"metadata": about | metadata, "spec": {"containers": [{"name": role}]}, "status": {"phase": phase}}


def learner_pod(index: int = 0, *, attempt: int = 1, exit_code: int | None = None, **metadata: Any) -> Any:
    """A pod of an attempt that failed; its container ended, if there is an exit code."""
    labels = {**names.labels(NAME, "learner"), names.ATTEMPT_LABEL: str(attempt)}
    found = pod(f"demo-learner-{attempt}-{index}", "learner", phase="Failed", labels=labels, **metadata)
    if exit_code is not None:
        ended = {"terminated": {"exitCode": exit_code, "reason": "Error", "message": "boom"}}
        found["status"]["containerStatuses"] = [{"name": "learner", "state": ended}]  # type: ignore[index]
    return found


def refused_pod(reason: str = "UnexpectedAdmissionError", *args: Any, **more: Any) -> Any:
    """The same that its node refused."""
    found = learner_pod(*args, **more)
    found["spec"]["nodeName"] = "node-7"
    found["status"] |= {"reason": reason, "message": "Pod was rejected: Allocate failed"}
    return found


def diagnosis(*pods: Manifest, taken: float = NOW) -> Diagnosis:
    return Diagnosis(taken, pods)


def condition(kind: str, status: str, reason: str, *, since: float = NOW, generation: int = 1) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": stamp(since),
        "observedGeneration": generation,
    }


def plan_alone(seen: Observed) -> Plan:
    """The plan where nothing exists but what was observed."""
    while (done := plan(seen, SETTINGS, NOW)).find:
        seen = replace(seen, absent={*seen.absent, *done.find})
    return done


class Steps:
    """A run whose plans are done at once, in a cluster where everything else is done by the test."""

    def __init__(self, spec: Mapping[str, Any] | None = None) -> None:
        self.run = run(spec)
        self.children: dict[Place, Any] = {}
        self.hidden: dict[Place, Any] = {}
        """Children that only a request by name finds."""
        self.refusals: dict[str, str] = {}
        self.refuse: dict[str, str] = {}
        """By role: what the API server has against its pods."""
        self.pods: list[Manifest] = []
        """What a look finds."""
        self.diagnosis: Diagnosis | None = None
        self.parent: Manifest | None = None
        self.settings = SETTINGS
        self.pod_monitors = False
        self.blocked: dict[Place, Blocked] = {}
        self.now = NOW
        self.plans: list[Plan] = []
        """All that were made, those that asked something among them."""
        self.done: list[Plan] = []

    def look(self) -> Observed:
        return Observed(
            run=copy.deepcopy(self.run),
            children=copy.deepcopy(self.children),
            parent=self.parent,
            diagnosis=self.diagnosis,
            refusals=dict(self.refusals),
            blocked=dict(self.blocked),
            pod_monitors=self.pod_monitors,
        )

    def step(self) -> Plan:
        """Plan, answer what the plan asks and plan again, and do it."""
        absent: set[Place] = set()
        for _ in range(5):
            done = plan(replace(self.look(), absent=absent), self.settings, self.now)
            self.plans.append(done)
            if done.find:
                self.children |= {place: self.hidden.pop(place) for place in done.find if place in self.hidden}
                absent |= {place for place in done.find if place not in self.children}
            elif done.try_pods:
                for revision, tried in done.try_pods.items():
                    role = tried["metadata"]["labels"][names.ROLE_LABEL]
                    self.refusals[revision] = self.refuse.get(role, "")
            elif done.diagnose and (self.diagnosis is None or self.diagnosis.taken != self.now):
                self.diagnosis = Diagnosis(self.now, tuple(self.pods))
            else:
                self._do(done)
                return done
        raise AssertionError("five plans in a row asked for something")

    def settle(self) -> Plan:
        """Plan until there is nothing to do; the last plan."""
        for _ in range(10):
            done = self.step()
            if done == Plan(requeue_after=done.requeue_after):
                return done
        raise AssertionError(f"ten plans did not settle: {done}")

    def status(self) -> dict[str, Any]:
        return self.run["status"]

    def said(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        found = next(each for each in self.status()["conditions"] if each["type"] == kind)
        return found["status"], found["reason"]

    def events(self) -> list[str]:
        return [event.reason for done in self.done for event in done.events]

    def jobs(self) -> list[str]:
        return sorted(name for kind, name in self.children if kind == "Job")

    def job(self, attempt: int) -> Any:
        return self.children["Job", names.learner_job(NAME, attempt)]

    def replace_job(self, attempt: int, **state: Any) -> None:
        """Let a Job be in a state, as `job` describes it."""
        self.job(attempt)["status"] = job(attempt, **state)["status"]

    def samplers(self) -> int:
        return self.children["Deployment", names.sampler_deployment(NAME)]["spec"]["replicas"]

    def roll_out(self, ready: int | None = None) -> None:
        """Let the Deployment have the pods that it asks for, all of them ready but for a number that is given."""
        child = self.children["Deployment", names.sampler_deployment(NAME)]
        wanted = child["spec"]["replicas"]
        child["status"] = {
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": wanted if ready is None else ready,
        }

    def edit(self, spec: Mapping[str, Any]) -> None:
        self.run["spec"] = merged(self.run["spec"], spec)
        self.run["metadata"]["generation"] += 1

    def report(self, **fields: Any) -> None:
        """Let learner or samplers write to the status."""
        self.run["status"] |= fields

    def _do(self, done: Plan) -> None:
        self.done.append(done)
        for manifest in done.apply:
            place = manifest["kind"], manifest["metadata"]["name"]
            present = self.children.get(place, {"metadata": {"uid": f"uid-{place[1]}"}})
            kept = {"status": present["status"]} if "status" in present else {}
            about = {"uid": present["metadata"]["uid"], **manifest["metadata"]}
            self.children[place] = copy.deepcopy({**present, **manifest, **kept, "metadata": about})
        for manifest in done.create:
            name = manifest["metadata"]["name"]
            made = copy.deepcopy({**manifest, "metadata": {"uid": f"uid-{name}", **manifest["metadata"]}})
            self.children.setdefault((manifest["kind"], name), made)
        for reference in done.delete:
            self.children.pop((reference.kind, reference.name), None)
        if done.status is not None:
            theirs = {
                key: self.run["status"][key]
                for key in ("progress", "recent", "sampled")
                if key in self.run.get("status", {})
            }
            self.run["status"] = copy.deepcopy(dict(done.status)) | theirs
