"""Children that a run has from its start to its end."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from built_runs import PARENT, SETTINGS, built_run, fork

from empg.api.load import parse_run
from empg.api.run import EMPGRun, spec_digest
from empg.api.status import Lineage
from empg_operator import names
from empg_operator.builders.access import access
from empg_operator.builders.children import standing_children
from empg_operator.builders.config import config_map
from empg_operator.builders.monitor import pod_monitor
from empg_operator.builders.network import learner_service, network_policies
from empg_operator.builders.sampler import sampler_pod_template
from empg_operator.builders.storage import claim, claim_name, parent
from empg_operator.settings import Settings

Json = dict[str, Any]


def kinds(*children: Json) -> list[str]:
    return [f"{child['kind']} {child['metadata']['name']}" for child in children]


def document(run: EMPGRun, lineage: Lineage | None = None) -> EMPGRun:
    """The run as its programs read it."""
    return parse_run(config_map(run, lineage)["data"]["run.json"].encode(), "run.json")


def test_a_run_has_these_children_in_the_order_in_which_they_are_needed() -> None:
    always = [
        "ServiceAccount demo-sampler",
        "ServiceAccount demo-learner",
        "Role demo-learner",
        "RoleBinding demo-learner",
        "ConfigMap demo-run",
        "PersistentVolumeClaim demo-data",
        "Service demo-learner",
    ]
    run = built_run()
    assert kinds(*standing_children(run, SETTINGS, None, False)) == always
    assert kinds(*standing_children(run, SETTINGS, None, True)) == [*always, "PodMonitor demo"]
    policies = Settings(network_policies=True, api_server_cidrs=("10.0.0.1/32",), pod_monitors=False)
    assert kinds(*standing_children(run, policies, None, True)) == [
        *always,
        "NetworkPolicy demo-sampler",
        "NetworkPolicy demo-learner",
    ]


def test_all_children_are_found_by_label_and_go_with_the_run() -> None:
    settings = Settings(network_policies=True, api_server_cidrs=("10.0.0.1/32",))
    for child in standing_children(built_run(storage={"whenDeleted": "Delete"}), settings, None, True):
        metadata = child["metadata"]
        assert metadata["namespace"] == "team"
        assert metadata["labels"].items() >= {names.RUN_LABEL: "demo", names.MANAGED_BY_LABEL: "empg-operator"}.items()
        assert metadata["ownerReferences"] == [
            {
                "apiVersion": "empg.dev/v1alpha1",
                "kind": "EMPGRun",
                "name": "demo",
                "uid": "uid-of-demo",
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]


def test_a_claim_outlives_the_run_unless_it_is_to_be_deleted() -> None:
    built = claim(built_run(storage={"size": "5Gi", "storageClassName": "fast", "accessMode": "ReadWriteOnce"}))
    assert built is not None
    assert "ownerReferences" not in built["metadata"]
    assert built["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "5Gi"}},
        "storageClassName": "fast",
    }
    plain = claim(built_run())
    assert plain is not None
    assert "storageClassName" not in plain["spec"]
    shared = built_run(storage={"claimName": "shared"})
    assert claim(shared) is None
    assert claim_name(shared) == "shared"


@pytest.mark.parametrize(
    ("run", "claim", "directory"),
    [
        (fork(name="base"), "base-data", "/var/lib/empg-parent/base"),
        (fork(runDir="old/run/", claimName="archive"), "archive", "/var/lib/empg-parent/old/run"),
        (fork(runDir="old"), "demo-data", "/var/lib/empg/old"),
        (fork(runDir="/old", claimName="demo-data"), "demo-data", "/var/lib/empg/old"),
    ],
)
def test_the_parent_is_where_its_claim_is_mounted(run: EMPGRun, claim: str, directory: str) -> None:
    found = parent(run, PARENT)
    assert found is not None
    assert (found.claim, found.directory) == (claim, directory)
    assert parent(built_run(), None) is None


def test_a_parent_on_the_same_claim_is_read_there() -> None:
    origin = {"fromRun": {"name": "base"}}
    found = parent(built_run(model=origin, storage={"claimName": "base-data"}), PARENT)
    assert found is not None
    assert found.directory == "/var/lib/empg/base"


def test_the_programs_read_the_run_as_it_is() -> None:
    run = built_run(
        objective={"preset": "grpo"}, sampler={"replicas": 3, "podTemplate": {"spec": {"hostNetwork": True}}}
    )
    assert document(run).spec == run.spec
    assert document(run).metadata == run.metadata


def test_the_programs_read_nothing_that_is_at_its_default() -> None:
    assert set(json.loads(config_map(built_run(), None)["data"]["run.json"])["spec"]) == {"model", "task", "em"}


def test_the_devices_of_one_machine_are_not_those_of_a_pod() -> None:
    run = built_run(learner={"devices": [2, 3], "processes": 2}, sampler={"devices": [1]})
    assert document(run).spec.learner.devices == document(run).spec.sampler.devices == ()
    assert document(run).spec.learner.processes == 2


@pytest.mark.parametrize(
    ("run", "directory", "policy"),
    [
        (fork(name="base"), "/var/lib/empg-parent/base", 3),
        (fork(runDir="old", claimName="archive", policy=9), "/var/lib/empg-parent/old", 9),
        (fork(runDir="old"), "/var/lib/empg/old", None),
    ],
)
def test_a_fork_reads_where_its_parent_is_and_nothing_of_the_cluster(
    run: EMPGRun, directory: str, policy: int | None
) -> None:
    source = document(run, PARENT).spec.model.from_run
    assert source is not None
    assert (source.run_dir, source.policy) == (directory, policy)
    assert source.name is source.claim_name is None


def test_live_edits_leave_the_digest_as_it_was() -> None:
    before = document(fork(name="base"), PARENT)
    edited = document(
        built_run(model={"fromRun": {"name": "base"}}, em={"iterations": 9}, storage={"size": "900Gi"}), PARENT
    )
    assert spec_digest(before.spec) == spec_digest(edited.spec)
    assert edited.spec.em.iterations == 9


def test_pods_may_read_their_own_run_and_write_its_status_and_nothing_else() -> None:
    sampler, learner, role, binding = access(built_run())
    assert kinds(sampler, learner) == ["ServiceAccount demo-sampler", "ServiceAccount demo-learner"]
    assert sampler["automountServiceAccountToken"] is learner["automountServiceAccountToken"] is False
    named = {"apiGroups": ["empg.dev"], "resourceNames": ["demo"]}
    assert role["rules"] == [
        {**named, "resources": ["empgruns"], "verbs": ["get"]},
        {**named, "resources": ["empgruns/status"], "verbs": ["patch"]},
    ]
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "demo-learner"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "demo-learner", "namespace": "team"}]


def test_samplers_may_only_where_they_report() -> None:
    assert kinds(*access(built_run(sampler={"rollStrategy": "Alternate"}))) == [
        "ServiceAccount demo-sampler",
        "Role demo-sampler",
        "RoleBinding demo-sampler",
        "ServiceAccount demo-learner",
        "Role demo-learner",
        "RoleBinding demo-learner",
    ]


def test_an_account_of_the_users_own_may_report_too() -> None:
    *_, binding = access(built_run(learner={"podTemplate": {"spec": {"serviceAccountName": "cloud"}}}))
    assert [subject["name"] for subject in binding["subjects"]] == ["demo-learner", "cloud"]
    *_, binding = access(built_run(learner={"podTemplate": {"spec": "nonsense"}}))
    assert [subject["name"] for subject in binding["subjects"]] == ["demo-learner"]


def test_learners_find_each_other_before_they_are_ready() -> None:
    run = built_run()
    service = learner_service(run)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == names.selector("demo", "learner")


def policies(run: EMPGRun, **settings: Any) -> dict[str, Json]:
    chosen = Settings(**{"network_policies": True, "api_server_cidrs": ("10.0.0.1/32",), **settings})
    built = network_policies(run, chosen)
    return {policy["metadata"]["name"]: policy["spec"] for policy in built}


DNS = {"ports": [{"protocol": protocol, "port": port} for port in (53, 5353) for protocol in ("UDP", "TCP")]}
METRICS = {"ports": [{"protocol": "TCP", "port": 9464}]}
GANG = [{"podSelector": {"matchLabels": names.selector("demo", "learner")}}]
API = {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}


def test_pods_talk_to_whom_they_need_and_nobody_else() -> None:
    more = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 443}]}
    found = policies(built_run(), extra_egress=(more,))
    sampler, learner = found["demo-sampler"], found["demo-learner"]
    assert sampler["podSelector"] == {"matchLabels": names.selector("demo", "sampler")}
    assert (sampler["ingress"], sampler["egress"]) == ([METRICS], [DNS, more])
    assert (learner["ingress"], learner["egress"]) == ([METRICS, {"from": GANG}], [DNS, {"to": GANG}, API, more])
    assert sampler["policyTypes"] == learner["policyTypes"] == ["Ingress", "Egress"]


def test_only_pods_that_report_reach_the_api_server() -> None:
    found = policies(built_run(sampler={"rollStrategy": "Alternate"}))
    assert API in found["demo-sampler"]["egress"]


def test_without_metrics_nothing_comes_in_but_learners() -> None:
    found = policies(built_run(sampler={"metricsPort": 0}, learner={"metricsPort": 0}))
    assert "ingress" not in found["demo-sampler"]
    assert found["demo-learner"]["ingress"] == [{"from": GANG}]


def test_prometheus_finds_the_pods_of_the_run() -> None:
    run = built_run()
    monitor = pod_monitor(run, Settings(pod_monitor_labels={"release": "prometheus"}))
    assert monitor is not None
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected.items() <= sampler_pod_template(run, SETTINGS, None)["metadata"]["labels"].items()
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"
    silent = built_run(sampler={"metricsPort": 0}, learner={"metricsPort": 0})
    assert pod_monitor(silent, SETTINGS) is None
    assert pod_monitor(built_run(sampler={"metricsPort": 0}), SETTINGS) is not None


@pytest.mark.parametrize(
    ("labels", "kept"), [("learner;0", True), ("learner;1", False), ("learner;10", False), ("sampler;", True)]
)
def test_of_the_learner_only_the_first_node_is_asked(labels: str, kept: bool) -> None:
    monitor = pod_monitor(built_run(), SETTINGS)
    assert monitor is not None
    (rule,) = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]
    assert rule["action"] == "drop"
    assert (re.fullmatch(rule["regex"], labels) is None) == kept
