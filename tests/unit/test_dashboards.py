"""Every expression of dashboards and alerts is PromQL over series that our programs export."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml
from exported_metrics import exported

from empg_operator import names
from hack.dashboards import series
from hack.dashboards.all import DASHBOARDS
from hack.dashboards.grafana import COLUMNS, Dashboard, Panel, Query, Row, Variable, render

ALERTS = Path(__file__).parents[2] / "charts/empg/files/alerts.yaml"
EXPORTED = exported()
DURATIONS = {"$__rate_interval": "5m"}


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
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    for variable, value in DURATIONS.items():
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


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_an_expression_asks_for_series_that_exist(where: str, expression: str) -> None:
    asked = [selector.name for selector in selectors(expression)]
    assert asked
    assert set(asked) <= EXPORTED, f"{where} asks for series that nothing exports"


def test_series_of_a_run_are_chosen_by_the_label_that_its_pods_give_them() -> None:
    prometheus_label = re.sub(r"[^a-zA-Z0-9_]", "_", names.RUN_LABEL)
    assert f'{prometheus_label}="$run"' in series.SELECTOR
    for where, expression in expressions():
        for selector in selectors(expression):
            labels = {matcher.name for matcher in selector.matchers.matchers}
            if where.startswith("empg-run:") and not where.endswith(("namespace", "run")):
                assert {"namespace", prometheus_label} <= labels, where


def test_panels_lie_beside_each_other() -> None:
    for dashboard in DASHBOARDS:
        panels = render(dashboard)["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= COLUMNS
            columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            cells = set(itertools.product(columns, lines))
            assert not cells & taken, panel["title"]
            taken |= cells


def test_a_panel_says_what_it_shows_and_a_row_wraps() -> None:
    panels = [Panel(f"p{number}", "What it means.", [Query("up", "{{pod}}")], "s", least=0) for number in range(4)]
    board = Dashboard("u", "t", "d", [Variable("datasource", "Data source")], [Row("r", panels)])
    row, *placed = render(board)["panels"]
    assert row["type"] == "row"
    assert [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in placed] == [(0, 1), (8, 1), (16, 1), (0, 9)]
    assert placed[0]["description"] == "What it means."
    assert placed[0]["targets"][0]["expr"] == "up"
    assert placed[0]["fieldConfig"]["defaults"]["unit"] == "s"
    assert placed[0]["fieldConfig"]["defaults"]["min"] == 0
