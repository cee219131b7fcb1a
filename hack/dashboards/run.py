"""The dashboard of one run: is it learning, and where does its time go."""

from __future__ import annotations

from hack.dashboards.grafana import Dashboard, Panel, Query, Row, Variable
from hack.dashboards.learner_rows import LEARNING, TIME
from hack.dashboards.sampler_rows import ENGINES, SAMPLING
from hack.dashboards.series import SELECTOR, learner


def _stat(title: str, description: str, expr: str, unit: str = "short") -> Panel:
    return Panel(title, description, [Query(expr)], unit, kind="stat", width=3, height=4)


OVERVIEW = Row(
    "Overview",
    [
        _stat("Iteration", "Newest iteration that is complete.", learner("iteration")),
        _stat("Reward", "Mean reward of the newest iteration.", learner("reward_mean")),
        _stat("Accuracy", "Share of right answers in the newest iteration.", learner("accuracy_ratio"), "percentunit"),
        _stat(
            "Held-out accuracy",
            "Greedy accuracy of the newest evaluated policy on held-out problems.",
            learner("evaluation_accuracy_ratio"),
            "percentunit",
        ),
        _stat("Policy", "Newest published policy version.", learner("policy_version")),
        _stat("Tokens/s", "Response tokens per second, over whole iterations.", learner("response_tokens_per_second")),
        _stat(
            "Samplers",
            "Samplers whose engine holds a policy.",
            f"count(empg_sampler_policy_version{{{SELECTOR}}}) or vector(0)",
        ),
        _stat("Staleness", "Mean age of the sampling policy in versions, over tokens.", learner("staleness_mean")),
    ],
)

RUN = Dashboard(
    uid="empg-run",
    title="EMPG run",
    description="One EMPGRun: what it learns, what its samplers do and where its time goes.",
    variables=[
        Variable("datasource", "Data source"),
        Variable("namespace", "Namespace", "label_values(empg_learner_iterations_total, namespace)"),
        Variable("run", "Run", 'label_values(empg_learner_iterations_total{namespace="$namespace"}, empg_dev_run)'),
    ],
    rows=[OVERVIEW, LEARNING, SAMPLING, TIME, ENGINES],
)
