"""PromQL of the series that belong to the run chosen at the top of a dashboard."""

from __future__ import annotations

SELECTOR = 'namespace="$namespace",empg_dev_run="$run"'
"""Labels that the operator's PodMonitor gives to all series of a run."""


def learner(name: str) -> str:
    """A gauge of the learner. `max`: after a restart the series of two pods overlap for a scrape."""
    return f"max(empg_learner_{name}{{{SELECTOR}}})"


def sampler_rate(name: str, by: str = "") -> str:
    """Rate of a counter over all samplers, apart by a label if one is given."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate(empg_sampler_{name}_total{{{SELECTOR}}}[$__rate_interval]))"


def hourly(counter: str) -> str:
    """What a counter gained in an hour, over all pods."""
    return f"sum(increase({counter}_total{{{SELECTOR}}}[1h]))"
