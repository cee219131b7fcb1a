"""Rank 0's part of the learner: it reads the manifest, plans, waits for samplers, seals, records and cleans up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from empg.api.load import InvalidManifest, load_run
from empg.api.run import RunSpec
from empg.planner import plan_rollout, trainable
from empg.rundir.final import Final, write_final
from empg.rundir.group import newest_policy
from empg.rundir.heartbeat import Liveness, SamplerRecord, read_records
from empg.rundir.identity import Identity
from empg.rundir.metrics import read_metrics, write_metrics
from empg.rundir.owner import LearnerOwner
from empg.rundir.plans import create_plan, planned, read_plans
from empg.rundir.probe import lease_warning, ping
from empg.rundir.progress import Phase, Progress, write_progress
from empg.rundir.retention import retain
from empg.rundir.specs import immutable_edit, read_spec, write_spec
from empg.tasks.source import Task
from empg.trajectory import Trajectory
from empg_trainer.evaluations import Evaluations
from empg_trainer.event_files import EventFiles
from empg_trainer.metrics_server import LearnerMetrics
from empg_trainer.record import Figures, check_guards, sampled_figures, trained_figures
from empg_trainer.report import Report
from empg_trainer.rollouts import (
    POLL_SECONDS,
    Rollout,
    UnitWatch,
    sealed_rollout,
    training_rows,
    wait_for_units,
    wait_unless_open,
)
from empg_trainer.start import Start
from empg_trainer.step import Sampled, StepResult
from empg_trainer.stop import BadSpec, Stop

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
"""Time between two reports of progress while waiting."""

REFERENCE_POLICY = 0
"""Kept for good: the objective may start to need it by a live edit."""


class Leader:
    """Everything that only one process may do."""

    def __init__(self, start: Start, owner: LearnerOwner, identity: Identity, task: Task) -> None:
        self.owner = owner
        self._start = start
        self._store = store = start.store
        self._identity = identity
        self._spec = start.run.spec
        self._task = task
        self._liveness = Liveness(self._spec.sampler.lease_seconds)
        self._evaluations = Evaluations(store, identity.uid, task, self._liveness)
        self._history: dict[int, Figures] = {row["iteration"]: row for row in read_metrics(store)}
        self._rollout: Rollout | None = None
        self._figures: Figures = {}
        self._ticked = 0.0
        self._visibility_known = False
        self._report = Report(start.reporter, start.attempt or owner.number) if start.reporter else None
        self._metrics = LearnerMetrics()
        self._event_files = EventFiles(store)
        if start.metrics_port:
            self._metrics.serve(start.metrics_port)

    def begin(self, iteration: int, beat: Callable[[], None]) -> RunSpec:
        """Fix the spec of an iteration from the manifest as it is now, and plan what samplers may work on.

        At the end of the run, when there is no such iteration, nothing is fixed, so that more can be asked for later.
        Raises Waiting if samplers have to work first and can't while we are there.
        """
        wanted = spec = self._read_manifest()
        last = iteration >= spec.em.iterations
        if not last:
            spec = write_spec(self._store, iteration, self._trainable(wanted, iteration))
        self._spec = spec
        self._liveness.lease_seconds = spec.sampler.lease_seconds
        self._evaluations.plan(spec, policy=iteration, last=last)
        known = planned(self._store, "rollout", since=iteration)
        for ahead in range(iteration, min(iteration + spec.em.max_staleness + 1, spec.em.iterations)):
            if ahead not in known:
                before = read_plans(self._store, "rollout", ahead - 1)[-1] if ahead else None
                planned_by = spec if ahead == iteration else wanted  # `spec` may be of before an edit and a restart
                create_plan(self._store, plan_rollout(planned_by, self._identity.uid, ahead, self._task, before))
        if self._start.alternate:
            self._leave_to_samplers(iteration, last, beat)
        return spec

    def sample(self, iteration: int, beat: Callable[[], None]) -> tuple[list[Trajectory], Sampled]:
        """Wait for the E-step of an iteration and seal it; the answers to train on, without their texts.

        `beat` is called often while waiting.
        """
        started = time.monotonic()
        plans = read_plans(self._store, "rollout", iteration)
        rollout = sealed_rollout(self._store, plans)
        waited = started
        if rollout is None:
            watch = UnitWatch(self._store, plans, self._liveness)

            def tick(watch: UnitWatch) -> None:
                beat()
                self.report("sampling", iteration, (watch.settled, watch.total))

            wait_for_units(watch, self._spec.learner.deadline_seconds, tick)
            waited = time.monotonic()
            self._measure_visibility()
            rollout = watch.close()
        rows = training_rows(rollout, self._spec.guards)
        self._rollout = rollout
        self._figures = {
            **sampled_figures(rollout, rows),
            "seconds_sampling": waited - started,
            "seconds_sealing": time.monotonic() - waited,
        }
        self.report("learning", iteration)
        if self._start.samplers_sleep:
            self._wait_for_sleep(beat)
        sampling = plans[0].sampling
        bare = [replace(row, prompt="", response="", rewards={}) for row in rows if row.response_ids]
        whole = sampling.top_p == 1 and sampling.top_k == 0
        return bare, Sampled(iteration, sampling.temperature, sampling.max_tokens, whole)

    def judge(self, result: StepResult, learning_rate: float, seconds: float) -> None:
        """Look at what the M-step did before it is published. Diverged if a guard was left, Fenced if we must not."""
        assert self._rollout is not None, "sample comes first"
        iteration = self._rollout.seal.iteration
        graded = sum(row.verdict.trains for row in self._rollout.rows)
        self._figures |= {**trained_figures(result, graded, learning_rate), "seconds_learning": seconds}
        history = [figures for t, figures in sorted(self._history.items()) if t < iteration]
        check_guards(self._spec.guards, history, self._figures)
        self.owner.check()  # Here the other ranks still hear of it; while publishing, only rank 0 does.
        self.report("publishing", iteration)

    def finish(self, iteration: int, diverged: bool, seconds: Figures) -> None:
        """Record an iteration whose policy is published, collect evaluations and remove what may go."""
        figures = {**self._figures, **seconds, "iteration": iteration, "policy": iteration + 1}
        figures["tokens_per_second"] = figures["tokens"] / seconds["seconds_total"]
        figures |= {"replayed": 0, "diverged": 0}
        counts = {"iterations": 1, "tokens": figures["tokens"], "void_units": figures["void_units"]}
        if (first := self._history.get(iteration)) is not None:
            # The first time is what the run was like; a replay waits for nobody and would look too fast.
            figures = {**first, "replayed": first["replayed"] + 1, "diverged": first["diverged"] + diverged}
            counts = {"replayed": 1, "diverged": int(diverged)}
            if diverged:
                logger.warning("policy %d came out with other weights than the first time", iteration + 1)
        self._evaluations.collect()
        if (evaluation := self._evaluations.results.get(iteration)) is not None:
            figures |= {"eval_greedy": evaluation.greedy, "eval_avg": evaluation.average}
        write_metrics(self._store, iteration, figures)
        self._history[iteration] = figures
        self._mirror()
        self._metrics.observe({**figures, **self._newest_evaluation()}, counts)
        self._retain()
        self.owner.heartbeat()

    def complete(self, iterations: int, beat: Callable[[], None]) -> None:
        """Wait for the last evaluations and finish the run."""
        deadline = time.monotonic() + self._spec.evaluation.deadline_seconds
        while True:
            self._evaluations.collect()
            if not self._evaluations.outstanding:
                break
            if time.monotonic() > deadline:
                self._evaluations.give_up()
                break
            beat()
            self.report("evaluating", iterations, self._evaluations.progress())
            time.sleep(POLL_SECONDS[1] / 4)
        self._metrics.observe(self._newest_evaluation())
        self._mirror()
        self._retain()  # The last state and the last evaluations were not there at the last iteration's end.
        evaluations = self._evaluations.greedy
        write_final(
            self._store,
            Final(run=self._identity.uid, iterations=iterations, policy=iterations, evaluations=evaluations),
        )
        self.report("done", iterations)

    def report(self, phase: Phase, iteration: int, units: tuple[int, int] = (0, 0), *, at_once: bool = False) -> None:
        """Say how far the run is; while waiting, a few times per second at most unless it is to be `at_once`."""
        waiting = units[0] < units[1]
        now = time.monotonic()
        if waiting and now - self._ticked < TICK_SECONDS and not at_once:
            return
        self._ticked = now
        newest = self._history[max(self._history)] if self._history else {}
        detail = {key: newest.get(key) for key in ("reward_mean", "accuracy", "kl_behaviour", "tokens_per_second")}
        progress = Progress(
            attempt=self.owner.number,
            iteration=iteration,
            iterations=self._spec.em.iterations,
            phase=phase,
            policy=newest_policy(self._store),
            units_done=units[0],
            units_total=units[1],
            detail=detail,
        )
        write_progress(self._store, progress)
        if self._report:
            samplers = [record for record in self._look_at_samplers() if self._liveness.beating(record.id)]
            self._report.offer(progress, self._history, self._evaluations.greedy, samplers)

    def _leave_to_samplers(self, iteration: int, last: bool, beat: Callable[[], None]) -> None:
        """Return if everything that is planned for an iteration, or for the end of the run, is there."""
        if last:
            self._evaluations.collect()
            watches = self._evaluations.watches
        else:
            plans = read_plans(self._store, "rollout", iteration)
            watches = [] if sealed_rollout(self._store, plans) else [UnitWatch(self._store, plans, self._liveness)]

        def leave() -> None:
            units = sum(watch.settled for watch in watches), sum(watch.total for watch in watches)
            self.report("evaluating" if last else "sampling", iteration, units, at_once=True)

        wait_unless_open(watches, self._spec.sampler.lease_seconds, beat, leave)

    def _look_at_samplers(self) -> list[SamplerRecord]:
        records = read_records(self._store)
        self._liveness.observe(records)
        return records

    def _wait_for_sleep(self, beat: Callable[[], None]) -> None:
        """Return when every living sampler has given its GPU memory up. Stop (75) if one does not in time."""
        deadline = time.monotonic() + self._spec.learner.deadline_seconds
        while True:
            records = self._look_at_samplers()
            awake = [record.id for record in records if not record.asleep and not self._liveness.silent(record.id)]
            if not awake:
                return
            if time.monotonic() > deadline:
                raise Stop(f"samplers {awake} do not sleep; start them with --sleep-while-learning")
            beat()
            time.sleep(POLL_SECONDS[0])

    def _mirror(self) -> None:
        if self._spec.logging.tensorboard:
            self._event_files.mirror(self._history, self._evaluations.results)

    def _retain(self) -> None:
        """Remove what may go. Fenced if another learner took over."""
        best = self._evaluations.best
        retain(self._store, self._spec.retention, self.owner, self._liveness, best, pinned=(REFERENCE_POLICY,))

    def _measure_visibility(self) -> None:
        """Once, when samplers are known to be there: how late do they see a new file? Nobody waits for the answer."""
        if self._visibility_known:
            return
        self._visibility_known = True
        lease = self._spec.sampler.lease_seconds

        def measure() -> None:
            delay = ping(self._store, timeout=lease)
            if delay is None:
                logger.warning("no sampler answered to a new file within sampler.leaseSeconds (%g s)", lease)
            elif warning := lease_warning(lease, delay):
                logger.warning("%s", warning)

        threading.Thread(target=measure, name="visibility", daemon=True).start()

    def _read_manifest(self) -> RunSpec:
        try:
            spec = load_run(self._start.spec_file).spec
        except InvalidManifest as error:
            raise BadSpec(str(error)) from error
        if field := immutable_edit(self._store, spec):
            raise BadSpec(f"{self._start.spec_file}: {field} is immutable; change it back, or start a new run")
        return spec

    def _trainable(self, spec: RunSpec, iteration: int) -> RunSpec:
        """The spec of an iteration, whose answers may have been planned before an edit of the objective."""
        plans = read_plans(self._store, "rollout", iteration) if iteration else ()
        earlier = (read_spec(self._store, before) for before in reversed(range(iteration)))
        found = trainable(spec, plans, earlier)
        if found is None:
            raise BadSpec(
                f"spec.objective: {spec.objective.preset} can't be trained on what was planned for iteration "
                f"{iteration} with sampler.topP, sampler.topK and em.samplesPerPrompt of before; take an objective for "
                f"those until iteration {iteration + spec.em.max_staleness + 1}"
            )
        if found != spec:
            logger.warning("iteration %d was planned before an edit of the objective, which waits", iteration)
        return found

    def _newest_evaluation(self) -> Figures:
        known = [result for result in self._evaluations.results.values() if result.greedy is not None]
        newest = max(known, key=lambda result: result.policy, default=None)
        return {} if newest is None else {"eval_greedy": newest.greedy}
