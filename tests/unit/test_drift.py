"""Drift is what an application would change, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from built_runs import SETTINGS, built_run
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_operator.builders.children import standing_children
from empg_operator.builders.sampler import sampler_deployment, sampler_pod_template
from empg_operator.drift import KEYED, QUANTITIES, WHOLE, ZERO_COUNTS, applicable, drifted
from empg_operator.settings import Settings

Json = dict[str, Any]
Path = tuple[str | int, ...]

TOLERANT = {
    "spec": {
        "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 0}],
        "nodeSelector": {"zone": "a"},
        "containers": [{"name": "sampler", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}],
    }
}


def children() -> tuple[Json, ...]:
    run = built_run(sampler={"podTemplate": TOLERANT}, storage={"whenDeleted": "Delete"})
    settings = Settings(**SETTINGS.model_dump() | {"network_policies": True, "api_server_cidrs": ("10.0.0.1/32",)})
    template = sampler_pod_template(run, settings, None)
    return (
        *standing_children(run, settings, None, True),
        sampler_deployment(run, template, 0, "demo-sampler-1", None, None),
    )


CHILDREN = {f"{child['kind']} {child['metadata']['name']}": child for child in children()}


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """Paths of all values that are no objects or lists, and of empty ones."""
    below: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(value, dict):
        below = iter(value.items())
    elif isinstance(value, list):
        below = iter(enumerate(value))
    if not value or not isinstance(value, dict | list):
        yield path
    for key, item in below:
        yield from leaves(item, (*path, key))


def at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def without(value: Json, path: Path) -> Json:
    value = copy.deepcopy(value)
    del at(value, path[:-1])[path[-1]]
    return value


def with_value(value: Json, path: Path, new: Any) -> Json:
    value = copy.deepcopy(value)
    at(value, path[:-1])[path[-1]] = new
    return value


def test_what_is_absent_has_drifted() -> None:
    assert all(drifted(child, None) for child in CHILDREN.values())


@pytest.mark.parametrize("name", CHILDREN)
def test_what_is_as_it_was_applied_has_not_drifted(name: str) -> None:
    assert not drifted(CHILDREN[name], copy.deepcopy(CHILDREN[name]))


@pytest.mark.parametrize("name", [name for name in CHILDREN if not name.startswith("PersistentVolumeClaim")])
def test_every_value_that_is_taken_away_or_changed_is_drift(name: str) -> None:
    child = CHILDREN[name]
    paths = list(leaves(child))
    assert len(paths) > 10
    for path in paths:
        value = at(child, path)
        other = "7" if QUANTITIES.intersection(path) else f"not {value}"
        assert drifted(child, with_value(child, path, other)), path
        if value or path[-1] in ZERO_COUNTS:
            assert drifted(child, without(child, path)), path


@settings(deadline=None)
@given(data=st.data())
def test_what_others_add_is_no_drift(data: st.DataObject) -> None:
    child = data.draw(st.sampled_from(list(CHILDREN.values())))
    observed = copy.deepcopy(child)

    def add(value: Any, field: str) -> None:
        if isinstance(value, dict):
            for key, below in value.items():
                add(below, key)
            if field not in WHOLE and data.draw(st.booleans()):
                value["added"] = data.draw(st.sampled_from([1, "x", True, [], {"a": 1}]))
        if isinstance(value, list):
            for item in value:
                add(item, "")
            if field in KEYED and data.draw(st.booleans()):
                value.insert(0, dict.fromkeys(KEYED[field], "added") | {"apiVersion": "v1", "kind": "Other"})

    add(observed, "")
    assert not drifted(child, observed)


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "selector"),
        ("spec", "template", "spec", "nodeSelector"),
    ],
)
def test_what_others_add_to_what_is_one_value_is_drift(path: Path) -> None:
    child = next(child for name, child in CHILDREN.items() if name.startswith("Deployment"))
    selector = at(child, path)
    assert drifted(child, with_value(child, path, {**selector, "added": "x"}))


@pytest.mark.parametrize(
    ("given", "kept"),
    [("1000m", "1"), ("0.5", "500m"), (2, "2"), ("1024Mi", "1Gi"), ("1e3", "1k"), ("1.5Gi", "1536Mi"), ("1u", "1u")],
)
def test_another_spelling_of_a_quantity_is_no_drift(given: str | int, kept: str) -> None:
    desired, observed = ({"kind": "X", "metadata": {}, "spec": {"limits": {"cpu": value}}} for value in (given, kept))
    assert not drifted(desired, observed)
    assert drifted(desired, with_value(observed, ("spec", "limits", "cpu"), "3"))


def test_a_text_that_looks_like_a_quantity_is_a_text() -> None:
    desired, observed = ({"kind": "X", "metadata": {}, "data": {"value": value}} for value in ("1000m", "1"))
    assert drifted(desired, observed)


@pytest.mark.parametrize(("desired", "observed"), [(True, 1), (False, 0), (1, True), (0, "0"), ("", "x"), ([], [1])])
def test_values_of_another_type_are_others(desired: Any, observed: Any) -> None:
    documents = [{"kind": "X", "metadata": {}, "value": value} for value in (desired, observed)]
    assert drifted(documents[0], documents[1])


VALUES = st.recursive(
    st.integers(-3, 3) | st.sampled_from(["", "x", "y"]) | st.booleans() | st.none(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=12,
)


@settings(deadline=None)
@given(value=VALUES)
def test_nothing_drifts_from_itself(value: Any) -> None:
    document = {"kind": "X", "metadata": {}, "spec": value}
    assert not drifted(document, copy.deepcopy(document))


@settings(deadline=None)
@given(value=VALUES, added=VALUES)
def test_a_null_is_like_nothing(value: Any, added: Any) -> None:
    desired = {"kind": "X", "metadata": {}, "spec": {"a": value, "null": None}}
    assert not drifted(desired, {"kind": "X", "metadata": {}, "spec": {"a": value, "added": added}})


def claim(size: str, *, bound: bool = True, storage_class: str | None = None) -> Json:
    spec: Json = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    status = {"phase": "Bound" if bound else "Pending"}
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec, "status": status}


def desired_claim(size: str, **fields: Any) -> Json:
    return {**claim(size, **fields), "status": {}}


@pytest.mark.parametrize(
    ("wanted", "present", "result"),
    [
        (desired_claim("2Gi"), claim("2048Mi"), "2048Mi"),
        (desired_claim("3Gi"), claim("2Gi"), "3Gi"),
        (desired_claim("3Gi"), claim("2Gi", bound=False), "2Gi"),
        (desired_claim("1Gi"), claim("2Gi"), "2Gi"),
        (desired_claim("2Gi", storage_class="fast"), claim("2Gi"), "2Gi"),
        (desired_claim("3Gi", storage_class="fast"), claim("2Gi", storage_class="slow"), "3Gi"),
    ],
)
def test_a_claim_only_grows(wanted: Json, present: Json, result: str) -> None:
    applied = applicable(wanted, present)
    assert applied["spec"]["resources"]["requests"]["storage"] == result
    assert applied["spec"].get("storageClassName") == present["spec"].get("storageClassName")
    assert drifted(wanted, present) == (result == "3Gi")


def test_an_owner_that_an_object_is_to_outlive_is_drift() -> None:
    owned = next(child for name, child in CHILDREN.items() if name.startswith("PersistentVolumeClaim"))
    owned = {**owned, "status": {"phase": "Bound"}}
    kept = without(owned, ("metadata", "ownerReferences"))
    assert not drifted(owned, owned)
    assert not drifted(kept, kept)
    assert drifted(owned, kept)
    assert drifted(kept, owned)
    others = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}]
    assert not drifted(kept, with_value(owned, ("metadata", "ownerReferences"), others))
