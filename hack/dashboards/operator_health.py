"""The dashboard of the operator: is it keeping up, and how are the runs it looks after."""

from __future__ import annotations

from hack.dashboards.grafana import Dashboard, Panel, Query, Row, Variable

SELECTOR = 'namespace=~"$namespace"'
"""Of the runs' namespaces; series about the operator itself carry the operator's."""


def _quantiles(histogram: str, by: str = "") -> list[Query]:
    grouping = f"le, {by}" if by else "le"
    return [
        Query(
            f"histogram_quantile({quantile}, sum by ({grouping}) (rate({histogram}_bucket[$__rate_interval])))",
            f"p{quantile * 100:g}" + (f" {{{{{by}}}}}" if by else ""),
        )
        for quantile in (0.5, 0.99)
    ]


RUNS = Row(
    "Runs",
    [
        Panel(
            "Runs by phase",
            "Runs in every phase.",
            [Query(f"sum by (phase) (empg_run_phase{{{SELECTOR}}}) > 0", "{{phase}}")],
            width=12,
            stacked=True,
            least=0,
        ),
        Panel(
            "Progress",
            "Share of the iterations asked for that are done.",
            [
                Query(
                    f"max by (namespace, name) (empg_run_iteration{{{SELECTOR}}}) / "
                    f"max by (namespace, name) (empg_run_iterations{{{SELECTOR}}})",
                    "{{namespace}}/{{name}}",
                )
            ],
            "percentunit",
            width=12,
            least=0,
            most=1,
        ),
        Panel(
            "Crashes",
            "Crashes of learners in an hour. Evictions and suspensions are none.",
            [
                Query(
                    f"sum by (namespace, name) (delta(empg_run_restarts{{{SELECTOR}}}[1h])) > 0",
                    "{{namespace}}/{{name}}",
                )
            ],
            width=12,
            least=0,
        ),
        Panel(
            "Samplers",
            "Sampler pods that are wanted, and those whose engine holds a policy.",
            [
                Query(f"sum(max by (namespace, name) (empg_run_samplers_desired{{{SELECTOR}}}))", "wanted"),
                Query(f"sum(max by (namespace, name) (empg_run_samplers_ready{{{SELECTOR}}}))", "ready"),
            ],
            width=12,
            least=0,
        ),
    ],
)

LOOP = Row(
    "Reconciliation",
    [
        Panel(
            "Passes",
            "Passes over a run per second, by result.",
            [Query("sum by (result) (rate(empg_operator_reconcile_total[$__rate_interval]))", "{{result}}")],
            stacked=True,
            least=0,
        ),
        Panel(
            "Time of a pass",
            "From observation to the last write.",
            _quantiles("empg_operator_reconcile_seconds"),
            "s",
            least=0,
        ),
        Panel(
            "Time in the queue",
            "From the event to the beginning of the pass over its run.",
            _quantiles("empg_operator_workqueue_latency_seconds"),
            "s",
            least=0,
        ),
        Panel(
            "Queue depth",
            "Runs that wait for a worker.",
            [Query("max(empg_operator_workqueue_depth)", "runs")],
            least=0,
        ),
        Panel(
            "Watches",
            "Time since the watch of a resource last showed a sign of life. It falls back to 0 at least as often as "
            "the API server ends its streams.",
            [Query("max by (resource) (empg_operator_watch_last_event_age_seconds)", "{{resource}}")],
            "s",
            least=0,
        ),
        Panel(
            "Objects",
            "Objects in the cache.",
            [Query("max by (kind) (empg_operator_cached_objects)", "{{kind}}")],
            least=0,
        ),
    ],
)

SERVER = Row(
    "API server and process",
    [
        Panel(
            "Requests",
            "Requests to the API server per second, by verb and status.",
            [
                Query(
                    "sum by (verb, code) (rate(empg_operator_api_requests_total[$__rate_interval]))",
                    "{{verb}} {{code}}",
                )
            ],
            stacked=True,
            least=0,
        ),
        Panel(
            "Time of a request",
            "As the operator sees it.",
            _quantiles("empg_operator_api_request_seconds", "verb"),
            "s",
            least=0,
        ),
        Panel(
            "Memory",
            "Resident memory of the operator.",
            [
                Query(
                    "process_resident_memory_bytes and on (namespace, pod) empg_operator_workqueue_depth",
                    "{{pod}}",
                )
            ],
            "bytes",
            least=0,
        ),
    ],
)

OPERATOR = Dashboard(
    uid="empg-operator",
    title="EMPG operator",
    description="The operator of EMPGRuns: its queue, its requests and the runs it looks after.",
    variables=[
        Variable("datasource", "Data source"),
        Variable("namespace", "Namespace of runs", "label_values(empg_run_info, namespace)", several=True),
    ],
    rows=[RUNS, LOOP, SERVER],
)
