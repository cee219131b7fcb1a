"""All dashboards."""

from __future__ import annotations

from hack.dashboards.operator_health import OPERATOR
from hack.dashboards.run import RUN

DASHBOARDS = (RUN, OPERATOR)
