"""What a scrape of the learner shows."""

from prometheus_client import generate_latest

from empg_trainer.metrics_server import LearnerMetrics


def _scrape(metrics: LearnerMetrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_a_gauge_appears_with_its_first_value() -> None:
    metrics = LearnerMetrics()
    assert not [name for name in _scrape(metrics) if "reward" in name]
    metrics.observe({"iteration": 3, "reward_mean": 0.25, "ratio_max": 1.5, "accuracy": None})
    shown = _scrape(metrics)
    assert shown["empg_learner_reward_mean"] == 0.25
    assert shown["empg_learner_importance_ratio_max"] == 1.5
    assert "empg_learner_accuracy_ratio" not in shown
    metrics.observe({"iteration": 4, "reward_mean": None})
    assert _scrape(metrics)["empg_learner_reward_mean"] == 0.25


def test_only_iterations_are_counted_as_iterations() -> None:
    metrics = LearnerMetrics()
    metrics.observe({"iteration": 0, "tokens": 100, "seconds_learning": 2.5}, {"iterations": 1, "tokens": 100})
    metrics.observe({"eval_greedy": 0.5})
    shown = _scrape(metrics)
    assert shown["empg_learner_iterations_total"] == 1
    assert shown["empg_learner_response_tokens_total"] == 100
    assert shown['empg_learner_phase_seconds{phase="learning"}'] == 2.5
    assert shown["empg_learner_evaluation_accuracy_ratio"] == 0.5


def test_a_replayed_iteration_counts_once_however_often_it_was_replayed_before() -> None:
    metrics = LearnerMetrics()
    metrics.observe({"iteration": 0, "tokens": 100, "replayed": 3, "reward_mean": 0.5}, {"replayed": 1, "diverged": 0})
    shown = _scrape(metrics)
    assert shown["empg_learner_replayed_iterations_total"] == 1
    assert shown["empg_learner_iterations_total"] == 0
    assert shown["empg_learner_response_tokens_total"] == 0
    assert shown["empg_learner_reward_mean"] == 0.5
