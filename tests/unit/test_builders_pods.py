"""Pod templates: what the programs are told, what they find, and what holds whatever `podTemplate` says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from built_runs import PARENT, SETTINGS, built_run, fork
from hypothesis import given, settings
from hypothesis import strategies as st

from empg.api.run import EMPGRun
from empg_operator import names
from empg_operator.builders.learner import learner_job, learner_pod_template
from empg_operator.builders.sampler import sampler_deployment, sampler_pod_template
from empg_operator.settings import Settings
from empg_sampler.main import _parse as parse_sampler
from empg_trainer.arguments import parser as learner_parser

Json = dict[str, Any]
BUILDERS: dict[names.Role, Callable[..., Json]] = {"sampler": sampler_pod_template, "learner": learner_pod_template}
KUBERNETES_MD = Path(__file__).parents[2] / "docs/kubernetes.md"
ROLES = pytest.mark.parametrize("role", BUILDERS)


def template(role: names.Role, patch: Json | None = None, run: EMPGRun | None = None, **section: Any) -> Json:
    run = run or built_run(**{role: {**section, "podTemplate": patch or {}}})
    return BUILDERS[role](run, SETTINGS, PARENT)


def container(built: Json, name: str) -> Json:
    return next(container for container in built["spec"]["containers"] if container["name"] == name)


def variables(built: Json, role: str) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container(built, role)["env"]}


def mounts(built: Json, role: str) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container(built, role)["volumeMounts"]}


def volumes(built: Json) -> dict[str, Json]:
    return {volume["name"]: volume for volume in built["spec"]["volumes"]}


def patched(name: str, **fields: Any) -> Json:
    return {"spec": {"containers": [{"name": name, **fields}]}}


def test_the_learner_understands_what_it_is_told() -> None:
    run = built_run(learner={"processes": 8, "nodes": 4}, sampler={"rollStrategy": "Alternate"}, em={"iterations": 1})
    job = learner_job(run, learner_pod_template(run, SETTINGS, None), 7, "demo-learner-1")
    ours = container(job["spec"]["template"], "learner")
    assert ours["command"] == ["empg-learner"]
    given = learner_parser().parse_args(ours["args"])
    assert (str(given.run_dir), str(given.spec), str(given.base_dir)) == (
        "/var/lib/empg/demo",
        "/etc/empg/run.json",
        "/var/lib/empg",
    )
    assert (given.processes, given.nodes, given.attempt, given.metrics_port) == (8, 4, 7, 9464)
    assert (given.report, given.alternate, given.samplers_sleep) == (True, True, False)
    told = variables(job["spec"]["template"], "learner")
    assert (told["EMPG_RUN"], told["EMPG_NAMESPACE"]) == ("demo", "team")
    assert (told["MASTER_ADDR"], told["MASTER_PORT"]) == ("demo-learner-7-0.demo-learner", "29400")
    assert job["spec"]["template"]["spec"]["subdomain"] == "demo-learner"


def test_the_learner_takes_turns_only_where_it_is_to() -> None:
    assert "--alternate" not in container(template("learner"), "learner")["args"]


@pytest.mark.parametrize(
    ("strategy", "policy", "attempt"), [("InPlace", None, None), ("RollingUpdate", 5, None), ("Alternate", None, 3)]
)
def test_the_sampler_understands_what_it_is_told(strategy: str, policy: int | None, attempt: int | None) -> None:
    run = built_run(sampler={"rollStrategy": strategy, "metricsPort": 1234})
    built = sampler_deployment(run, sampler_pod_template(run, SETTINGS, None), 2, "demo-sampler-1", policy, attempt)
    pods = built["spec"]["template"]
    ours = container(pods, "sampler")
    assert ours["command"] == ["empg-sampler"]
    given = parse_sampler(ours["args"])
    assert (str(given.run_dir), str(given.spec)) == ("/var/lib/empg/demo", "/etc/empg/run.json")
    assert (given.id, given.metrics_port, given.policy) == ("$(POD_NAME)", 1234, policy)
    assert (given.report, given.sleep_while_learning) == (strategy == "Alternate", False)
    assert ours["env"][0] == {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    told = variables(pods, "sampler")
    reports = {"EMPG_RUN": "demo", "EMPG_NAMESPACE": "team", "EMPG_ATTEMPT": "3"} if strategy == "Alternate" else {}
    assert {name: value for name, value in told.items() if name.startswith("EMPG_")} == reports
    assert pods["spec"]["automountServiceAccountToken"] is (strategy == "Alternate")
    assert pods["metadata"]["annotations"].get("empg.dev/policy") == (str(policy) if policy is not None else None)


@ROLES
def test_pods_are_confined(role: names.Role) -> None:
    built = template(role)
    assert built["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(built, role)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert built["spec"]["enableServiceLinks"] is False
    assert built["spec"]["serviceAccountName"] == f"demo-{role}"


@ROLES
def test_all_that_is_written_has_a_place(role: names.Role) -> None:
    """The root file system is read-only: every directory of a variable lies in a volume."""
    built = template(role)
    writable = [path for path in mounts(built, role) if path != names.SPEC_DIR]
    assert set(writable) == {"/var/lib/empg", "/tmp", "/dev/shm"}
    places = {name: value for name, value in variables(built, role).items() if value.startswith("/")}
    assert {"HOME", "HF_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"} <= set(places)
    assert all(value.startswith("/tmp") for value in places.values())
    assert volumes(built)["shm"] == {"name": "shm", "emptyDir": {"medium": "Memory"}}
    # A subPath would never show an edit of the run.
    spec = next(mount for mount in container(built, role)["volumeMounts"] if mount["name"] == "spec")
    assert spec == {"name": "spec", "mountPath": "/etc/empg", "readOnly": True}
    assert volumes(built)["spec"]["configMap"] == {"name": "demo-run"}
    assert volumes(built)["run"]["persistentVolumeClaim"] == {"claimName": "demo-data"}


@pytest.mark.parametrize(
    ("role", "section", "limits"),
    [
        ("sampler", {"tensorParallel": 4}, {"nvidia.com/gpu": "4"}),
        ("learner", {"processes": 8, "accelerator": "amd.com/gpu"}, {"amd.com/gpu": "8"}),
        ("sampler", {"accelerator": ""}, None),
        ("learner", {"accelerator": "", "processes": 2}, None),
    ],
)
def test_pods_ask_for_the_devices_of_their_processes(role: names.Role, section: Json, limits: Json | None) -> None:
    ours = container(template(role, **section), role)
    assert ours.get("resources", {}).get("limits") == limits


@pytest.mark.parametrize(
    ("role", "section", "limit", "threads"),
    [
        ("sampler", {}, "4", "4"),
        ("sampler", {}, "3500m", "3"),
        ("sampler", {}, 2, "2"),
        ("sampler", {}, "100m", "1"),
        ("sampler", {"tensorParallel": 2}, "8", "4"),
        ("learner", {"processes": 4}, "10", "2"),
    ],
)
def test_processes_share_the_cpu_limit(role: names.Role, section: Json, limit: str | int, threads: str) -> None:
    built = template(role, patched(role, resources={"limits": {"cpu": limit}}), **section)
    assert variables(built, role)["OMP_NUM_THREADS"] == threads


def test_threads_are_counted_only_where_a_limit_is_and_nobody_else_counts() -> None:
    limits = {"limits": {"cpu": "4"}}
    own = patched("sampler", resources=limits, env=[{"name": "OMP_NUM_THREADS", "value": "9"}])
    assert variables(template("sampler", own), "sampler")["OMP_NUM_THREADS"] == "9"
    assert "OMP_NUM_THREADS" not in variables(template("sampler"), "sampler")
    with pytest.raises(
        ValueError, match=r"spec\.sampler\.podTemplate: limits\.cpu of container 'sampler': 'many' is no"
    ):
        template("sampler", patched("sampler", resources={"limits": {"cpu": "many"}}))


@ROLES
def test_images_are_those_of_the_run_before_those_of_the_settings(role: names.Role) -> None:
    assert container(template(role), role)["image"] == f"{role}:1"
    assert container(template(role, image="own:2"), role)["image"] == "own:2"
    settings = Settings(image_pull_policy="Always", image_pull_secrets=("hub",))
    built = BUILDERS[role](built_run(), settings, None)
    assert container(built, role)["imagePullPolicy"] == "Always"
    assert built["spec"]["imagePullSecrets"] == [{"name": "hub"}]


def test_a_sampler_is_asked_by_the_kubelet_and_killed_only_where_its_loop_hangs() -> None:
    ours = container(template("sampler", metricsPort=1234), "sampler")
    assert ours["ports"] == [{"name": "metrics", "containerPort": 1234}]
    asked = {probe: ours[probe]["httpGet"]["path"] for probe in ours if probe.endswith("Probe")}
    assert asked == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


@ROLES
def test_without_port_there_are_no_probes(role: names.Role) -> None:
    ours = container(template(role, metricsPort=0), role)
    assert not [field for field in ours if field == "ports" or field.endswith("Probe")]


@ROLES
def test_a_mesh_gives_no_proxy_unless_the_user_wants_one(role: names.Role) -> None:
    assert template(role)["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    wanted = template(role, {"metadata": {"labels": {"sidecar.istio.io/inject": "true"}}})
    assert wanted["metadata"]["labels"]["sidecar.istio.io/inject"] == "true"


def test_a_learner_is_not_moved_and_is_not_started_again_in_place() -> None:
    built = template("learner")
    assert built["metadata"]["annotations"] == {
        "kubectl.kubernetes.io/default-container": "learner",
        "linkerd.io/inject": "disabled",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    assert (built["spec"]["restartPolicy"], built["spec"]["terminationGracePeriodSeconds"]) == ("Never", 120)
    assert container(built, "learner")["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert built["spec"]["automountServiceAccountToken"] is True


@pytest.mark.parametrize(
    ("run", "claim"),
    [
        (fork(name="base"), "base-data"),
        (fork(runDir="old", claimName="archive"), "archive"),
        (fork(runDir="old"), None),
        (fork(runDir="old", claimName="demo-data"), None),
    ],
)
def test_the_learner_alone_reads_the_parents_claim(run: EMPGRun, claim: str | None) -> None:
    built = template("learner", run=run)
    found = volumes(built).get("parent", {}).get("persistentVolumeClaim")
    assert found == ({"claimName": claim} if claim else None)
    mount = [mount for mount in container(built, "learner")["volumeMounts"] if mount["name"] == "parent"]
    expected = [{"name": "parent", "mountPath": "/var/lib/empg-parent", "readOnly": True}] if claim else []
    assert mount == expected
    assert "parent" not in volumes(template("sampler", run=run))


@ROLES
def test_pods_of_a_claim_for_one_node_stay_together(role: names.Role) -> None:
    built = template(role, run=built_run(storage={"accessMode": "ReadWriteOnce"}))
    (term,) = built["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"].items() <= built["metadata"]["labels"].items()
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert "affinity" not in template(role)["spec"]
    # Of a claim that exists already, nothing is known.
    shared = built_run(storage={"accessMode": "ReadWriteOnce", "claimName": "shared"})
    assert "affinity" not in template(role, run=shared)["spec"]


@ROLES
def test_a_pod_template_is_merged_over_the_built_one(role: names.Role) -> None:
    patch = {
        "metadata": {"labels": {"team": "ml"}, "annotations": {"a": "b"}},
        "spec": {
            "tolerations": [{"operator": "Exists"}],
            "initContainers": [{"name": "sidecar", "image": "s", "restartPolicy": "Always"}],
            "volumes": [
                {"name": "tmp", "$retainKeys": ["name", "ephemeral"], "ephemeral": {"volumeClaimTemplate": {}}}
            ],
            "containers": [{"name": role, "env": [{"name": "HF_TOKEN", "value": "x"}], "args": ["--other"]}],
        },
    }
    built = template(role, patch)
    assert built["metadata"]["labels"]["team"] == "ml"
    assert built["metadata"]["annotations"]["a"] == "b"
    assert built["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert built["spec"]["initContainers"][0]["name"] == "sidecar"
    assert volumes(built)["tmp"] == {"name": "tmp", "ephemeral": {"volumeClaimTemplate": {}}}
    assert variables(built, role)["HF_TOKEN"] == "x"
    assert container(built, role)["args"] == ["--other"]
    assert container(built, role)["image"] == f"{role}:1"


@ROLES
def test_user_and_group_can_be_left_to_the_cluster(role: names.Role) -> None:
    """As OpenShift wants it: the documented patch leaves nothing of ours in the pod's security context."""
    documents = re.findall(r"^```yaml\n(.*?)^```", KUBERNETES_MD.read_text(), re.MULTILINE | re.DOTALL)
    (document,) = [yaml.safe_load(text) for text in documents if "$patch" in text]
    built, plain = template(role, document[role]["podTemplate"]), template(role)
    assert built["spec"].pop("securityContext") == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    del plain["spec"]["securityContext"]
    assert built == plain


@ROLES
def test_what_the_run_relies_on_holds_whatever_the_patch_says(role: names.Role) -> None:
    patch = {
        "metadata": {"labels": {names.RUN_LABEL: "other", names.ROLE_LABEL: None}},
        "spec": {
            "restartPolicy": "OnFailure",
            "subdomain": "other",
            "volumes": [
                {"name": "run", "emptyDir": {}},
                {"name": "spec", "$patch": "delete"},
                {"name": "mine", "emptyDir": {}},
            ],
            "containers": [
                {
                    "name": role,
                    "volumeMounts": [
                        {"mountPath": names.MOUNT, "name": "mine", "subPath": "x"},
                        {"mountPath": names.SPEC_DIR, "$patch": "delete"},
                    ],
                }
            ],
        },
    }
    built, plain = template(role, patch), template(role)
    assert built["metadata"]["labels"] == plain["metadata"]["labels"]
    assert built["spec"]["restartPolicy"] == plain["spec"]["restartPolicy"]
    assert built["spec"]["subdomain"] == plain["spec"].get("subdomain", "other")
    assert {name: volumes(built)[name] for name in ("run", "spec")} == {
        name: volumes(plain)[name] for name in ("run", "spec")
    }
    assert mounts(built, role) == mounts(plain, role)
    replaced = template(role, {"$patch": "replace", **patched(role, image="x")})
    assert volumes(replaced).keys() == {"run", "spec"}
    kept = {name: value for name, value in plain["metadata"]["labels"].items() if name != "sidecar.istio.io/inject"}
    assert replaced["metadata"]["labels"] == kept


def test_a_pod_on_the_hosts_network_still_finds_the_learner() -> None:
    assert template("learner", {"spec": {"hostNetwork": True}})["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
    own = {"spec": {"hostNetwork": True, "dnsPolicy": "None"}}
    assert template("learner", own)["spec"]["dnsPolicy"] == "None"


REFUSED: dict[str, tuple[Json, str]] = {
    "containers at the top": (
        {"containers": []},
        r"podTemplate\.containers is unknown; move it below .*\.metadata or .*\.spec",
    ),
    "a name": ({"metadata": {"name": "x"}}, r"podTemplate\.metadata\.name is unknown"),
    "no spec": ({"spec": None}, r"podTemplate removes the container 'learner', which the run needs; keep it"),
    "other containers": (
        {"spec": {"containers": [{"name": "x", "image": "y"}, {"$patch": "replace"}]}},
        "removes the container 'learner'",
    ),
    "a container without a name": ({"spec": {"containers": [{"image": "x"}]}}, r"containers\[0\] has no name"),
    "a text for a spec": ({"spec": "x"}, r"podTemplate\.spec must be an object"),
    "a list for limits": (
        patched("learner", resources={"limits": []}),
        r"containers\[learner\]\.resources\.limits must be an object",
    ),
    "a text for variables": (
        {"spec": {"$patch": "replace", "containers": [{"name": "learner", "env": "x"}]}},
        r"containers\[learner\]\.env must be a list",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_pod_template_that_can_not_be_used_is_refused_by_field(case: str) -> None:
    patch, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as refused:
        template("learner", patch)
    assert "spec.learner.podTemplate" in str(refused.value)


KEYS = st.sampled_from(
    [
        *("metadata", "labels", "annotations", "spec", "volumes", "containers", "name", "args", "env", "ports"),
        *("volumeMounts", "mountPath", "resources", "limits", "cpu", "hostNetwork", "restartPolicy"),
        *("$patch", "$retainKeys", "$deleteFromPrimitiveList/args"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["learner", "run", "/tmp", "replace", "delete", "1"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=4),
    max_leaves=20,
)
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "metadata": VALUES,
        "$patch": VALUES,
        "spec": VALUES
        | st.fixed_dictionaries(
            {},
            optional={
                "$patch": VALUES,
                "volumes": VALUES,
                "containers": VALUES
                | st.lists(
                    st.fixed_dictionaries(
                        {"name": st.just("learner")},
                        optional=dict.fromkeys(["env", "volumeMounts", "resources", "args", "ports", "$patch"], VALUES),
                    ),
                    max_size=2,
                ),
            },
        ),
    },
)


@settings(deadline=None)
@given(patch=LIKELY | st.dictionaries(KEYS, VALUES, max_size=3))
def test_any_pod_template_is_used_or_refused(patch: Json) -> None:
    run = built_run(learner={"podTemplate": patch, "accelerator": ""})
    refusal = ""
    try:
        built = learner_pod_template(run, SETTINGS, None)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith("spec.learner.podTemplate")
        return
    job = learner_job(run, built, 1, "demo-learner-1")
    pods = json.loads(json.dumps(job["spec"]["template"]))
    assert pods["metadata"]["labels"].items() >= names.selector("demo", "learner").items()
    assert {"/var/lib/empg": "run", "/etc/empg": "spec"}.items() <= mounts(pods, "learner").items()
    assert {"run", "spec"} <= volumes(pods).keys()
