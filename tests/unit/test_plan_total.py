"""Whatever the API server lets in is planned, the same way every time."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from plan_samples import Steps, deployment, job, observed, plan_alone, progress, run

KEYS = st.sampled_from(
    [
        *("spec", "metadata", "labels", "annotations", "name", "value", "affinity", "tolerations", "securityContext"),
        *("containers", "initContainers", "image", "env", "args", "ports", "resources", "limits", "cpu"),
        *("volumes", "volumeMounts", "mountPath", "hostNetwork", "restartPolicy", "$patch", "$retainKeys"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["", "learner", "sampler", "run", "1m", "merge", "delete"])
)
PATCHES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.dictionaries(KEYS, PATCHES, max_size=2),
        "spec": st.dictionaries(KEYS, PATCHES, max_size=3)
        | st.fixed_dictionaries({"containers": st.lists(st.dictionaries(KEYS, PATCHES, max_size=4), max_size=2)}),
    },
)


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(patch=SHAPED, role=st.sampled_from(["sampler", "learner"]))
def test_any_pod_template_is_used_or_refused(patch: dict[str, Any], role: str) -> None:
    steps = Steps({role: {"podTemplate": patch}})
    steps.settle()
    assert steps.said("Accepted") in (("True", "Accepted"), ("False", "InvalidSpec"))
    assert bool(steps.jobs()) == (role == "sampler" or steps.said("Accepted")[0] == "True")


STATES = st.sampled_from(
    [
        {},
        {"ready": 1},
        {"ready": 2, "pods": 2},
        {"pods": 2, "ready": 1},
        {"failed": ""},
        {"failed": "x"},
        {"complete": True},
        {"suspend": True},
        *({"rule": index} for index in range(7)),
    ]
)
STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "attempt": st.integers(0, 4),
        "judgedAttempt": st.integers(0, 4),
        "restarts": st.integers(0, 12),
        "turn": st.sampled_from(["learner", "samplers"]),
        "sampled": st.integers(0, 4),
        "attemptStartTime": st.sampled_from(["2027-01-15T07:59:50Z", "2027-01-15T07:00:00Z"]),
        "nextAttemptTime": st.sampled_from(["2027-01-15T07:59:50Z", "2027-01-15T09:00:00Z"]),
        "heldSince": st.just("2027-01-15T07:00:00Z"),
        "progress": st.builds(
            progress,
            st.integers(0, 4),
            st.integers(0, 4),
            st.sampled_from(["starting", "sampling", "learning", "done"]),
            policyVersion=st.integers(0, 4),
        ),
    },
)


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(
    status=STATUSES,
    jobs=st.dictionaries(st.integers(1, 5), STATES, max_size=3),
    replicas=st.none() | st.integers(0, 3),
    strategy=st.sampled_from(["InPlace", "RollingUpdate", "Alternate"]),
    suspend=st.booleans(),
)
def test_any_situation_is_planned_safely(
    status: dict[str, Any], jobs: dict[int, Any], replicas: int | None, strategy: str, suspend: bool
) -> None:
    children = [job(attempt, **state) for attempt, state in jobs.items()]
    if replicas is not None:
        children.append(deployment(replicas, ready=min(replicas, 1)))
    given_run = run({"sampler": {"rollStrategy": strategy}, "suspend": suspend}, status)
    refusals = {"demo-sampler-44136fa3": "", "demo-learner-44136fa3": ""}
    first = plan_alone(observed(given_run, *children, refusals=refusals))
    assert first == plan_alone(observed(given_run, *children, refusals=refusals))
    made = [each["metadata"]["name"] for each in first.create if each["kind"] == "Job"]
    live = [attempt for attempt, state in jobs.items() if not {"failed", "complete", "rule"} & state.keys()]
    assert not (made and live)
    assert first.status is not None
    assert first.status["attempt"] >= max([status.get("attempt", 0), *jobs])
    assert first.requeue_after is None or first.requeue_after >= 0
