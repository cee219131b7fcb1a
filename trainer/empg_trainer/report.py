"""`status.progress` and `status.recent` of the run in the Kubernetes API, from what rank 0 knows."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Mapping

from empg.api.status import Iteration, PolicyCount, Progress
from empg.cluster.reporter import StatusReporter
from empg.rundir.heartbeat import SamplerRecord
from empg.rundir.progress import Progress as LearnerProgress
from empg_trainer.record import Figures

FIELD_MANAGER = "empg-learner"
LAGGARDS = 4
"""Samplers that are named, at most; the status must stay small."""
VERSIONS = 8
"""Versions that are counted, at most: the newest ones; who holds an older one is counted with the last of them."""
RECENT = 5
"""Iterations that are told of."""


class Report:
    """Gives a reporter what is worth to be known, with the time at which it last changed."""

    def __init__(self, reporter: StatusReporter, attempt: int) -> None:
        self._reporter = reporter
        self._attempt = attempt
        self._progress: Progress | None = None

    def offer(
        self,
        learner: LearnerProgress,
        history: Mapping[int, Figures],
        evaluations: Mapping[int, float | None],
        samplers: Iterable[SamplerRecord],
    ) -> None:
        """Report where the learner is. `evaluations`: greedy accuracy by policy. `samplers`: those that beat."""
        updated = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        progress = progress_of(self._attempt, learner, history, evaluations, samplers, updated)
        last = self._progress
        if last is not None and last == progress.model_copy(update={"updated": last.updated}):
            progress = last
        self._progress = progress
        turn = "learning" if progress.phase == "publishing" else progress.phase
        self._reporter.offer(
            {
                "progress": progress.model_dump(mode="json", by_alias=True, exclude_none=True),
                "recent": [
                    row.model_dump(mode="json", by_alias=True, exclude_none=True)
                    for row in recent(history, evaluations)
                ],
            },
            # That the last sampler has the newest policy is news too: the operator deletes pods that stay behind.
            news=(progress.iteration, turn, bool(progress.laggards)),
        )


def progress_of(
    attempt: int,
    learner: LearnerProgress,
    history: Mapping[int, Figures],
    evaluations: Mapping[int, float | None],
    samplers: Iterable[SamplerRecord],
    updated: str,
) -> Progress:
    """What `status.progress` is to say."""
    newest = history[max(history)] if history else {}
    known = [policy for policy, accuracy in evaluations.items() if accuracy is not None]
    versions, laggards = holders(samplers, learner.policy)
    return Progress(
        attempt=attempt,
        iteration=learner.iteration,
        iterations=learner.iterations,
        phase=learner.phase,
        policy_version=learner.policy,
        units_done=learner.units_done,
        units_total=learner.units_total,
        reward=_number(newest, "reward_mean"),
        accuracy=_number(newest, "accuracy"),
        evaluation=evaluations[max(known)] if known else None,
        kl=_number(newest, "kl_behaviour"),
        tokens_per_second=_number(newest, "tokens_per_second"),
        staleness=_number(newest, "staleness_mean"),
        sampler_versions=versions,
        laggards=laggards,
        updated=updated,
    )


def holders(samplers: Iterable[SamplerRecord], newest: int | None) -> tuple[tuple[PolicyCount, ...], tuple[str, ...]]:
    """How many samplers hold each version, newest first, and who holds another than the newest one, the oldest first.

    A sampler that still loads its first policy is in neither: it is starting, not staying behind.
    """
    held = {sampler.id: sampler.policy for sampler in samplers if sampler.policy is not None}
    oldest = min(sorted(set(held.values()), reverse=True)[:VERSIONS], default=0)
    counts = sorted(Counter(max(policy, oldest) for policy in held.values()).items(), reverse=True)
    behind = sorted((policy, sampler) for sampler, policy in held.items() if policy != newest)
    laggards = tuple(sampler for _, sampler in behind[:LAGGARDS])
    return tuple(PolicyCount(policy=policy, samplers=count) for policy, count in counts), laggards


def recent(history: Mapping[int, Figures], evaluations: Mapping[int, float | None]) -> list[Iteration]:
    """The newest iterations, oldest first; each with the evaluation of the policy that sampled for it."""
    return [
        Iteration(
            iteration=iteration,
            reward=_number(history[iteration], "reward_mean"),
            accuracy=_number(history[iteration], "accuracy"),
            evaluation=evaluations.get(iteration),
            kl=_number(history[iteration], "kl_behaviour"),
            entropy=_number(history[iteration], "entropy"),
            seconds=_number(history[iteration], "seconds_total"),
        )
        for iteration in sorted(history)[-RECENT:]
    ]


def _number(figures: Figures, key: str) -> float | None:
    """A figure as JSON has it: three more digits than anybody reads, and neither NaN nor infinity."""
    value = figures.get(key)
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
