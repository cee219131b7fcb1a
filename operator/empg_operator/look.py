"""A look at what is not watched: a run's pods, its claim, and the events that say why something does not go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from empg_operator import names
from empg_operator.api import CHUNK, Api
from empg_operator.cache import RunKey
from empg_operator.decision import Diagnosis, Manifest
from empg_operator.kinds import CLAIM, EVENT, POD
from empg_operator.plan.holding import samplers_run

_EVENT_LISTS = 2
_EVENT_CHUNKS = 20
"""Most chunks of the events of a namespace that are read for one run."""
_Children = Mapping[tuple[str, str], Manifest]


async def look(api: Api, key: RunKey, run: Manifest, children: _Children, now: float) -> Diagnosis:
    """Four requests as a rule: the pods, the claim, and the events of the likeliest culprits. Where a chunk does not
    hold all pods, one more for each further chunk that is read and for each laggard in none of them; and one for each
    further chunk of the events of others. `now` goes into it."""
    pods = [pod for pod in await _pods(api, key, now) if not _of_another_job(pod, children)]
    if len(pods) >= CHUNK:
        pods += await _laggards(api, key, run, {pod["metadata"]["name"] for pod in pods})
    claim = await api.get(CLAIM, key.namespace, _claim_name(key, run))
    events = []
    for fields, prefix in islice(_culprits(key, pods, claim, children), _EVENT_LISTS):
        events += await _events(api.chunks(EVENT, key.namespace, fields=fields), prefix)
    return Diagnosis(now, tuple(pods), (claim,) if claim else (), tuple(events))


async def _pods(api: Api, key: RunKey, now: float) -> list[Manifest]:
    """The run's pods by name, so those of the learner before samplers, up to the first chunk with a sampler that runs.

    A run is released, and its clocks run, because no sampler does: that must not follow from a list that was cut off.
    """
    found: list[Manifest] = []
    async for items, _ in api.chunks(POD, key.namespace, labels=f"{names.RUN_LABEL}={key.name}"):
        chunk = [_slim(pod) for pod in items]
        found += chunk
        if samplers_run(Diagnosis(now, tuple(chunk))):
            break
    return found


async def _laggards(api: Api, key: RunKey, run: Manifest, known: Collection[str]) -> list[Manifest]:
    """The pods that stay behind, as the learner says, and that are none of the known."""
    named = (run.get("status", {}).get("progress") or {}).get("laggards", ())
    found = [await api.get(POD, key.namespace, name) for name in named if name not in known]
    return [_slim(pod) for pod in found if pod and pod["metadata"].get("labels", {}).get(names.RUN_LABEL) == key.name]


def _culprits(
    key: RunKey, pods: Iterable[Manifest], claim: Manifest | None, children: _Children
) -> Iterator[tuple[str, str]]:
    """Field selectors of events worth reading, and how the names of the objects that they are about begin.

    Most causes are in the status of pods. Events alone tell why a volume is not made, why a controller may not create
    pods (quota, admission), and why a scheduled pod's volumes are not mounted.
    """
    if claim and claim.get("status", {}).get("phase") == "Pending":
        yield f"involvedObject.uid={claim['metadata']['uid']}", ""
    for (kind, _), child in children.items():
        if kind == "Job" and not _ended(child) and _made(pods, child) < child["spec"].get("parallelism", 1):
            yield f"involvedObject.uid={child['metadata']['uid']}", ""
        if kind == "Deployment" and child["spec"].get("replicas") and not any(map(_is_a_sampler, pods)):
            # The events are those of its ReplicaSet, whose name has a suffix that we do not know.
            yield "involvedObject.kind=ReplicaSet,type=Warning", f"{child['metadata']['name']}-"
    for pod in pods:
        if pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") == "Pending":
            yield f"involvedObject.uid={pod['metadata']['uid']}", ""


def _of_another_job(pod: Manifest, children: _Children) -> bool:
    """Whether a pod was left by an earlier run of the same name, whose attempts have the same numbers."""
    owners = pod["metadata"].get("ownerReferences") or ()
    jobs = {child["metadata"].get("uid") for (kind, _), child in children.items() if kind == "Job"}
    return any(owner["kind"] == "Job" and owner["uid"] not in jobs for owner in owners)


def _made(pods: Iterable[Manifest], job: Manifest) -> int:
    """Pods that a Job has, whatever became of them."""
    attempt = (job["metadata"].get("labels") or {}).get(names.ATTEMPT_LABEL)
    return sum(pod["metadata"].get("labels", {}).get(names.ATTEMPT_LABEL) == attempt for pod in pods if attempt)


def _is_a_sampler(pod: Manifest) -> bool:
    """Whether a pod is a sampler that has not ended and is not about to."""
    about, over = pod["metadata"], pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
    return about.get("labels", {}).get(names.ROLE_LABEL) == "sampler" and not over and "deletionTimestamp" not in about


def _ended(job: Manifest) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(said["type"] in ("Complete", "Failed") and said["status"] == "True" for said in conditions)


def _claim_name(key: RunKey, run: Manifest) -> str:
    used = run.get("status", {}).get("storage") or {}
    return used.get("claimName") or run["spec"].get("storage", {}).get("claimName") or names.claim(key.name)


def _slim(pod: Manifest) -> Manifest:
    """A pod without what takes most room and explains nothing; a thousand runs may be looked at in a minute."""
    containers = ("initContainers", "containers")
    spec: dict[str, Any] = {
        part: [{"name": one["name"], "image": one.get("image")} for one in pod["spec"].get(part, [])]
        for part in containers
    }
    about = {name: value for name, value in pod["metadata"].items() if name != "managedFields"}
    return {**pod, "metadata": about, "spec": spec | {"nodeName": pod["spec"].get("nodeName")}}


async def _events(chunks: AsyncIterator[tuple[list[Manifest], int]], prefix: str) -> list[Manifest]:
    """The first chunk of a list with events about what we look for: more of them do not make a cause clearer.

    With a prefix, only those about objects whose names add one word to it; those of other runs may fill many chunks.
    """
    read = 0
    async for items, _ in chunks:
        found = [event for event in items if _is_about(event, prefix)]
        read += 1
        if found or not prefix or read == _EVENT_CHUNKS:
            return found
    return []


def _is_about(event: Manifest, prefix: str) -> bool:
    name = event["involvedObject"].get("name", "")
    return not prefix or (name.startswith(prefix) and "-" not in name[len(prefix) :])
