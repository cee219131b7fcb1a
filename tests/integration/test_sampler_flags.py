"""A sampler as pods run it: no run directory yet, probes, a mounted manifest, one policy, the end of its turn."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from learner_runs import free_port
from sampler_runs import RUN, a_plan, a_spec, launcher, publish, until
from status_server import StatusServer

from empg.api.run import spec_digest
from empg.exit_codes import RETRY, SPEC
from empg.rundir.claims import survey
from empg.rundir.heartbeat import Liveness, read_record
from empg.rundir.identity import Identity, prepare
from empg.rundir.plan import Sampling
from empg.rundir.plans import create_plan
from empg.rundir.specs import write_spec
from empg.rundir.units import read_unit
from empg.store.posix import PosixStore

pytestmark = pytest.mark.slow

GREEDY = Sampling(temperature=0, top_p=1, top_k=0, max_tokens=8)


@pytest.fixture
def launch():
    with launcher() as launch:
        yield launch


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def committed(store, plan):
    return all(status.state == "committed" for status in survey(store, [plan], Liveness(5)).values())


def open_units(store, plan):
    return sum(status.state == "open" for status in survey(store, [plan], Liveness(5)).values())


def holds(store, sampler, policy):
    return bool((record := read_record(store, sampler)) and record.policy == policy)


def mount(path, **sampler):
    """The manifest of the run that `new_run` makes, as the operator mounts it."""
    spec = a_spec(**sampler).model_dump(mode="json", by_alias=True, exclude_none=True)
    metadata = {"name": "tiny", "uid": RUN}
    path.write_text(
        json.dumps({"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": metadata, "spec": spec})
    )
    return str(path)


def new_claimed_run(root):
    """A run directory whose identity fits the mounted manifest."""
    store = PosixStore(root)
    prepare(store, Identity(uid=RUN, name="tiny", spec_digest=spec_digest(a_spec())))
    write_spec(store, 0, a_spec())
    publish(store, 0)
    return store


def test_one_policy_probes_and_the_end_of_a_turn(tmp_path, launch, monkeypatch):
    root, port = tmp_path / "run", free_port()
    words = tmp_path / "termination-log"
    words.touch()
    monkeypatch.setenv("EMPG_TERMINATION_LOG", str(words))
    monkeypatch.setenv("EMPG_ATTEMPT", "3")
    with StatusServer(tmp_path / "api", RUN) as api:
        for name, value in api.environment(run="tiny").items():
            monkeypatch.setenv(name, value)
        api.answer = (500, {"message": "not yet"})
        arguments = ("--spec", mount(tmp_path / "run.json"), "--policy", "0", "--metrics-port", port, "--report")
        sampler = launch(PosixStore(root), "pod-a", *arguments)
        until(lambda: get(port, "/healthz") == 200, sampler)
        assert get(port, "/readyz") == 503
        assert not root.exists()

        rollout, evaluation = a_plan(2), a_plan(1, kind="eval", sampling=GREEDY)
        store = new_claimed_run(root)
        # While its engine starts, the learner must not remove the policy.
        until(lambda: (record := read_record(store, "pod-a")) is not None and record.loading == 0, sampler)
        for plan in (rollout, evaluation):
            create_plan(store, plan)
        publish(store, 1)
        later, missed = a_plan(1, iteration=1), a_plan(1, iteration=1, kind="eval", sampling=GREEDY)
        for plan in (later, missed):
            create_plan(store, plan)
        until(lambda: get(port, "/readyz") == 200, sampler)
        until(lambda: committed(store, rollout) and committed(store, evaluation), sampler)
        assert holds(store, "pod-a", 0)
        assert open_units(store, later) == open_units(store, missed) == 1
        assert api.applied == []  # another policy's units are not made

        other = launch(store, "pod-b", "--policy", "1")
        until(lambda: committed(store, later) and committed(store, missed), sampler, other)
        assert holds(store, "pod-b", 1)
        rows, _ = read_unit(store, later, "00-0000", 0)
        assert {version for row in rows for version, _ in row.policy_versions} == {1}

        until(lambda: api.applied, sampler)
        api.answer = (200, {})
        until(lambda: len(api.applied) >= 2, sampler)
        request = api.applied[-1]
        assert request.body["status"] == {"sampled": 3}
        assert request.query["fieldManager"] == ["empg-sampler"]

    assert get(port, "/healthz") == get(port, "/readyz") == 200
    code, seconds = sampler.stop(signal.SIGTERM, 10)
    assert code == RETRY
    assert seconds < 5
    assert words.read_text() == "asked to stop by SIGTERM"


def test_engine_settings_of_the_mounted_manifest_are_used(tmp_path, launch):
    store = new_claimed_run(tmp_path / "run")
    path = mount(tmp_path / "run.json", engine_args={"no_such_argument": 1})
    sampler = launch(store, "a", "--spec", path)
    assert sampler.popen.wait(120) == SPEC
    assert "sampler.engineArgs.no_such_argument" in sampler.log.read_text()


def test_wrong_command_lines_are_named(tmp_path, launch, monkeypatch):
    words = tmp_path / "termination-log"
    words.touch()
    monkeypatch.setenv("EMPG_TERMINATION_LOG", str(words))
    store = new_claimed_run(tmp_path / "run")
    for arguments, said in (
        (("--spec", str(tmp_path / "absent.json")), "--spec: "),
        (("--report",), "EMPG_NAMESPACE"),
    ):
        assert launch(store, "a", *arguments).popen.wait(60) == SPEC
        assert said in words.read_text()
    nowhere = subprocess.run(
        [sys.executable, "-m", "empg_sampler.main", str(tmp_path / "no" / "where")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert nowhere.returncode == SPEC
    assert "is no directory; create or mount it first" in nowhere.stderr


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_a_user_without_a_name_can_sample(tmp_path):
    store = new_claimed_run(tmp_path / "run")
    plan = a_plan(1)
    create_plan(store, plan)
    home = tmp_path / "home"
    home.mkdir()
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 54321, 54321)
    # It may read everything, since the interpreter may lie in root's home, and write what it owns.
    may_read = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    user = ("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", *may_read)
    nameless = dict.fromkeys(("USER", "LOGNAME", "LNAME", "USERNAME"), "")
    log = tmp_path / "log"
    with log.open("w") as output:
        sampler = subprocess.Popen(
            [*user, sys.executable, "-m", "empg_sampler.main", str(store.root), "--id", "a"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(home), "TMPDIR": str(home), **nameless},
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: committed(store, plan) or sampler.poll() is not None)
        assert sampler.poll() is None, log.read_text()
    finally:
        sampler.kill()
        sampler.wait()
