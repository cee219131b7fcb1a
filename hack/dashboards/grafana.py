"""The little of Grafana's dashboard format that we use, and the layout of panels on its grid of 24 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
Kind = Literal["timeseries", "stat"]


@dataclass(frozen=True)
class Query:
    """One PromQL expression and what its series are called (`{{label}}` is a label's value)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel. Its description says what the figure means, not how it is queried."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    """Grafana's name: `s`, `percentunit`, `bytes`, `short`."""
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    least: float | None = None
    """Lower end of the axis."""
    most: float | None = None
    """Upper end of the axis."""


@dataclass(frozen=True)
class Row:
    """A row that can be folded, with the panels below it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: the values of a label, or a data source."""

    name: str
    label: str
    query: str = ""
    """`label_values(metric{…}, label)`; empty: a Prometheus data source."""
    several: bool = False
    """Whether several values, and all of them, may be chosen."""


@dataclass(frozen=True)
class Dashboard:
    """A whole dashboard."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    refresh: str = "30s"
    tags: Sequence[str] = field(default=("empg",))


def render(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in dashboard.rows:
        panels.append(_place({"type": "row", "title": row.title, "collapsed": False}, len(panels), 0, top, 24, 1))
        top += 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            panels.append(_place(_panel(panel), len(panels), left, top, panel.width, panel.height))
            left, height = left + panel.width, max(height, panel.height)
        top += height
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": list(dashboard.tags),
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": dashboard.refresh,
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_variable(variable) for variable in dashboard.variables]},
        "links": [
            {"type": "dashboards", "title": "EMPG", "tags": ["empg"], "asDropdown": True, "includeVars": True},
        ],
        "panels": panels,
    }


def _place(panel: dict[str, Any], number: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"id": number + 1, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "noValue": "no data"}
    if panel.least is not None:
        defaults["min"] = panel.least
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "showPoints": "never",
            # A figure of an iteration is a point in time, and iterations may lie far apart.
            "spanNulls": True,
        }
    options: dict[str, Any] = (
        {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area", "colorMode": "value"}
        if panel.kind == "stat"
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    )
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "range": True,
            }
            for number, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def _variable(variable: Variable) -> dict[str, Any]:
    if not variable.query:
        return {"name": variable.name, "label": variable.label, "type": "datasource", "query": "prometheus"}
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "multi": variable.several,
        "includeAll": variable.several,
    }
