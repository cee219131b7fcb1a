"""One exit code for many ranks, and how nodes find each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from empg_trainer.distributed import device_of, trains_on_gpus
from empg_trainer.launcher import gravest, rendezvous
from empg_trainer.stop import BadSpec


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], 0),
        ([0, 0], 0),
        ([75, 0], 75),
        ([75, 1], 1),
        ([1, 64, 75], 64),
        ([1, 64, 65], 65),
        ([-9, 1], 137),
        ([-15, 75], 143),
        ([75, 76, 75], 76),
        ([76, 1], 1),
    ],
)
def test_the_gravest_code_wins(codes, expected):
    assert gravest(codes) == expected


def test_nodes_meet_at_the_master():
    assert rendezvous({"MASTER_ADDR": "run-0.run", "JOB_COMPLETION_INDEX": "1"}, 2) == (1, "run-0.run", 29400)
    assert rendezvous({"MASTER_ADDR": "a", "MASTER_PORT": "5", "NODE_RANK": "0"}, 2) == (0, "a", 5)


@pytest.mark.parametrize("environment", [{}, {"MASTER_ADDR": "a"}, {"NODE_RANK": "0"}])
def test_missing_variables_are_named(environment):
    with pytest.raises(ValueError, match="MASTER_ADDR"):
        rendezvous(environment, 2)


def test_a_node_beyond_the_last_is_refused():
    with pytest.raises(ValueError, match=r"learner\.nodes: 2"):
        rendezvous({"MASTER_ADDR": "a", "NODE_RANK": "2"}, 2)


@pytest.mark.parametrize(
    ("usable", "present", "visible", "expected"),
    [
        (True, True, None, True),
        (True, True, "1", True),
        (True, False, None, True),  # a virtual machine of Windows
        (False, False, None, False),
        (False, True, "", False),
    ],
)
def test_it_trains_on_gpus_that_can_be_used(usable, present, visible, expected):
    assert trains_on_gpus(usable, present, visible) is expected


@pytest.mark.parametrize("visible", [None, "0"])
def test_gpus_that_cannot_be_used_are_no_reason_to_train_on_the_cpu(visible):
    with pytest.raises(RuntimeError, match="the driver may be too old"):
        trains_on_gpus(usable=False, present=True, visible=visible)


def test_each_rank_has_a_gpu_of_its_own_or_none_has():
    assert [str(device_of(rank, 2)) for rank in (0, 1)] == ["cuda:0", "cuda:1"]
    assert str(device_of(1, 0)) == "cpu"
    with pytest.raises(BadSpec, match=r"learner\.processes: 3 or more need a GPU each, but this node shows 2"):
        device_of(2, 2)


@pytest.mark.parametrize(
    ("learner", "options", "said"),
    [
        ("{processes: 2}", [], "learner.processes 2 x learner.nodes 1 make 2 ranks"),
        ("{}", ["--nodes", "3"], "learner.processes 1 x learner.nodes 3 make 3 ranks"),
    ],
)
def test_a_rank_without_a_number_never_trains_for_many(
    tmp_path: Path, learner: str, options: list[str], said: str
) -> None:
    (tmp_path / "manifest.json").write_text(
        "apiVersion: empg.dev/v1alpha1\nkind: EMPGRun\nmetadata: {name: n}\nspec:\n"
        "  {model: {name: base}, task: {name: arithmetic}, em: {iterations: 1}, learner: " + learner + "}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    command = [sys.executable, "-m", "empg_trainer.worker", str(tmp_path), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 64, done.stderr
    assert f"{said}, but RANK is not set and this process would train as 1" in done.stderr
