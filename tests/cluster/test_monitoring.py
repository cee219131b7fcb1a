"""The Prometheus operator's own definitions take what chart and operator make for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chart import MONITORING, VALUES, notes, render
from run_documents import run

from empg.api.load import parse_run
from empg_operator import names
from empg_operator.builders.monitor import pod_monitor
from empg_operator.drift import drifted
from empg_operator.kinds import POD_MONITOR
from empg_operator.settings import Settings
from hack.controlplane.access import Access
from hack.rest import ApiError, Document, Rest

PLURALS = {"ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules"}
STRICT = {"fieldManager": names.FIELD_MANAGER, "force": "true", "fieldValidation": "Strict", "dryRun": "All"}


@pytest.fixture
def rest(control_plane: Access, monitoring: None) -> Rest:
    return Rest(control_plane.kubeconfig, "test-monitoring")


def apply(rest: Rest, path: str, document: Document) -> Document:
    return rest.patch(path, document, "apply", **STRICT)


@pytest.mark.parametrize("values", [path for path in VALUES if "minimal" not in path.name], ids=lambda path: path.stem)
def test_monitors_and_rules_of_the_chart_are_taken(
    control_plane: Access, rest: Rest, namespace: str, values: Any
) -> None:
    objects = render(control_plane, "--values", str(values), namespace=namespace)
    ours = [each for each in objects if each["apiVersion"] == MONITORING]
    assert {each["kind"] for each in ours} == PLURALS.keys()
    for each in ours:
        path = f"/apis/{MONITORING}/namespaces/{namespace}/{PLURALS[each['kind']]}/{each['metadata']['name']}"
        taken = apply(rest, path, each)
        assert taken["spec"].keys() == each["spec"].keys()
        with pytest.raises(ApiError, match="surprise"):
            apply(rest, path, {**each, "spec": {**each["spec"], "surprise": 1}})


def test_the_notes_warn_of_an_alert_about_an_operator_that_nobody_scrapes(
    control_plane: Access, monitoring: None
) -> None:
    rules, monitor = "prometheusRule.enabled=true", "metrics.serviceMonitor.enabled=true"
    warned = {
        values: "EMPGOperatorDown" in notes(control_plane, "--set", values)
        for values in (rules, monitor, f"{rules},{monitor}")
    }
    assert warned == {rules: True, monitor: False, f"{rules},{monitor}": False}


def test_the_monitor_of_a_run_is_taken_and_found_again_as_it_was_applied(rest: Rest, namespace: str) -> None:
    document = run("demo")
    document["metadata"] |= {"namespace": namespace, "uid": "00000000-0000-0000-0000-000000000001"}
    made = pod_monitor(parse_run(json.dumps(document).encode(), "test"), Settings(pod_monitor_labels={"release": "p"}))
    assert made is not None
    path = POD_MONITOR.path(namespace, "demo")
    assert drifted(made, apply(rest, path, made)) is False
    [endpoint] = made["spec"]["podMetricsEndpoints"]
    [relabeling] = endpoint["relabelings"]
    wrong = {**endpoint, "relabelings": [{**relabeling, "action": "forget"}]}
    with pytest.raises(ApiError, match="action"):
        apply(rest, path, {**made, "spec": {**made["spec"], "podMetricsEndpoints": [wrong]}})
