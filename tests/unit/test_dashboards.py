"""Every expression of dashboards and alerts is PromQL over series that our programs export."""

from __future__ import annotations

import itertools
import re

import pytest
from exported_metrics import exported

from empg_operator import names
from hack.dashboards import series
from hack.dashboards.all import DASHBOARDS
from hack.dashboards.asked import expressions, selectors
from hack.dashboards.grafana import COLUMNS, Dashboard, Panel, Query, Row, Variable, render

EXPORTED = exported()


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
