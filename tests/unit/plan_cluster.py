"""A cluster with one run, as small as planning sees it: API server, caches that lag, an operator that dies."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from plan_samples import NAME, NOW, SETTINGS, pod
from plan_samples import run as new_run

from empg_operator import names
from empg_operator.decision import Diagnosis, Observed, Plan
from empg_operator.plan import plan
from empg_operator.plan.status import OTHERS
from empg_operator.plan.times import stamp

Place = tuple[str, str]
Fault = Literal["none", "death", "lost answer"]
"""How a pass ends early: the operator dies and starts with fresh lists, or the answer to its last call gets lost."""

_ROUNDS = 5
_RUN = ("EMPGRun", NAME)


@dataclass
class Cluster:
    """The API server's objects, and the operator's memory and cache of them."""

    spec: Mapping[str, Any]
    now: float = NOW
    objects: dict[Place, Any] = field(default_factory=dict)
    cache: dict[Place, Any] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    absent: set[Place] = field(default_factory=set)
    """What was asked for by name in this pass, in vain."""
    version: int = 1
    due: float | None = NOW
    """When the operator wants to plan again."""
    numbers: list[int] = field(default_factory=list)
    """Attempts whose Jobs were made, in order."""
    events: list[str] = field(default_factory=list)
    writes: int = 0
    kept: list[Any] = field(default_factory=list)
    """Pods on nodes that do not answer."""
    waiting: list[Any] = field(default_factory=list)
    """What a look finds of sampler pods that are not ready."""
    trained: int = 0
    """Under `Alternate`: the newest attempt whose units a learner has trained on."""

    def __post_init__(self) -> None:
        self.objects[_RUN] = new_run(self.spec)
        self.cache = copy.deepcopy(self.objects)

    # The API server

    @property
    def run(self) -> Any:
        return self.objects[_RUN]

    @property
    def status(self) -> dict[str, Any]:
        return self.run.get("status", {})

    def touch(self, place: Place) -> None:
        """Give an object that changed a new version."""
        self.version += 1
        self.objects[place]["metadata"]["resourceVersion"] = str(self.version)

    def report(self, **fields: Any) -> None:
        """Learner or samplers write to the run's status."""
        self.run.setdefault("status", {}).update(fields)
        self.touch(_RUN)

    def jobs(self) -> list[Any]:
        found = [each for (kind, _), each in self.objects.items() if kind == "Job"]
        return sorted(found, key=number)

    def live(self) -> list[Any]:
        return [job for job in self.jobs() if not ended(job)]

    def deployment(self) -> Any | None:
        return self.objects.get(("Deployment", names.sampler_deployment(NAME)))

    # The operator

    def observe(self) -> Observed:
        found = copy.deepcopy(self.cache)
        return Observed(
            found.pop(_RUN), found, diagnosis=self.diagnosis, refusals=dict(self.refusals), absent=set(self.absent)
        )

    def deliver(self, *places: Place) -> None:
        """Let the operator's cache see some objects, or all of them, as they are."""
        for place in places or {*self.objects, *self.cache}:
            if place in self.objects and listed(self.objects[place]):
                self.cache[place] = copy.deepcopy(self.objects[place])
            else:
                self.cache.pop(place, None)

    def reconcile(self, steps: int | None = None, fault: Fault = "none") -> Plan:
        """One pass of the operator, which does `steps` of what it planned and then meets a fault."""
        done = self._plan()
        for count, effect in enumerate(self._effects(done)):
            if count == steps:
                break
            if not effect(lost := fault == "lost answer" and count + 1 == steps) or lost:
                break
        else:
            self.events += [event.reason for event in done.events]
            self.due = None if done.requeue_after is None else self.now + done.requeue_after
            return done
        if fault == "death":
            self.deliver()
            self.diagnosis, self.refusals = None, {}
        self.due = self.now
        return done

    def _plan(self) -> Plan:
        looked, self.absent = False, set()
        for _ in range(_ROUNDS):
            done = plan(self.observe(), SETTINGS, self.now)
            if done.find:
                self.cache |= {
                    place: copy.deepcopy(self.objects[place]) for place in done.find if place in self.objects
                }
                self.absent |= {place for place in done.find if place not in self.objects}
            elif done.try_pods:
                self.refusals |= dict.fromkeys(done.try_pods, "")
            elif done.diagnose and not looked:
                looked, self.diagnosis = True, Diagnosis(self.now, tuple(self._pods()))
            else:
                return done
        raise AssertionError(f"{_ROUNDS} plans in a row asked for something new")

    def _effects(self, done: Plan) -> Iterator[Any]:
        """Calls of the API server; each says whether the pass goes on, and takes whether its answer gets lost."""
        for manifest in done.apply:
            yield lambda lost, manifest=manifest: self._apply(manifest, lost)
        for manifest in done.create:
            yield lambda lost, manifest=manifest: self._create(manifest, lost)
        for reference in done.delete:
            yield lambda lost, reference=reference: self._delete(reference, lost)
        if done.status is not None:
            yield lambda lost: self._write_status(done.status, lost)

    def _apply(self, manifest: Any, lost: bool) -> bool:
        place = manifest["kind"], manifest["metadata"]["name"]
        present = self.objects.get(place, {"metadata": {"generation": 0}})
        if present["metadata"].get("uid") != manifest["metadata"].get("uid", present["metadata"].get("uid")):
            return False
        about = {"uid": f"uid-{self.version}", **present["metadata"], **manifest["metadata"]}
        kept = {"status": present["status"]} if "status" in present else {}
        changed = "spec" in manifest and present.get("spec") != manifest["spec"]
        self.objects[place] = copy.deepcopy({**present, **manifest, **kept, "metadata": about})
        self.objects[place]["metadata"]["generation"] = about.get("generation", 0) + changed
        return self._wrote(place, lost)

    def _create(self, manifest: Any, lost: bool) -> bool:
        place = manifest["kind"], manifest["metadata"]["name"]
        if place not in self.objects:
            self.objects[place] = copy.deepcopy(dict(manifest))
            self.objects[place]["metadata"] = {**manifest["metadata"], "uid": f"uid-{self.version}"}
            if place[0] == "Job":
                self.numbers.append(number(manifest))
        return self._wrote(place, lost)

    def _delete(self, reference: Any, lost: bool) -> bool:
        place = reference.kind, reference.name
        present = self.objects.get(place)
        if present is not None and reference.uid in (None, present["metadata"].get("uid")):
            del self.objects[place]
        self.writes += 1
        if not lost and place not in self.objects:
            self.cache.pop(place, None)
        return True

    def _write_status(self, status: Any, lost: bool) -> bool:
        if self.cache[_RUN]["metadata"]["resourceVersion"] != self.run["metadata"]["resourceVersion"]:
            self.deliver(_RUN)
            return False
        theirs = {key: value for key, value in self.status.items() if key in OTHERS}
        self.run["status"] = copy.deepcopy(dict(status)) | theirs
        return self._wrote(_RUN, lost)

    def _wrote(self, place: Place, lost: bool) -> bool:
        self.writes += 1
        self.touch(place)
        if not lost:
            self.cache[place] = copy.deepcopy(self.objects[place])
        return True

    def _pods(self) -> Iterator[Any]:
        yield from self.kept
        for job in self.live():
            for index in range(job.get("status", {}).get("ready", 0)):
                yield pod(f"{job['metadata']['name']}-{index}", "learner")
        for index in range((self.deployment() or {}).get("status", {}).get("readyReplicas", 0)):
            yield pod(f"{NAME}-sampler-{index}", "sampler")
        if (self.deployment() or {}).get("spec", {}).get("replicas"):
            yield from self.waiting

    # Controllers and kubelets

    def start_pods(self) -> None:
        """Every pod that may run does."""
        for job in self.live():
            if not job["spec"].get("suspend") and not job.get("status", {}).get("terminating"):
                self.become(job, {"ready": job["spec"]["parallelism"]})
        self.roll_out(ready=True)

    def become(self, manifest: Any, status: dict[str, Any]) -> None:
        """An object gets a status."""
        if manifest.get("status") != status:
            manifest["status"] = status
            self.touch(place_of(manifest))

    def roll_out(self, *, ready: bool) -> None:
        """The Deployment has the pods that it asks for."""
        child = self.deployment()
        if child is None:
            return
        wanted = child["spec"]["replicas"]
        running = wanted if ready else min(wanted, child.get("status", {}).get("readyReplicas", 0))
        counts = {"replicas": wanted, "updatedReplicas": wanted, "readyReplicas": running}
        self.become(child, {"observedGeneration": child["metadata"]["generation"], **counts})

    def end(self, job: Any, *, rule: int | None = None, complete: bool = False) -> None:
        """The Job of an attempt ends: completely, by a rule of its policy, or by a crash."""
        reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        if rule is not None:
            reason, message = "PodFailurePolicy", f"Pod x failed matching FailJob rule at index {rule}"
        kind = "Complete" if complete else "Failed"
        self.become(job, {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]})

    def lose_node(self, job: Any, *, survivors: int = 0) -> None:
        """A node with a pod of an attempt loses its power, and some time after nobody tells that the pod has ended: it
        is given up, or those that survive end the gang with exit code 75."""
        name, attempt = job["metadata"]["name"], str(number(job))
        labels = {**names.labels(NAME, "learner"), names.ATTEMPT_LABEL: attempt}
        stops = stamp(self.now + job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
        lost = pod(f"{name}-0", "learner", labels=labels, deletionTimestamp=stops)
        lost["spec"]["nodeName"] = "node-7"
        target = {"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy"}
        told = {"message": "Pod x failed matching FailJob rule at index 3", "lastTransitionTime": stamp(self.now)}
        if survivors == 0:
            given_up = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
            lost["status"]["conditions"] = [given_up | {"message": "Taint manager: deleting due to NoExecute taint"}]
        self.kept.append(lost)
        self.become(job, {"ready": 0, "terminating": 1, "conditions": [target | told] if survivors else []})

    def refuse(self, job: Any) -> None:
        """A node refuses a pod of an attempt, as after a reboot: no container of it has ended."""
        labels = {**names.labels(NAME, "learner"), names.ATTEMPT_LABEL: str(number(job))}
        refused = pod(f"{job['metadata']['name']}-0", "learner", phase="Failed", labels=labels)
        refused["status"] |= {"reason": "UnexpectedAdmissionError", "message": "Allocate failed"}
        self.kept.append(refused)
        self.now += 1.0  # looks were taken before
        self.end(job)

    # Users

    def edit(self, **fields: Any) -> None:
        """Change fields of the spec, `section__field` for one of a section."""
        for name, value in fields.items():
            *sections, key = name.split("__")
            part = self.run["spec"]
            for section in sections:
                part = part.setdefault(section, {})
            part[key] = value
        self.run["metadata"]["generation"] += 1
        self.touch(_RUN)

    def remove(self, place: Place) -> None:
        """Pods go with their Job, unless a node is to tell so first."""
        self.objects.pop(place, None)
        gone = f"{place[1]}-"
        self.kept = [
            each
            for each in self.kept
            if each["status"]["phase"] != "Failed" or not each["metadata"]["name"].startswith(gone)
        ]

    # The learner

    def learn(self) -> None:
        """The learner that runs does the next thing and reports it."""
        running = [job for job in self.live() if job.get("status", {}).get("ready") == job["spec"]["parallelism"]]
        if not running:
            return
        job, before = running[-1], self.status.get("progress")
        wanted = self.run["spec"]["em"]["iterations"]
        iteration = before["iteration"] if before else 0
        policy = before["policyVersion"] if before else 0
        if before is None or before["attempt"] < number(job):
            phase = "sampling" if iteration < wanted else "done"
        elif before["phase"] == "sampling":
            phase = "learning"
        elif before["phase"] == "learning":
            iteration, policy = iteration + 1, policy + 1
            phase = "sampling" if iteration < wanted else "done"
        else:
            self.end(job, complete=True)
            return
        samplers = (self.deployment() or {}).get("status", {}).get("readyReplicas", 0)
        versions = [{"policy": policy, "samplers": samplers}] if samplers else []
        self.report(
            progress={
                "attempt": number(job),
                "iteration": iteration,
                "iterations": wanted,
                "phase": phase,
                "policyVersion": policy,
                "samplerVersions": versions,
                "updated": stamp(self.now),
            }
        )

    def alternate(self) -> None:
        """The same where samplers and learner take turns: a learner trains on what is there, plans, and leaves."""
        child, sampled = self.deployment() or {}, self.status.get("sampled", 0)
        pods = child.get("status", {})
        if not self.live():
            if pods.get("readyReplicas"):
                container = child["spec"]["template"]["spec"]["containers"][0]
                attempt = next(each["value"] for each in container["env"] if each["name"] == "EMPG_ATTEMPT")
                self.report(sampled=int(attempt))
            return
        job = self.live()[-1]
        if job.get("status", {}).get("ready") != job["spec"]["parallelism"]:
            return
        assert not pods.get("replicas"), "samplers hold the learner's GPUs"
        before = self.status.get("progress", {}).get("iteration", 0)
        iteration, wanted = before + (sampled > self.trained), self.run["spec"]["em"]["iterations"]
        self.trained = sampled
        done = iteration >= wanted
        report = {"attempt": number(job), "iteration": iteration, "iterations": wanted, "policyVersion": iteration}
        self.report(progress=report | {"phase": "done" if done else "sampling", "updated": stamp(self.now)})
        self.end(job, complete=done, rule=None if done else 4)


def number(job: Any) -> int:
    return int(job["metadata"]["name"].rsplit("-", 1)[1])


def place_of(manifest: Any) -> Place:
    return manifest["kind"], manifest["metadata"]["name"]


def listed(manifest: Any) -> bool:
    """Whether lists and watches show it, which go by its labels."""
    return manifest["kind"] == "EMPGRun" or names.RUN_LABEL in manifest["metadata"].get("labels", {})


def ended(job: Any) -> bool:
    said = job.get("status", {}).get("conditions", ())
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in said)
