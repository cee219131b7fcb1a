"""TensorBoard itself reads what is written for it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from empg.rundir.evaluations import EvaluationResult
from empg.store.posix import PosixStore
from empg_trainer.event_files import EventFiles, scalars_file


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each tag, as TensorBoard shows them."""
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, pytest.approx(event.value)) for event in accumulator.Scalars(tag)] for tag in tags}


def result(policy: int, greedy: float | None, average: float | None = None) -> EvaluationResult:
    return EvaluationResult(policy=policy, greedy=greedy, average=average, prompts=8, missing=greedy is None)


def test_figures_and_evaluations_are_shown(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    rows = {
        0: {"iteration": 0, "reward_mean": 0.25, "grad_norm": None, "tokens": 100, "note": "text"},
        1: {"iteration": 1, "reward_mean": 0.5, "grad_norm": float("nan"), "tokens": 1 << 40},
    }
    EventFiles(store).mirror(rows, {0: result(0, 0.4, 0.3), 10: result(10, None)})
    assert scalars(tmp_path / "tensorboard") == {
        "train/reward_mean": [(0, 0.25), (1, 0.5)],
        "train/tokens": [(0, 100), (1, 1 << 40)],
    }
    assert scalars(tmp_path / "tensorboard" / "eval") == {"eval/greedy": [(0, 0.4)], "eval/average": [(0, 0.3)]}


def test_nothing_is_written_twice_and_what_lacks_is_made_up_for(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    before, after = EventFiles(store), EventFiles(store)
    before.mirror({0: {"loss": 1.0}}, {})
    before.mirror({0: {"loss": 8.0}, 1: {"loss": 2.0}}, {})
    after.mirror({0: {"loss": 9.0}, 1: {"loss": 9.0}, 2: {"loss": 3.0}, 300: {"loss": 4.0}}, {2: result(2, 0.5)})
    assert scalars(tmp_path / "tensorboard") == {"train/loss": [(0, 1.0), (1, 2.0), (2, 3.0), (300, 4.0)]}
    assert scalars(tmp_path / "tensorboard" / "eval") == {"eval/greedy": [(2, 0.5)]}


@settings(deadline=None)
@given(
    step=st.integers(0, 1 << 40),
    wall_time=st.floats(0, 1e10),
    values=st.dictionaries(st.text(min_size=1), st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5),
)
def test_a_file_holds_what_it_was_made_of(
    tmp_path_factory: pytest.TempPathFactory, step: int, wall_time: float, values: dict[str, float]
) -> None:
    path = tmp_path_factory.mktemp("events") / "events.out.tfevents.0"
    path.write_bytes(scalars_file(step, wall_time, values))
    version, event = EventFileLoader(str(path)).Load()
    assert version.file_version == "brain.Event:2"
    assert (event.step, event.wall_time) == (step, wall_time)
    assert {value.tag: value.tensor.float_val[0] for value in event.summary.value} == values
