"""What the pods of a run may do in the cluster, and what stays of a run that was deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import LiveCluster, until

from hack.controlplane.access import CommandError

PYTHON = "/opt/empg/venv/bin/python"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
ALLOWED = {("get", "empgruns/parent"), ("patch", "empgruns/parent/status")}
REFUSED = {
    ("get", "empgruns/other"),
    ("patch", "empgruns/other/status"),
    ("patch", "empgruns/parent"),
    ("delete", "empgruns/parent"),
    ("get", "empgruns"),
    ("get", "secrets/hub"),
    ("get", "secrets"),
    ("get", "configmaps/other-run"),
    ("get", "pods"),
}
REQUESTS = f"""
import json, ssl, sys, urllib.error, urllib.request
token = open("{ACCOUNT}/token").read()
trusted = ssl.create_default_context(cafile="{ACCOUNT}/ca.crt")
def code(verb, path):
    headers = {{"Authorization": f"Bearer {{token}}", "Content-Type": "application/merge-patch+json"}}
    body = b"{{}}" if verb == "patch" else None
    request = urllib.request.Request(f"https://kubernetes.default.svc{{path}}", body, headers, method=verb.upper())
    try:
        return urllib.request.urlopen(request, context=trusted, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps([code(verb, path) for verb, path in json.loads(sys.argv[1])]))
"""
"""Prints the codes that the API server answers to a pod, for pairs of verb and path."""


@pytest.fixture(scope="module")
def run(release: LiveCluster, namespace: str) -> AppliedRun:
    """A run that trains; beside it another one, and a secret."""
    run = AppliedRun(release, namespace, demo("parent", em={"iterations": 2000}))
    AppliedRun(release, namespace, demo("other", suspend=True))
    run.kubectl("create", "secret", "generic", "hub", "--from-literal=token=x")
    run.until_learned(1)
    return run


@pytest.mark.parametrize(("verb", "what"), sorted(ALLOWED | REFUSED))
def test_what_the_cluster_says_of_its_account(run: AppliedRun, verb: str, what: str) -> None:
    name, _, subresource = what.partition("/")[2].partition("/")
    wanted = [verb, "/".join(part for part in (what.partition("/")[0], name) if part)]
    wanted += [f"--subresource={subresource}"] if subresource else []
    account = f"--as=system:serviceaccount:{run.namespace}:parent-learner"
    if (verb, what) in ALLOWED:
        assert run.kubectl("auth", "can-i", *wanted, account).strip() == "yes"
    else:
        with pytest.raises(CommandError, match=r"no$"):
            run.kubectl("auth", "can-i", *wanted, account)


def test_what_the_api_server_answers_to_its_pod(run: AppliedRun) -> None:
    asked = sorted(ALLOWED | REFUSED)
    core, ours = "/api/v1", "/apis/empg.dev/v1alpha1"
    paths = [
        (verb, f"{ours if what.startswith('empgruns') else core}/namespaces/{run.namespace}/{what}")
        for verb, what in asked
    ]
    [pod] = run.running("learner")
    printed = run.kubectl("exec", pod, "--", PYTHON, "-c", REQUESTS, json.dumps(paths))
    assert dict(zip(asked, json.loads(printed), strict=True)) == dict.fromkeys(ALLOWED, 200) | dict.fromkeys(
        REFUSED, 403
    )


def test_a_sampler_has_no_token(run: AppliedRun) -> None:
    [pod] = run.running("sampler")
    with pytest.raises(CommandError, match="No such file"):
        run.kubectl("exec", pod, "--", "ls", ACCOUNT)


def test_another_run_starts_from_what_a_deleted_one_left(run: AppliedRun) -> None:
    storage = run.status()["storage"]
    run.kubectl("delete", "empgrun", "parent", "--timeout=60s")
    until(lambda: not run.pods("learner") and not run.pods("sampler"), "end of the pods", 60)
    kept = run.kubectl("get", "pvc", "parent-data", "-o", "jsonpath={.status.phase}")
    assert kept == "Bound"
    left = ("empgruns,jobs,deployments,configmaps,serviceaccounts,roles,rolebindings", "-l", "empg.dev/run=parent")
    until(lambda: not run.kubectl("get", *left, "-o", "name"), "end of what belonged to the run", 60)
    child = demo("child", em={"iterations": 2}, model={"fromRun": {"runDir": "parent", "claimName": "parent-data"}})
    del child["spec"]["model"]["name"]
    forked = AppliedRun(run.cluster, run.namespace, child)
    forked.wait("Complete", seconds=int(START_SECONDS) + 60)
    directory = run.cluster.volume(run.namespace, storage["claimName"]) / storage["path"]
    newest = max(path.parent for path in directory.glob("policy/*/MANIFEST.json"))
    assert weights(forked.directory() / "policy/000000") == weights(newest)
    assert forked.policies()[-1] == 2
    assert forked.status()["storage"]["claimName"] == "child-data"


def weights(policy: Path) -> list[bytes]:
    """Contents of the weight files of a policy."""
    found = [path.read_bytes() for path in sorted(policy.rglob("*.safetensors"))]
    assert found
    return found
