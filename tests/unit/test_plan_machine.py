"""Runs in a cluster where anything happens at any time, and an operator that dies between any two calls.

`EMPG_MACHINE_EXAMPLES=2000 pytest tests/unit/test_plan_machine.py` searches for longer, with new random choices.
"""

import json
import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from plan_cluster import Cluster, Fault, ended, listed, number, place_of
from plan_samples import NAME

from empg_operator import names
from empg_operator.decision import Plan
from empg_operator.plan.attempts import VANISH_SECONDS

EXAMPLES = int(os.environ.get("EMPG_MACHINE_EXAMPLES", "0"))
PROFILE = settings(
    max_examples=EXAMPLES or 15,
    stateful_step_count=60 if EXAMPLES else 40,
    derandomize=not EXAMPLES,
    # To make a failure small takes many minutes.
    phases=list(Phase) if EXAMPLES else [Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

PASSES = 20
"""After so many passes with nothing happening, nothing is left to do."""
MOMENT = 125.0
"""Seconds that a patient operator waits: longer than any pause, shorter than any deadline."""
ROUNDS = 500
"""After so many rounds in a healthy cluster, a run of at most ten iterations is complete."""
BYTES = 10_000

DEADLINES = [{}, {"pendingSeconds": 2000.0, "holdSeconds": 300.0}, {"samplingSeconds": 900.0, "runSeconds": 5000.0}]
CHILDREN = [
    ("ConfigMap", names.config_map(NAME)),
    ("Deployment", names.sampler_deployment(NAME)),
    ("Service", names.learner_service(NAME)),
    ("ServiceAccount", names.service_account(NAME, "learner")),
]


FAULTS = st.sampled_from(["none", "death", "lost answer"])
EDITS = st.sampled_from(
    [
        *({"sampler__replicas": count} for count in range(4)),
        *({"em__iterations": count} for count in (3, 8, 10)),
        *({"sampler__maxConcurrentSequences": count} for count in (16, 32)),
        *({"learner__logprobChunkTokens": count} for count in (16, 32)),
        {"optimizer__learningRate": 1e-5},
    ]
)


class Runs(RuleBasedStateMachine):
    cluster: Cluster

    @initialize(
        strategy=st.sampled_from(["InPlace", "RollingUpdate", "Alternate"]),
        nodes=st.integers(1, 2),
        deadlines=st.sampled_from(DEADLINES),
        ttl=st.sampled_from([None, 100]),
        begun=st.integers(0, 4),
    )
    def submit(self, strategy: str, nodes: int, deadlines: dict[str, float], ttl: int | None, begun: int) -> None:
        spec: dict[str, Any] = {
            "sampler": {"rollStrategy": strategy},
            "learner": {"nodes": nodes},
            "deadlines": deadlines,
            "restarts": {"limit": 3},
            "em": {"iterations": 8},
        }
        self.cluster = Cluster(spec | ({} if ttl is None else {"ttlSecondsAfterFinished": ttl}))
        self.alternate = strategy == "Alternate"
        self.charged: set[int] = set()
        """Attempts that crashed, and must be charged."""
        self.perhaps: set[int] = set()
        """Attempts that crashed, and may be: they were over for another reason, or nobody saw it."""
        self.fatal: set[str] = set()
        self.terminal: tuple[str, str] | None = None
        self.all_goes_well(begun)

    # What the operator does

    @rule(passes=st.integers(1, 4), patient=st.booleans())
    def operate(self, passes: int, patient: bool) -> None:
        """Some passes that nothing disturbs; the patient operator waits for backoffs and pauses."""
        cluster = self.cluster
        for _ in range(passes):
            cluster.deliver()
            cluster.reconcile()
            if patient and cluster.due is not None and cluster.due - cluster.now < MOMENT:
                cluster.now = max(cluster.now, cluster.due)

    @rule(steps=st.integers(0, 4), fault=FAULTS)
    def fail(self, steps: int, fault: Fault) -> None:
        """A pass that sees all, and does not come to its end."""
        self.cluster.deliver()
        self.cluster.reconcile(steps, fault)

    @rule(which=st.integers(0, 15), steps=st.none() | st.integers(0, 4), fault=FAULTS)
    def be_misled(self, which: int, steps: int | None, fault: Fault) -> None:
        """A pass that sees one change and none of the others."""
        known = sorted({*self.cluster.objects, *self.cluster.cache})
        self.cluster.deliver(known[which % len(known)])
        self.cluster.reconcile(steps, fault)

    @rule(seconds=st.sampled_from([1.0, 31.0, 130.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.cluster.now += seconds

    @rule()
    def settle(self) -> None:
        """With nothing happening, the operator comes to rest, and then it is where it should be."""
        cluster = self.cluster
        if not all(listed(job) for job in cluster.jobs()):
            cluster.now += VANISH_SECONDS  # a Job that lost its labels is asked for no sooner
        last = self.rest()
        assert last == Plan(requeue_after=last.requeue_after)
        child = cluster.deployment()
        replicas = child["spec"]["replicas"] if child is not None else 0
        stopped = cluster.run["spec"].get("suspend") or self.outcome()
        assert not (stopped and (cluster.live() or replicas))
        assert len(self.charged) <= cluster.status["restarts"] <= len(self.charged | self.perhaps)

    def rest(self) -> Plan:
        for _ in range(PASSES):
            self.cluster.deliver()
            done = self.cluster.reconcile()
            if not (done.apply or done.create or done.delete or done.status):
                return done
        raise AssertionError(f"{PASSES} passes, and still there is something to do: {done}")

    # What pods do

    @rule(times=st.integers(1, 3))
    def all_goes_well(self, times: int) -> None:
        for _ in range(times):
            self.operate(2, patient=True)
            self.cluster.start_pods()
            self.learner_works()

    @rule(what=st.sampled_from(["start", "samplers start", "samplers are made", "learner works"]))
    def pods_do(self, what: str) -> None:
        if what == "start":
            self.cluster.start_pods()
        elif what == "learner works":
            self.learner_works()
        else:
            self.cluster.roll_out(ready=what == "samplers start")

    def learner_works(self) -> None:
        if self.alternate:
            self.cluster.alternate()
        else:
            self.cluster.learn()

    @precondition(lambda self: self.cluster.live())
    @rule(ready=st.integers(0, 1), seconds=st.sampled_from([400.0, 1000.0, 2500.0]))
    def only_some_pods_are_there(self, ready: int, seconds: float) -> None:
        self.cluster.become(self.cluster.live()[0], {"ready": ready})
        self.operate(3, patient=False)
        self.cluster.now += seconds
        self.operate(3, patient=False)

    @precondition(lambda self: self.cluster.live())
    @rule(seen=st.booleans())
    def learner_crashes(self, seen: bool) -> None:
        job, status = self.cluster.live()[0], self.cluster.status
        self.cluster.end(job)
        sure = seen and self.outcome() is None and not self.cluster.run["spec"].get("suspend")
        sure = sure and number(job) > status.get("judgedAttempt", 0)
        (self.charged if sure else self.perhaps).add(number(job))
        if seen:
            self.cluster.deliver(place_of(job))

    @precondition(lambda self: self.cluster.live())
    @rule(index=st.sampled_from([2, 3]))
    def learner_stops(self, index: int) -> None:
        self.cluster.end(self.cluster.live()[0], rule=index)

    @precondition(lambda self: self.cluster.live())
    @rule(survivors=st.integers(0, 1), passes=st.integers(0, 4))
    def node_is_lost(self, survivors: int, passes: int) -> None:
        self.cluster.lose_node(self.cluster.live()[0], survivors=survivors)
        self.operate(passes, patient=True)

    @precondition(lambda self: self.cluster.live())
    @rule(seen=st.booleans())
    def node_refuses_a_pod(self, seen: bool) -> None:
        job = self.cluster.live()[0]
        self.cluster.refuse(job)
        if seen:
            self.cluster.deliver(place_of(job))

    @precondition(lambda self: self.cluster.live() and self.cluster.status.get("attempt", 0) > 3)
    @rule(index=st.sampled_from([0, 1]))
    def learner_gives_up(self, index: int) -> None:
        self.fatal.add(("InvalidSpec", "Diverged")[index])
        self.cluster.end(self.cluster.live()[0], rule=index)

    @precondition(lambda self: self.cluster.live())
    @rule(suspended=st.booleans())
    def queue_decides(self, suspended: bool) -> None:
        job = self.cluster.live()[0]
        job["spec"]["suspend"], job["status"] = suspended, {}
        self.cluster.touch(place_of(job))

    # What users do

    @rule(value=st.booleans(), rests=st.booleans())
    def user_suspends(self, value: bool, rests: bool) -> None:
        self.cluster.edit(suspend=value)
        if rests:
            self.settle()

    @rule(edit=EDITS)
    def user_edits(self, edit: dict[str, Any]) -> None:
        self.cluster.edit(**edit)

    @precondition(lambda self: self.cluster.jobs())
    @rule(which=st.integers(0, 1))
    def user_deletes_a_job(self, which: int) -> None:
        jobs = self.cluster.jobs()
        job = jobs[which % len(jobs)]
        self.cluster.remove(place_of(job))
        status, attempt = self.cluster.status, number(job)
        if attempt in self.charged and attempt > status.get("judgedAttempt", 0):
            self.charged.remove(attempt)
            self.perhaps.add(attempt)
        reported = status.get("progress", {}).get("attempt", 0)
        if attempt > max(status.get("attempt", 0), reported):
            self.cluster.numbers.remove(attempt)  # nobody knows that it was there

    @precondition(lambda self: self.cluster.jobs())
    @rule(seen=st.booleans())
    def user_takes_labels(self, seen: bool) -> None:
        job = self.cluster.jobs()[-1]
        if job.get("status", {}).get("terminating"):
            return  # once its end is written down, nobody asks for it by name, and its pods hold nothing that is left
        job["metadata"]["labels"] = {}
        self.cluster.touch(place_of(job))
        if seen:
            self.cluster.deliver(place_of(job))

    @rule(place=st.sampled_from(CHILDREN), replicas=st.none() | st.integers(0, 5))
    def user_meddles(self, place: tuple[str, str], replicas: int | None) -> None:
        child = self.cluster.deployment()
        if replicas is None or child is None:
            self.cluster.remove(place)
            return
        # Whoever scales it up by hand while the learner has its turn has them meet on the GPUs.
        child["spec"]["replicas"] = min(replicas, child["spec"]["replicas"]) if self.alternate else replicas
        child["metadata"]["generation"] += 1
        self.cluster.touch(place_of(child))

    # What always holds

    @invariant()
    def one_learner(self) -> None:
        assert len(self.cluster.live()) <= 1

    @invariant()
    def no_attempt_twice(self) -> None:
        numbers = self.cluster.numbers
        assert numbers == sorted(set(numbers))

    @invariant()
    def no_end_is_taken_back(self) -> None:
        now = self.outcome()
        if self.terminal is not None and now is None:
            assert self.terminal[0] == "Complete"
        elif self.terminal is not None:
            assert now == self.terminal
        if now is not None and now[0] == "Failed":
            allowed = {*self.fatal, "PendingDeadlineExceeded", "SamplingDeadlineExceeded", "RunDeadlineExceeded"}
            assert now[1] in allowed | ({"RestartLimitExceeded"} if len(self.charged | self.perhaps) > 3 else set())
        self.terminal = now

    @invariant()
    def charged_once(self) -> None:
        assert self.cluster.status.get("restarts", 0) <= len(self.charged | self.perhaps)

    @invariant()
    def small(self) -> None:
        assert len(json.dumps(self.cluster.run)) <= BYTES

    def outcome(self) -> tuple[str, str] | None:
        said = {each["type"]: each for each in self.cluster.status.get("conditions", ()) if each["status"] == "True"}
        return next(((kind, said[kind]["reason"]) for kind in ("Complete", "Failed") if kind in said), None)

    def teardown(self) -> None:
        """In a healthy cluster, with nobody interfering, the run comes to its end."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.edit(suspend=False, sampler__replicas=2)
        for job in cluster.live():
            job["spec"]["suspend"] = False
        for _ in range(ROUNDS):
            self.rest()
            if self.outcome() is not None:
                break
            before = cluster.version
            cluster.start_pods()
            self.rest()
            cluster.start_pods()
            self.learner_works()
            if cluster.version == before and cluster.due is not None:
                cluster.now = max(cluster.now, cluster.due)
        assert self.outcome() is not None
        self.settle()
        assert all(ended(job) for job in cluster.jobs())


Runs.TestCase.settings = PROFILE
test_runs_survive_everything = Runs.TestCase
