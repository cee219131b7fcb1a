"""One pass over one run: gather what was observed, decide, and do what was decided."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from empg.api.run import MANAGED_BY
from empg_operator.act import Actor, Changed
from empg_operator.answers import Answers
from empg_operator.api import CONFLICT, Api, ApiError
from empg_operator.cache import Cache, RunKey
from empg_operator.decision import Blocked, Diagnosis, Manifest, Observed, Place, Plan
from empg_operator.events import Recorder
from empg_operator.kinds import POD_MONITOR, by_name
from empg_operator.look import look
from empg_operator.metrics import Result
from empg_operator.ownership import owner
from empg_operator.queue import TryLaterError
from empg_operator.run_metrics import RunCollector
from empg_operator.settings import Settings

Planner = Callable[[Observed, Settings, float], Plan]

ROUNDS = 5
"""Plans of one pass at most. Each asks for at least one thing that the one before did not know."""
DIAGNOSIS_SECONDS = 120.0
"""Time for which a look is kept."""
REFUSAL_SECONDS = 30.0
"""Time after which a refused pod or child may be tried again: quotas and policies change."""
SETTLE_SECONDS = 1.0
"""Time after which a pass that changed something is followed by another one, whether or not an event comes."""
_log = logging.getLogger(__name__)


@dataclass
class _Memory:
    """What is known of a run beyond the cache. Losing it costs a few requests."""

    diagnosis: Diagnosis | None = None
    refusals: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By the digest of a pod's template: the answer, and when it was given."""
    blocked: dict[Place, Blocked] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    ends_with_namespace: str | None = None
    """UID of the run whose namespace is being deleted, which can't be undone."""


class Reconciler:
    """Passes over runs. Each may be cut off anywhere: the next one decides from what it then finds."""

    def __init__(
        self,
        plan: Planner,
        cache: Cache,
        api: Api,
        settings: Settings,
        recorder: Recorder,
        shown: RunCollector,
        clock: Callable[[], float],
        wake: Callable[[RunKey], None],
    ) -> None:
        """`clock` gives seconds since the epoch; `wake` asks for a pass over another run."""
        self._plan = plan
        self._cache = cache
        self._api = api
        self._settings = settings
        self._recorder = recorder
        self._shown = shown
        self._clock = clock
        self._wake = wake
        self._memories: dict[RunKey, _Memory] = {}
        self.pod_monitors = False
        """Whether the cluster has the kind PodMonitor."""

    async def __call__(self, key: RunKey) -> float | None:
        """Bring a run closer to what is wanted; seconds after which to look at it again, if any. Nothing is wanted in a
        namespace that is being deleted.

        TryLaterError: the API server refused something, or could not be reached.
        """
        run = self._cache.run(key)
        if run is None or run["spec"].get("managedBy", MANAGED_BY) != MANAGED_BY:
            self._forget(key)
            return None
        try:
            return await self._bring(key, run)
        except ApiError as error:
            if error.namespace_ends:
                _log.info("%s: %s", key, error)
                self._memories[key].ends_with_namespace = run["metadata"]["uid"]
                return None
            raise _later(error) from error

    async def _bring(self, key: RunKey, run: Manifest) -> float | None:
        memory = self._memories.setdefault(key, _Memory())
        if memory.ends_with_namespace == run["metadata"]["uid"]:
            return None
        observed = self._observe(key, run, memory)
        observed, plan = await self._decide(key, observed, memory)
        actor = Actor(key, observed, self._api, self._cache, self._recorder, memory.answers, self._wake)
        changed = await actor.change_children(plan)
        let_go = self._note_refusals(memory, plan, changed)
        self.pod_monitors &= POD_MONITOR.name not in changed.unknown
        if not changed.complete:
            raise _refused(changed)
        if plan.status is not None:
            written = await actor.write_status(plan.status)
            if written is None:
                self._forget(key)
                return None
            run = written
        for event in plan.events:
            await self._recorder.tell(run, event)
        self._shown.show(key, run)
        if changed.refused:
            raise _refused(changed, due=plan.requeue_after)
        later = [plan.requeue_after] if plan.requeue_after is not None else []
        return min([*later, SETTLE_SECONDS] if changed.any or let_go else later, default=None)

    def _observe(self, key: RunKey, run: Manifest, memory: _Memory) -> Observed:
        now = self._clock()
        if memory.diagnosis and now - memory.diagnosis.taken > DIAGNOSIS_SECONDS:
            memory.diagnosis = None
        memory.refusals = {
            digest: (refusal, given)
            for digest, (refusal, given) in memory.refusals.items()
            if not refusal or now - given < REFUSAL_SECONDS
        }
        mine = (None, run["metadata"]["uid"])
        origin = (run["spec"]["model"].get("fromRun") or {}).get("name")
        return Observed(
            run=run,
            children={place: child for place, child in self._cache.children(key).items() if owner(child) in mine},
            parent=self._cache.run(RunKey(key.namespace, origin)) if origin else None,
            diagnosis=memory.diagnosis,
            refusals={digest: refusal for digest, (refusal, _) in memory.refusals.items()},
            blocked=dict(memory.blocked),
            pod_monitors=self.pod_monitors,
        )

    async def _decide(self, key: RunKey, observed: Observed, memory: _Memory) -> tuple[Observed, Plan]:
        """Plan, find out what the plan wants to know, and plan again, until it wants to know nothing more; what was
        known in the end, and the plan."""
        looked = False
        tried: set[str] = set()
        for _ in range(ROUNDS):
            plan = self._plan(observed, self._settings, self._clock())
            unasked = [place for place in plan.find if place not in (*observed.children, *observed.absent)]
            untried = {digest: pod for digest, pod in plan.try_pods.items() if digest not in tried}
            if unasked:
                observed = await self._ask(key, observed, unasked)
            elif untried:
                for digest, pod in untried.items():
                    memory.refusals[digest] = (await self._api.try_pod(pod), self._clock())
                tried |= untried.keys()
                answers = {digest: refusal for digest, (refusal, _) in memory.refusals.items()}
                observed = replace(observed, refusals=answers)
            elif plan.diagnose and not looked:
                looked = True
                memory.diagnosis = await look(self._api, key, observed.run, observed.children, self._clock())
                observed = replace(observed, diagnosis=memory.diagnosis)
            else:
                return observed, plan
        raise AssertionError(f"run {key}: {ROUNDS} plans in a row asked for something new")

    async def _ask(self, key: RunKey, observed: Observed, places: Iterable[Place]) -> Observed:
        """What was observed, with children that no list shows: they may have lost the labels that lists go by."""
        children, absent = dict(observed.children), set(observed.absent)
        for kind, name in places:
            found = await self._api.get(by_name(kind), key.namespace, name)
            if found and owner(found) == observed.run["metadata"]["uid"]:
                children[kind, name] = found
            else:
                absent.add((kind, name))
        return replace(observed, children=children, absent=absent)

    def _note_refusals(self, memory: _Memory, plan: Plan, changed: Changed) -> bool:
        """Remember what was refused, and earlier refusals of what is not to be tried again yet; whether another one is
        forgotten that was not tried again, of which the run's conditions still tell."""
        now = self._clock()
        tried = {(each["kind"], each["metadata"]["name"]): each for each in (*plan.apply, *plan.create)}
        kept = {
            place: blocked for place, blocked in memory.blocked.items() if place not in tried and now < blocked.until
        }
        until = now + REFUSAL_SECONDS
        new = {place: Blocked(text, until, tried[place]) for place, text in changed.refused.items()}
        let_go = bool(memory.blocked.keys() - kept.keys() - tried.keys())
        memory.blocked = kept | new
        return let_go

    def _forget(self, key: RunKey) -> None:
        self._memories.pop(key, None)
        self._shown.hide(key)


def _refused(changed: Changed, due: float | None = None) -> TryLaterError:
    result: Result = "denied" if changed.denied else "refused"
    return TryLaterError(result, "; ".join(changed.refused.values()), due=due)


def _later(error: ApiError) -> TryLaterError:
    result: Result
    if error.code == CONFLICT:
        result = "conflict"
    elif error.is_denial:
        result = "denied"
    else:
        result = "refused" if error.is_refusal else "unavailable"
    return TryLaterError(result, str(error), error.retry_after)
