"""What programs do for the pod they run in: probes, last words, a name for their user."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from empg.cluster.endpoint import serve
from empg.cluster.termination import leave_word


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_probes_say_what_they_are_asked_and_metrics_are_beside_them():
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(3)
    port, state = free_port(), {"alive": True, "ready": False}
    serve(port, registry, alive=lambda: state["alive"], ready=lambda: state["ready"])
    assert get(port, "/healthz")[0] == 200
    assert get(port, "/readyz")[0] == 503
    state.update(alive=False, ready=True)
    assert get(port, "/healthz")[0] == 503
    assert get(port, "/readyz")[0] == 200
    status, text = get(port, "/metrics")
    assert status == 200
    assert "things_total 3.0" in text
    assert get(port, "/else")[0] == 404


def test_names_of_series_are_the_same_in_every_format():
    """Prometheus prefers OpenMetrics, in which colons would be replaced."""
    registry = CollectorRegistry()
    Counter("vllm:things", "Things.", registry=registry).inc(3)
    port = free_port()
    serve(port, registry)
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "vllm:things_total 3.0" in reply.read().decode()


def test_a_silent_client_keeps_nobody_from_the_endpoint():
    port = free_port()
    serve(port, CollectorRegistry())
    with socket.create_connection(("127.0.0.1", port)):
        assert get(port, "/healthz")[0] == 200


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"metrics port {port}: .*choose another"):
            serve(port, CollectorRegistry())


def test_the_last_word_is_one_line_of_bounded_length(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("EMPG_TERMINATION_LOG", str(log))
    leave_word("nobody made the file")
    assert not log.exists()
    log.write_text("what was there before, longer than what comes")
    leave_word("first\n  second\n\n")
    assert log.read_text() == "first; second"
    leave_word("ü" * 5000)
    assert len(log.read_bytes()) == 4096


def test_a_last_word_that_can_not_be_written_is_no_error(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("EMPG_TERMINATION_LOG", "/proc/version")
    leave_word("why")
    assert "the reason is in the log alone" in caplog.text


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_a_user_without_a_name_gets_one():
    code = "from empg.cluster.account import name_user; name_user(); import getpass; print(getpass.getuser())"
    bare = {name: value for name, value in os.environ.items() if name not in ("USER", "LOGNAME", "LNAME", "USERNAME")}
    command = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", sys.executable, "-c", code]
    done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "empg\n", done.stderr
    named = subprocess.run(
        command, env={**bare, "USER": "somebody"}, capture_output=True, text=True, timeout=60, check=True
    )
    assert named.stdout == "somebody\n"
