"""The learner as pods run it: reports, several nodes, evictions, last words, a user without a name."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from cluster_runs import UID, ClusterRun
from learner_runs import ENVIRONMENT, free_port, until
from scripted_sampler import ScriptedSampler
from status_server import StatusServer

from empg.api.status import RunStatus
from empg.rundir.group import policies
from empg.rundir.metrics import read_metrics
from empg.verdict import Verdict

pytestmark = pytest.mark.slow


def test_a_run_is_reported_from_its_first_directory_to_its_end(tmp_path):
    run = ClusterRun(tmp_path)
    metrics_port = free_port()
    with StatusServer(tmp_path / "api", UID) as api:
        started = time.monotonic()
        code, said = run.learn("--report", "--attempt", "4", "--metrics-port", metrics_port, **api.environment())
        seconds = time.monotonic() - started
    assert code == 0, said
    for request in api.applied:
        assert request.path.endswith("/namespaces/team/empgruns/t/status")
        assert request.query["fieldManager"] == ["empg-learner"]
        assert set(request.body["status"]) == {"progress", "recent"}
    progress = [RunStatus.model_validate(status).progress for status in api.statuses()]
    assert [report.attempt for report in progress] == [4] * len(progress)
    assert progress[0].phase in ("starting", "sampling")
    last = progress[-1]
    assert (last.phase, last.iteration, last.iterations, last.policy_version) == ("done", 3, 3, 3)
    rows = read_metrics(run.store)
    assert last.reward == pytest.approx(rows[-1]["reward_mean"], rel=1e-5)
    assert last.evaluation is not None
    assert [(count.policy, count.samplers) for count in last.sampler_versions] == [(3, 1)]
    recent = RunStatus.model_validate(api.statuses()[-1]).recent
    assert [row.iteration for row in recent] == [0, 1, 2]
    assert recent[1].entropy == pytest.approx(rows[1]["entropy"], rel=1e-5)
    assert len(progress) <= 2 + seconds / 10


def test_training_does_not_wait_for_the_api_server(tmp_path):
    run = ClusterRun(tmp_path, em={"iterations": 2}, evaluation={"prompts": 0})
    with StatusServer(tmp_path / "api", UID) as api:
        environment = api.environment()
    code, said = run.learn("--report", **environment)
    assert code == 0, said
    assert said.count("does not answer") == 1


def test_reports_without_a_place_to_go_are_a_wrong_command_line(tmp_path):
    run = ClusterRun(tmp_path)
    code, said = run.learner("--report", EMPG_NAMESPACE="team").ended()
    assert code == 64
    assert "EMPG_RUN" in said
    assert "EMPG_RUN" in run.last_words.read_text()


def test_nodes_end_and_resume_together(tmp_path):
    run = ClusterRun(tmp_path, learner={"nodes": 2, "zeroStage": 2, "deadlineSeconds": 120})
    calm = ClusterRun(tmp_path / "calm", learner={"nodes": 2, "zeroStage": 2, "deadlineSeconds": 120})
    with ScriptedSampler(calm.store):
        undisturbed = calm.nodes()

        # Node 1 is killed while node 0 waits for samplers, in no collective operation at all.
        first = run.nodes("--attempt", "1")
        until(lambda: run.phase() == "sampling", *first)
        first[1].kill()
        killed = time.monotonic()
        code, said = first[0].ended(seconds=150)
        assert code not in (0, 64, 65), said
        assert time.monotonic() - killed < 90

        ends = [node.ended() for node in undisturbed]
    assert [code for code, _ in ends] == [0, 0], ends

    # Node 1 is evicted.
    second = run.nodes("--attempt", "2")
    until(lambda: run.phase(attempt=2) == "sampling", *second)
    second[1].terminate()
    code, said = second[1].ended(seconds=20)
    assert code == 75, said
    assert run.last_words.read_text() == "asked to stop by SIGTERM"
    second[0].terminate()  # as Kubernetes does when a pod of a Job failed
    assert second[0].ended(seconds=20)[0] == 75

    with ScriptedSampler(run.store):
        ends = [node.ended() for node in run.nodes("--attempt", "3")]
    assert [code for code, _ in ends] == [0, 0], ends
    assert run.weights() == calm.weights()


def test_every_node_says_that_training_diverged(tmp_path):
    run = ClusterRun(tmp_path, learner={"nodes": 2})
    with ScriptedSampler(run.store, verdict=lambda *_: Verdict.TIMEOUT):
        ends = [node.ended() for node in run.nodes()]
    assert [code for code, _ in ends] == [65, 65], ends
    assert "guards.maxErrorShare" in run.last_words.read_text()
    assert policies(run.store) == [0]


def test_a_node_that_waits_for_the_others_can_be_stopped(tmp_path):
    run = ClusterRun(tmp_path, learner={"nodes": 2})
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for index in "01":
        node = run.learner(JOB_COMPLETION_INDEX=index, **address)
        until(lambda: "waits for all of 2" in node.said, node)  # noqa: B023 - called at once
        node.terminate()
        assert node.ended(seconds=20)[0] == 75


def test_an_immutable_edit_ends_with_64_and_the_name_of_the_field(tmp_path):
    run = ClusterRun(tmp_path, em={"iterations": 1}, evaluation={"prompts": 0})
    code, said = run.learn()
    assert code == 0, said
    run.spec["em"] |= {"iterations": 2, "seed": 5}
    run.write()
    code, _ = run.learner().ended()
    assert code == 64
    assert "spec.em.seed is immutable" in run.last_words.read_text()

    run.spec["em"]["iterations"] = 0
    run.write()
    assert run.learner().ended()[0] == 64
    assert "spec.em.iterations" in run.last_words.read_text()


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_a_user_without_a_name_can_train(tmp_path):
    run = ClusterRun(tmp_path, em={"iterations": 1}, learner={"processes": 2}, evaluation={"prompts": 0})
    home = tmp_path / "home"
    home.mkdir()
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 54321, 54321)
    nameless = dict.fromkeys(("USER", "LOGNAME", "LNAME", "USERNAME"), "")
    # It may read everything, since the interpreter may lie in root's home, and write what it owns.
    may_read = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    setpriv = ("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", *may_read)
    with ScriptedSampler(run.store):
        learner = subprocess.run(
            [*setpriv, sys.executable, "-m", "empg_trainer.main", *run.arguments],
            env={**os.environ, **ENVIRONMENT, **nameless, "HOME": str(home), "TMPDIR": str(home)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert learner.returncode == 0, learner.stderr
    assert policies(run.store) == [0, 1]
