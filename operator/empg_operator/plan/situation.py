"""A run and its surroundings, read once; what every policy decides from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from empg.api.load import parse_run
from empg.api.run import EMPGRun, RunSpec
from empg.api.status import Progress, RunStatus
from empg_operator import names
from empg_operator.decision import Blocked, Diagnosis, Manifest, Observed
from empg_operator.plan.jobs import LearnerJob, read_job
from empg_operator.plan.reading import read_status


@dataclass(frozen=True)
class SamplerPods:
    """What the Deployment says of the samplers."""

    exist: bool = False
    """There is a Deployment."""
    wanted: int = 0
    replicas: int = 0
    ready: int = 0
    seen: bool = True
    """The counts are those of the Deployment as it is now."""
    updated: int = 0
    """Pods of the newest template."""

    @property
    def gone(self) -> bool:
        return self.seen and self.wanted == self.replicas == 0

    @property
    def rolled(self) -> bool:
        """Every pod is of the newest template."""
        return self.seen and self.updated >= self.wanted and self.replicas <= self.wanted


@dataclass(frozen=True)
class Situation:
    """Everything that planning may look at."""

    run: EMPGRun
    generation: int
    status: RunStatus
    """As it was written last."""
    jobs: tuple[LearnerJob, ...]
    """By attempt, oldest first."""
    samplers: SamplerPods
    observed: Observed
    now: float
    """Seconds since the epoch."""

    @property
    def spec(self) -> RunSpec:
        return self.run.spec

    @property
    def name(self) -> str:
        return self.run.metadata.name

    @property
    def uid(self) -> str:
        return self.run.metadata.uid or ""

    @property
    def alternate(self) -> bool:
        return self.spec.sampler.roll_strategy == "Alternate"

    @property
    def attempt(self) -> int:
        """Number of the newest attempt that was started, whether or not its start was written down."""
        return max([self.status.attempt, *(job.attempt for job in self.jobs)])

    @property
    def next_attempt(self) -> int:
        """A number that no attempt has had; a learner may have reported one whose Job nobody else saw."""
        reported = self.status.progress.attempt if self.status.progress else 0
        return max(self.attempt, reported) + 1

    @property
    def job(self) -> LearnerJob | None:
        """The Job of the newest attempt."""
        return next((job for job in self.jobs if job.attempt == self.attempt), None)

    @property
    def live(self) -> LearnerJob | None:
        """The newest Job that goes on."""
        return next((job for job in reversed(self.jobs) if job.live), None)

    @property
    def queued(self) -> bool:
        return self.live is not None and self.live.suspended

    @property
    def progress(self) -> Progress | None:
        """What the newest attempt has reported."""
        progress = self.status.progress
        return progress if progress is not None and progress.attempt == self.attempt else None

    @property
    def learns(self) -> bool:
        """The learner needs no sampler at present."""
        return self.progress is not None and self.progress.phase in ("learning", "publishing", "done")

    @property
    def moved(self) -> bool:
        """Iterations were finished since the newest attempt was started."""
        progress = self.status.progress
        return progress is not None and progress.iteration > self.status.attempt_iteration

    def blocked(self, kind: str, name: str) -> Blocked | None:
        """Why an object can't be created at present."""
        found = self.observed.blocked.get((kind, name))
        return found if found is not None and self.now < found.until else None

    def held_back(self, manifest: Manifest) -> bool:
        """Whether just this was refused a moment ago, when it was to be applied."""
        found = self.blocked(manifest["kind"], manifest["metadata"]["name"])
        return found is not None and found.manifest == manifest

    def look(self, seconds: float) -> Diagnosis | None:
        """The last diagnosis, unless it is older."""
        taken = self.observed.diagnosis
        return taken if taken is not None and self.now - taken.taken <= seconds else None


def survey(observed: Observed, now: float) -> Situation:
    """Read what was observed.

    Raises:
        InvalidManifest: the API server lets in a spec that the model refuses.
    """
    run = _accept(observed.run)
    name = run.metadata.name
    jobs = [
        read_job(attempt, manifest, observed.diagnosis, now)
        for (kind, child), manifest in observed.children.items()
        if kind == "Job" and (attempt := _attempt(name, child)) is not None
    ]
    return Situation(
        run=run,
        generation=generation(observed.run),
        status=read_status(observed.run.get("status") or {}),
        jobs=tuple(sorted(jobs, key=lambda job: job.attempt)),
        samplers=_samplers(observed.children.get(("Deployment", names.sampler_deployment(name)))),
        observed=observed,
        now=now,
    )


def generation(run: Manifest) -> int:
    return int(run["metadata"].get("generation", 0))


def _accept(run: Manifest) -> EMPGRun:
    metadata = run["metadata"]
    document = {
        "apiVersion": run["apiVersion"],
        "kind": run["kind"],
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata},
        "spec": run.get("spec"),
    }
    return parse_run(json.dumps(document).encode(), f"EMPGRun {metadata['name']}")


def _attempt(run: str, job: str) -> int | None:
    numbered = re.fullmatch(re.escape(names.learner_job(run, 0)).removesuffix("0") + r"([1-9]\d*)", job)
    return int(numbered[1]) if numbered else None


def _samplers(deployment: Manifest | None) -> SamplerPods:
    if deployment is None:
        return SamplerPods()
    status = deployment.get("status") or {}
    return SamplerPods(
        exist=True,
        wanted=deployment["spec"].get("replicas", 1),
        replicas=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        seen=status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0),
        updated=status.get("updatedReplicas", 0),
    )
