"""A hub that is away for a while is asked again later; what it refuses, or the user keeps it from, ends the run."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from learner_runs import SPEC

from empg.local.child import program

ASK = """
import json, sys, time
from pathlib import Path
from empg.api.model import ModelSpec
from empg.tasks.hub import hub_rows
from empg_trainer.import_model import locate

time.sleep = lambda seconds: None  # The library's pauses between its own tries.
asked = {
    "model": lambda name: locate(ModelSpec(name=name), Path("/")),
    "data": lambda name: list(hub_rows("task.source", name, None, "train")),
}
for what, ask in asked.items():
    for name in sys.argv[1:]:
        try:
            ask(name)
        except Exception as error:
            print(json.dumps([what, name, type(error).__name__, str(error)]))
"""


class Hub(BaseHTTPRequestHandler):
    """Answers every question about the repository `hub/sNNN` with status NNN, and none about `hub/silent`."""

    def do_GET(self):
        if "/silent" in self.path:
            self.close_connection = True
            return
        status = self.path.partition("hub/s")[2][:3]
        self.send_response(int(status) if status else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def environment(home, **variables):
    return {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", **variables}


def test_silence_and_busyness_are_told_from_refusal(hub, tmp_path):
    away = ["hub/s429", "hub/s500", "hub/s503", "hub/silent"]
    refused = ["hub/s401", "hub/s403", "hub/s404"]
    done = subprocess.run(
        [sys.executable, "-c", ASK, *away, *refused],
        env=environment(tmp_path, HF_ENDPOINT=hub),
        capture_output=True,
        text=True,
        check=True,
    )
    ends = {(what, name): (kind, message) for what, name, kind, message in map(json.loads, done.stdout.splitlines())}
    for what, field in (("model", "model.name: "), ("data", "task.source: ")):
        for name in away + refused:
            kind, message = ends[what, name]
            assert kind == ("HubAway" if name in away else "ValueError"), (what, name, message)
            assert message.startswith(field)
            assert name in message
            assert ("point HF_HOME to a cache that holds it" in message) == (name in away or what == "data")
            if name in away and name != "hub/silent":
                assert name[-3:] in message.replace(name, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variables", "code", "said"),
    [
        ("hub/s503", {}, 75, "does not give hub/s503 for now: Server error '503 Service Unavailable'"),
        ("hub/s404", {}, 64, "the hub does not give it: "),
        # Nothing listens on the discard port.
        ("hub/any", {"HF_ENDPOINT": "http://127.0.0.1:9"}, 75, "http://127.0.0.1:9 does not give hub/any for now"),
        ("hub/any", {"HF_HUB_OFFLINE": "1"}, 64, "outgoing traffic has been disabled"),
    ],
    ids=["busy", "missing", "unreachable", "offline by choice"],
)
def test_the_learner_ends_so_that_it_is_tried_again_while_the_hub_is_away(hub, tmp_path, name, variables, code, said):
    root = tmp_path / "run"
    root.mkdir()
    run = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": "t"}}
    (root / "manifest.json").write_text(json.dumps({**run, "spec": {**SPEC, "model": {"name": name}}}))
    done = subprocess.run(
        [sys.executable, "-m", "empg_trainer.main", str(root)],
        env=environment(tmp_path, **{"HF_ENDPOINT": hub} | variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr


@pytest.mark.slow
def test_a_run_on_one_machine_ends_when_the_hub_stays_away(hub, tmp_path):
    manifest = tmp_path / "run.yaml"
    run = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": "t"}}
    manifest.write_text(json.dumps({**run, "spec": {**SPEC, "model": {"name": "hub/s503"}}}))
    done = subprocess.run(
        [
            *program("empg.cli.main", "run", str(manifest), "--run-dir", str(tmp_path / "dir")),
            "--plain",
            "--restarts=1",
        ],
        env=environment(tmp_path, HF_ENDPOINT=hub),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 75, done.stdout + done.stderr
    assert f"{hub} does not give hub/s503 for now" in done.stdout
    assert "learner ended 2 times without a finished iteration between, last with exit code 75" in done.stdout
