"""What dashboards and alerts ask of Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import yaml

from hack.dashboards.all import DASHBOARDS

_ALERTS = Path(__file__).parents[2] / "charts/empg/files/alerts.yaml"
_DURATIONS = {"$__rate_interval": "5m"}


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of every query and alert."""
    for dashboard in DASHBOARDS:
        for row in dashboard.rows:
            for panel in row.panels:
                yield from ((f"{dashboard.uid}: {panel.title}", query.expr) for query in panel.queries)
        for variable in dashboard.variables:
            if variable.query:
                vector = re.fullmatch(r"label_values\((.*), \w+\)", variable.query)
                assert vector, variable.query
                yield f"{dashboard.uid}: {variable.name}", vector[1]
    for group in yaml.safe_load(_ALERTS.read_text())["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """The series that an expression asks for."""
    for variable, value in _DURATIONS.items():
        expression = expression.replace(variable, value)
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    yield from found
