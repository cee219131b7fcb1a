"""Strategic merge patches do what `kubectl patch --type strategic` does."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_operator.strategic import merge
from hack import tools

Json = dict[str, Any]
Patch = Callable[[Json, Json], Json]

TEMPLATE: Json = {
    "metadata": {
        "labels": {"app": "x", "role": "learner"},
        "annotations": {"note": "old"},
        "finalizers": ["a/b", "c/d"],
    },
    "spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": {"zone": "a", "disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "hub"}],
        "containers": [
            {
                "name": "learner",
                "image": "learner:1",
                "args": ["--a", "--b"],
                "env": [{"name": "HOME", "value": "/tmp"}, {"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"name": "metrics", "containerPort": 9464}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
                "volumeMounts": [{"name": "run", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
            },
            {"name": "second", "image": "second:1"},
            {"name": "third", "image": "third:1"},
        ],
        "volumes": [{"name": "run", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "tmp", "emptyDir": {}}],
    },
}


@pytest.fixture(scope="session")
def kubectl_patch(tmp_path_factory: pytest.TempPathFactory) -> Patch:
    """The real thing: applies a patch to a pod of a template and gives its metadata and spec back."""
    program = _kubectl()
    pod = tmp_path_factory.mktemp("kubectl") / "pod.json"

    def patch(template: Json, patch: Json) -> Json:
        pod.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", **template}))
        command = [program, "patch", "--local", "-f", str(pod), "--type=strategic", "-o=json", "-p", json.dumps(patch)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise ValueError(done.stderr)
        found = json.loads(done.stdout)
        return _settled({"metadata": found["metadata"], "spec": found["spec"]})

    return patch


def _settled(value: Any) -> Any:
    """Without the nulls and directives that kubectl leaves in items that it did not merge."""
    if isinstance(value, dict):
        return {key: _settled(below) for key, below in value.items() if below is not None and not key.startswith("$")}
    if isinstance(value, list):
        return [_settled(item) for item in value if not (isinstance(item, dict) and "$patch" in item)]
    return value


def _kubectl() -> str:
    try:
        return str(tools.path("kubectl"))
    except tools.ToolError as error:
        found = shutil.which("kubectl")
        if found is not None:
            return found
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no kubectl to compare with: {error}")


def spec(**fields: Any) -> Json:
    return {"spec": fields}


def container(name: str = "learner", **fields: Any) -> Json:
    return spec(containers=[{"name": name, **fields}])


CASES: dict[str, Json] = {
    "nothing": {},
    "a scalar": spec(restartPolicy="Always"),
    "a new scalar": spec(hostNetwork=True),
    "null deletes a scalar": spec(restartPolicy=None),
    "null deletes a list": spec(tolerations=None),
    "null of what is not there": spec(runtimeClassName=None, affinity=None),
    "labels are united": {"metadata": {"labels": {"team": "ml", "app": "y"}}},
    "a label is deleted": {"metadata": {"labels": {"app": None}}},
    "metadata that is new": {"metadata": {"annotations": {"a/b": "c", "note": None}}},
    "objects are merged": spec(securityContext={"runAsUser": 7, "seccompProfile": {"localhostProfile": "p"}}),
    "an object is replaced": spec(securityContext={"$patch": "replace", "runAsUser": 7}),
    "an object is emptied": spec(securityContext={"$patch": "delete"}),
    "an atomic list": spec(tolerations=[{"key": "spot", "operator": "Exists"}]),
    "an atomic list of texts": container(args=["--c"]),
    "a container's field": container(image="learner:2"),
    "a container more": container("sidecar", image="s:1"),
    "containers before and after": spec(
        containers=[{"name": "new", "image": "n"}, {"name": "second", "image": "two"}, {"name": "last", "image": "l"}]
    ),
    "containers in another order": spec(
        containers=[{"name": "third", "image": "3"}, {"name": "learner", "image": "1"}]
    ),
    "a container is deleted": container("second", **{"$patch": "delete"}),
    "a container is deleted that is not there": container("nobody", **{"$patch": "delete"}),
    "containers are replaced": spec(containers=[{"name": "only", "image": "o"}, {"$patch": "replace"}]),
    "containers are replaced first": spec(containers=[{"$patch": "replace"}, {"name": "only", "image": "o"}]),
    "init containers that are new": spec(initContainers=[{"name": "side", "image": "s", "restartPolicy": "Always"}]),
    "a variable": container(env=[{"name": "A", "value": "9"}, {"name": "C", "value": "3"}]),
    "a variable from elsewhere": container(
        env=[{"name": "A", "value": None, "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    ),
    "a variable is deleted": container(env=[{"name": "A", "$patch": "delete"}]),
    "a variable twice": container(env=[{"name": "C", "value": "1"}, {"name": "C", "value": "2"}]),
    "a port": container(ports=[{"containerPort": 9464, "hostPort": 1}, {"containerPort": 80, "protocol": "UDP"}]),
    "a mount": container(volumeMounts=[{"mountPath": "/data", "readOnly": True}, {"mountPath": "/x", "name": "x"}]),
    "limits are merged": container(resources={"limits": {"cpu": "2"}, "requests": {"memory": "1Gi"}}),
    "a volume of another type": spec(volumes=[{"name": "tmp", "hostPath": {"path": "/x"}}]),
    "only some keys of a volume": spec(
        volumes=[{"name": "tmp", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]
    ),
    "only some keys of an object": spec(securityContext={"$retainKeys": ["runAsUser"], "runAsUser": 5}),
    "pull secrets": spec(imagePullSecrets=[{"name": "mine"}]),
    "host aliases that are new": spec(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a"]}]),
    "spread constraints": spec(
        topologySpreadConstraints=[{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]
    ),
    "finalizers are united": {"metadata": {"finalizers": ["e/f", "a/b"]}},
    "finalizers are deleted": {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}},
    "finalizers are deleted and united": {
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"], "finalizers": ["g/h"]}
    },
    "texts are deleted from no list": spec(**{"$deleteFromPrimitiveList/finalizers": ["a"]}),
    "an affinity that is new": spec(affinity={"nodeAffinity": {"a": [{"b": None}], "c": None}}),
    "an empty object": spec(securityContext={}, nodeSelector={}),
    "an empty list": spec(tolerations=[], containers=[]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_patch_does_what_kubectl_does(kubectl_patch: Patch, case: str) -> None:
    assert merge(TEMPLATE, CASES[case], "podTemplate") == kubectl_patch(TEMPLATE, CASES[case])


NAMES = st.sampled_from(["learner", "second", "third", "new", "newer"])
TEXTS = st.sampled_from(["", "x", "y", "1"])
LABELS = st.dictionaries(st.sampled_from(["app", "role", "team"]), st.none() | TEXTS, max_size=3)


def keyed(key: str, keys: st.SearchStrategy[Any], known: set[Any], **fields: st.SearchStrategy[Any]) -> Any:
    """Lists of items with distinct keys; items that the template has may be deleted or have fields deleted."""

    def item(value: Any) -> st.SearchStrategy[Json]:
        optional = {name: values | st.none() if value in known else values for name, values in fields.items()}
        changed = st.fixed_dictionaries({key: st.just(value)}, optional=optional)
        return changed | st.just({key: value, "$patch": "delete"}) if value in known else changed

    items = st.lists(keys, unique=True, max_size=4).flatmap(lambda values: st.tuples(*map(item, values)).map(list))
    return items | items.map(lambda found: [*found, {"$patch": "replace"}])


ENVIRONMENT = keyed("name", st.sampled_from(["HOME", "A", "B", "C", "D"]), {"HOME", "A", "B"}, value=TEXTS)
MOUNTS = keyed(
    "mountPath", st.sampled_from(["/data", "/tmp", "/x"]), {"/data", "/tmp"}, readOnly=st.booleans(), name=TEXTS
)
VOLUMES = keyed(
    "name",
    st.sampled_from(["run", "tmp", "more"]),
    {"run", "tmp"},
    emptyDir=st.just({"medium": "Memory"}),
    hostPath=st.just({"path": "/x"}),
)
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.just("learner")},
        optional={
            "image": TEXTS | st.none(),
            "args": st.lists(TEXTS, max_size=2) | st.none(),
            "env": ENVIRONMENT,
            "volumeMounts": MOUNTS,
            "resources": st.dictionaries(st.sampled_from(["limits", "requests"]), LABELS | st.none(), max_size=2),
        },
    ),
    max_size=1,
).flatmap(
    lambda ours: keyed("name", NAMES.filter(lambda name: name != "learner"), {"second", "third"}, image=TEXTS).map(
        lambda others: [*others[: len(others) // 2], *ours, *others[len(others) // 2 :]]
    )
)
PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({}, optional={"labels": LABELS | st.none(), "annotations": LABELS}),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "containers": CONTAINERS,
                "volumes": VOLUMES,
                "nodeSelector": LABELS | st.none(),
                "securityContext": st.none() | st.dictionaries(st.sampled_from(["runAsUser", "fsGroup"]), st.none()),
                "tolerations": st.none() | st.lists(LABELS.map(lambda _: {"operator": "Exists"}), max_size=2),
                "priorityClassName": TEXTS | st.none(),
            },
        ),
    },
)


@settings(deadline=None, max_examples=60)
@given(patch=PATCHES)
def test_any_patch_does_what_kubectl_does(kubectl_patch: Patch, patch: Json) -> None:
    assert merge(TEMPLATE, patch, "podTemplate") == kubectl_patch(TEMPLATE, patch)


@settings(deadline=None, max_examples=200)
@given(patch=PATCHES)
def test_a_patch_changes_neither_template_nor_itself_and_repeats_nothing(patch: Json) -> None:
    template, given = copy.deepcopy(TEMPLATE), copy.deepcopy(patch)
    once = merge(template, patch, "podTemplate")
    assert (template, patch) == (TEMPLATE, given)
    assert merge(once, patch, "podTemplate") == once


REFUSED: dict[str, tuple[Json, str]] = {
    "a list for an object": (
        spec(securityContext=[]),
        r"podTemplate\.spec\.securityContext must be an object, not a list",
    ),
    "an object for a list": (spec(containers={}), r"podTemplate\.spec\.containers must be a list, not an object"),
    "a text for the spec": ({"spec": "x"}, r"podTemplate\.spec must be an object, not the value 'x'"),
    "a container without name": (spec(containers=[{"image": "x"}]), r"spec\.containers\[0\] has no name.*; add it"),
    "a container that is a text": (spec(containers=["x"]), r"spec\.containers\[0\] must be an object"),
    "a variable without name": (
        container(env=[{"value": "x"}]),
        r"spec\.containers\[learner\]\.env\[0\] has no name",
    ),
    "a directive for an object": (
        spec(securityContext={"$patch": "merge"}),
        r"securityContext\.\$patch: 'merge' is not",
    ),
    "a directive for an item": (
        container("second", **{"$patch": "merge"}),
        r"containers\[0\]\.\$patch: 'merge' is not",
    ),
    "keys that are not retained": (
        spec(securityContext={"$retainKeys": ["runAsUser"], "fsGroup": 5}),
        r"securityContext\.\$retainKeys must name fsGroup too",
    ),
    "retained keys that are no list": (spec(securityContext={"$retainKeys": "x"}), r"\$retainKeys must be a list"),
    "texts to delete that are no list": (
        {"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}},
        r"\$deleteFromPrimitiveList/finalizers must be a list",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_patch_that_can_not_be_used_is_refused_by_field(case: str) -> None:
    patch, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        merge(TEMPLATE, patch, "spec.learner.podTemplate")


def test_the_order_of_a_patch_made_by_apply_is_passed_over() -> None:
    patch = spec(**{"$setElementOrder/containers": [{"name": "third"}], "restartPolicy": "Always"})
    assert merge(TEMPLATE, patch, "podTemplate")["spec"] == TEMPLATE["spec"] | {"restartPolicy": "Always"}
