"""Learning-rate schedule."""

import pytest

from empg.api.optimizer import OptimizerSpec
from empg_trainer.schedule import learning_rate


def rates(iterations, **knobs):
    spec = OptimizerSpec(learning_rate=1.0, **knobs)
    return [learning_rate(spec, t, iterations) for t in range(iterations)]


def test_constant():
    assert rates(4) == [1.0, 1.0, 1.0, 1.0]


def test_warm_up_rises_linearly_and_never_starts_at_zero():
    assert rates(5, warmup_iterations=3) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_linear_ends_at_the_lowest_share():
    assert rates(5, schedule="linear", min_learning_rate_ratio=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine_is_halfway_in_the_middle():
    assert rates(3, schedule="cosine") == pytest.approx([1.0, 0.5, 0.0])


def test_warm_up_and_decay_join():
    assert rates(5, schedule="linear", warmup_iterations=1) == pytest.approx([0.5, 1.0, 2 / 3, 1 / 3, 0.0])


def test_a_run_of_one_iteration_trains_at_the_peak():
    assert rates(1, schedule="cosine") == [1.0]


def test_a_shortened_run_stays_at_the_lowest_rate():
    spec = OptimizerSpec(learning_rate=1.0, schedule="linear", min_learning_rate_ratio=0.1)
    assert learning_rate(spec, 9, iterations=5) == pytest.approx(0.1)
