"""An operator that dies, between any two calls of any pass, leaves nothing that the next one does not mend."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from plan_cluster import Cluster, Fault, number, place_of

from empg_operator import names

Act = Callable[[Cluster], None]
PASSES = 12


def start(cluster: Cluster) -> None:
    cluster.start_pods()


def work(cluster: Cluster) -> None:
    cluster.learn()


def turns(cluster: Cluster) -> None:
    cluster.alternate()


def wait(seconds: float) -> Act:
    def act(cluster: Cluster) -> None:
        cluster.now += seconds

    return act


def edit(**fields: Any) -> Act:
    return lambda cluster: cluster.edit(**fields)


def end(rule: int | None = None) -> Act:
    return lambda cluster: cluster.end(cluster.live()[-1], rule=rule)


def lose_a_pod(cluster: Cluster) -> None:
    cluster.become(cluster.live()[-1], {"ready": 1})


def lose_node(survivors: int = 0) -> Act:
    return lambda cluster: cluster.lose_node(cluster.live()[-1], survivors=survivors)


def refuse(cluster: Cluster) -> None:
    cluster.refuse(cluster.live()[-1])


def delete_job(cluster: Cluster) -> None:
    cluster.remove(place_of(cluster.live()[-1]))


RUNNING: list[Act] = [start, start, work]
ITERATION: list[Act] = [work, work]
SCRIPTS: dict[str, tuple[dict[str, Any], list[Act]]] = {
    "crashes": ({}, [*RUNNING, end(), wait(11), *RUNNING, end(), wait(21), start]),
    "one crash too many": ({"restarts": {"limit": 1}}, [*RUNNING, end(), wait(11), *RUNNING, end(), start]),
    "evictions": ({}, [*RUNNING, end(2), start, end(3), start, end(2), wait(11), *RUNNING]),
    "divergence": ({}, [*RUNNING, end(1), start]),
    "suspension": ({}, [*RUNNING, edit(suspend=True), start, edit(suspend=False), *RUNNING]),
    "a deleted job": ({}, [*RUNNING, wait(60), delete_job, *RUNNING]),
    "half a gang": ({"learner": {"nodes": 2}}, [lose_a_pod, wait(901), wait(121), *RUNNING]),
    "a lost node": ({}, [*RUNNING, lose_node(), wait(30), wait(160), *RUNNING]),
    "a lost node of a gang": ({"learner": {"nodes": 2}}, [*RUNNING, lose_node(survivors=1), wait(160), *RUNNING]),
    "refused pods": ({}, [*RUNNING, refuse, refuse, refuse, wait(11), *RUNNING]),
    "a deadline": ({"deadlines": {"samplingSeconds": 50}}, [*RUNNING, wait(51), start]),
    "completion, raised": (
        {"em": {"iterations": 1}},
        [*RUNNING, *ITERATION, work, edit(em__iterations=2), *RUNNING, *ITERATION, work],
    ),
    "completion, cleaned": (
        {"em": {"iterations": 1}, "ttlSecondsAfterFinished": 30},
        [*RUNNING, *ITERATION, work, wait(31), edit(em__iterations=2)],
    ),
    "edits": (
        {"sampler": {"rollStrategy": "RollingUpdate"}},
        [*RUNNING, edit(sampler__tensorParallel=2), start, edit(learner__zeroStage=2), end(2), *RUNNING, *ITERATION],
    ),
    "turns": (
        {"sampler": {"rollStrategy": "Alternate"}, "em": {"iterations": 1}},
        [start, turns, start, turns, start, start, turns, start],
    ),
}


class Operator:
    """Goes through a script: passes until there is nothing to do, what happens next, and so on."""

    def __init__(self, name: str, most_passes: int = PASSES) -> None:
        spec, self.script = SCRIPTS[name]
        self.most_passes = most_passes
        self.cluster = Cluster(spec)
        self.position = 0
        """Of what happens next in the script."""
        self.passes = 0
        """Since something happened."""

    def go(self, steps: int | None = None, fault: Fault = "none") -> int | None:
        """One pass, cut off after some steps; number of its calls, None at the end of the script."""
        self.cluster.roll_out(ready=False)
        self.cluster.deliver()
        done = self.cluster.reconcile(steps, fault)
        calls = len(done.apply) + len(done.create) + len(done.delete) + (done.status is not None)
        self.passes += 1
        assert self.passes < self.most_passes, f"{self.passes} passes, and still there is something to do"
        if calls == 0:
            if self.position == len(self.script):
                return None
            self.script[self.position](self.cluster)
            self.position, self.passes = self.position + 1, 0
        return calls

    def finish(self, steps: int | None = None) -> dict[str, Any]:
        """Go to the end, by passes that are cut off after some steps; where the run is then, but for when it came
        there."""
        while self.go(steps, "none" if steps is None else "death") is not None:
            pass
        status, child = self.cluster.status, self.cluster.deployment()
        kept = (
            "phase",
            "attempt",
            "judgedAttempt",
            "restarts",
            "fruitlessRestarts",
            "unchargedEnds",
            "turn",
            "revisions",
        )
        return {
            "status": {key: status.get(key) for key in kept},
            "conditions": [(each["type"], each["status"], each["reason"]) for each in status["conditions"]],
            "samplers": child["spec"]["replicas"] if child else None,
            "objects": sorted(self.cluster.objects),
            "live": [number(job) for job in self.cluster.live()],
            "started": self.cluster.numbers,
        }


def faults(name: str) -> Iterator[tuple[str, Operator]]:
    """An operator after every way in which a pass can be cut off. How runs begin is left to one of the scripts."""
    operator, calls = Operator(name), 0
    while calls is not None:
        before = copy.deepcopy(operator)
        calls = operator.go()
        if operator.position < len(RUNNING) and name != "crashes" and operator.script[: len(RUNNING)] == RUNNING:
            continue
        for steps in range(calls or 0):
            for done, fault in ((steps, "death"), (steps + 1, "lost answer")):
                cut = copy.deepcopy(before)
                cut.go(done, fault)
                yield f"{fault} after {done} calls of a pass before act {before.position}", cut


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_run_comes_to_the_same_end(name: str) -> None:
    expected = Operator(name).finish()
    assert len(expected["started"]) == len(set(expected["started"]))
    for what, operator in faults(name):
        assert operator.finish() == expected, what


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", SCRIPTS)
def test_passes_that_all_are_cut_off_come_to_the_same_end(name: str, steps: int) -> None:
    assert Operator(name, most_passes=5 * PASSES).finish(steps) == Operator(name).finish()


def test_the_scripts_go_where_they_say() -> None:
    ends = {name: Operator(name).finish() for name in SCRIPTS}
    assert {name: end["status"]["phase"] for name, end in ends.items()} == {
        "crashes": "Starting",
        "one crash too many": "Failed",
        "evictions": "Sampling",
        "divergence": "Failed",
        "suspension": "Sampling",
        "a deleted job": "Sampling",
        "half a gang": "Sampling",
        "a lost node": "Sampling",
        "a lost node of a gang": "Sampling",
        "refused pods": "Sampling",
        "a deadline": "Failed",
        "completion, raised": "Complete",
        "completion, cleaned": "Restarting",
        "edits": "Sampling",
        "turns": "Complete",
    }
    assert ends["crashes"]["status"]["restarts"] == 2
    assert ends["evictions"]["status"]["unchargedEnds"] == 3
    for name in ("a lost node", "a lost node of a gang"):
        assert (ends[name]["started"], ends[name]["live"]) == ([1, 2], [2])
        assert (ends[name]["status"]["restarts"], ends[name]["status"]["unchargedEnds"]) == (0, 1)
    refused = ends["refused pods"]["status"]
    assert ends["refused pods"]["started"] == [1, 2, 3, 4]
    assert (refused["restarts"], refused["unchargedEnds"]) == (0, 3)
    assert ends["half a gang"]["started"] == [1, 2]
    assert ("Job", names.learner_job("demo", 1)) not in ends["completion, cleaned"]["objects"]
