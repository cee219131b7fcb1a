from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empg_operator.cache import Cache, RunKey

RUN = RunKey("team", "demo")


def _run(version: int, name: str = "demo", parent: str | None = None, **about: Any) -> dict[str, Any]:
    model = {"fromRun": {"name": parent}} if parent else {"name": "base"}
    return {
        "apiVersion": "empg.dev/v1alpha1",
        "kind": "EMPGRun",
        "metadata": {"namespace": "team", "name": name, "resourceVersion": str(version), **about},
        "spec": {"model": model},
    }


def _child(version: int, name: str = "demo-learner-1", run: str | None = "demo", kind: str = "Job") -> dict[str, Any]:
    labels = {"empg.dev/run": run} if run else {}
    about = {"namespace": "team", "name": name, "resourceVersion": str(version), "labels": labels}
    return {"apiVersion": "batch/v1", "kind": kind, "metadata": about, "spec": {"version": version}}


def test_an_object_is_given_back_without_managed_fields() -> None:
    cache = Cache()
    given_ = _run(5, managedFields=[{"manager": "x"}])
    assert cache.put(given_) == {RUN}
    assert cache.run(RUN) == _run(5)
    assert "managedFields" in given_["metadata"], "what is put in is not changed"


def test_children_are_found_by_the_label_of_their_run() -> None:
    cache = Cache()
    cache.put(_child(1))
    cache.put(_child(2, "demo-data", kind="PersistentVolumeClaim"))
    cache.put(_child(3, "other-learner-1", run="other"))
    assert set(cache.children(RUN)) == {("Job", "demo-learner-1"), ("PersistentVolumeClaim", "demo-data")}
    assert cache.children(RUN)["Job", "demo-learner-1"] == _child(1)


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache()
    cache.put(_child(9))
    assert cache.put(_child(10)) == {RUN}
    assert cache.put(_child(9)) == set()
    assert cache.put(_child(10)) == set(), "the same again is no change"
    assert cache.children(RUN)["Job", "demo-learner-1"]["spec"] == {"version": 10}


@given(st.permutations(range(1, 7)))
def test_whatever_the_order_the_newest_stays(versions: list[int]) -> None:
    """Versions 1 to 5 are writes, 6 is the deletion."""
    cache = Cache()
    for version in versions:
        if version == 6:
            cache.remove(_child(version))
        else:
            cache.put(_child(version))
    assert cache.children(RUN) == {}
    assert cache.put(_child(7)) == {RUN}, "an object of the same name that is made later is another one"


def test_a_late_deletion_does_not_take_a_newer_object() -> None:
    cache = Cache()
    cache.put(_child(8))
    assert cache.remove(_child(7)) == set()
    assert ("Job", "demo-learner-1") in cache.children(RUN)


def test_a_list_removes_what_it_does_not_have_but_not_what_came_after_it() -> None:
    cache = Cache()
    cache.put(_child(3, "gone"))
    cache.put(_child(4, "stays"))
    cache.put(_child(12, "made-after-the-list"))
    cache.put(_child(5, "demo-data", kind="PersistentVolumeClaim"))
    assert cache.retain("Job", None, {("team", "stays")}, 10) == {RUN}
    assert {name for _, name in cache.children(RUN)} == {"stays", "made-after-the-list", "demo-data"}
    assert cache.put(_child(9, "gone")) == set(), "an event from before the list is late"


def test_a_list_of_one_namespace_says_nothing_about_others() -> None:
    cache = Cache()
    cache.put(_child(3))
    assert cache.retain("Job", "elsewhere", set(), 10) == set()
    assert cache.retain("Job", "team", set(), 10) == {RUN}


def test_a_child_that_loses_its_label_is_lost_and_one_that_changes_it_concerns_both() -> None:
    cache = Cache()
    cache.put(_child(1))
    assert cache.put(_child(2, run="other")) == {RUN, RunKey("team", "other")}
    assert cache.children(RUN) == {}
    assert cache.put(_child(3, run=None)) == {RunKey("team", "other")}
    assert cache.sizes()["Job"] == 0


def test_forks_are_concerned_by_their_parent_whether_it_existed_before_or_not() -> None:
    cache = Cache()
    a, b = RunKey("team", "a"), RunKey("team", "b")
    assert cache.put(_run(1, "b", parent="demo")) == {b}
    cache.put(_run(2, "a", parent="demo"))
    assert cache.put(_run(3)) == {RUN, a, b}
    assert cache.put(_child(4)) == {RUN}
    cache.put(_run(5, "a", parent="demo"))
    cache.remove(_run(6, "b", parent="demo"))
    assert cache.remove(_run(7)) == {RUN, a}
    cache.remove(_run(8, "a", parent="demo"))
    assert cache.put(_run(9)) == {RUN}


def test_an_object_without_version_is_an_error() -> None:
    child = _child(1)
    del child["metadata"]["resourceVersion"]
    with pytest.raises(KeyError, match="resourceVersion"):
        Cache().put(child)
