"""The operator as a real process beside the test."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from hack.controlplane.processes import free_port

START_SECONDS = 30.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02


class OperatorProcess:
    """`empg-operator` with its own metrics port; it can be started, stopped, killed and started again.

    `flags` may be changed between two starts.
    """

    def __init__(self, kubeconfig: Path, log: Path, *flags: str) -> None:
        self.kubeconfig = kubeconfig
        self.log = log
        """What it says, of all its lives."""
        self.flags = list(flags)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it is ready; AssertionError if it is not in time, or ends."""
        assert self._process is None, "it runs"
        command = [sys.executable, "-m", "empg_operator.main", "--log-format", "text"]
        command += ["--kubeconfig", str(self.kubeconfig), "--metrics-port", str(self._port), *self.flags]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while wait and not self.answers("/readyz"):
            code = self._process.poll()
            assert code is None, f"the operator ended with {code}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"the operator was not ready in time:\n{self.log.read_text()}"
            time.sleep(_POLL_SECONDS)

    def stop(self) -> int:
        """End it as a kubelet does; its exit code. It has `STOP_SECONDS`."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without warning."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Make sure that it does not run; print what it said, which pytest shows if the test failed."""
        if self._process:
            self.kill()
        print(self.log.read_text())

    def wait(self, seconds: float) -> int:
        """Wait for it to end of itself; its exit code."""
        assert self._process is not None
        code = self._process.wait(seconds)
        self._process = None
        return code

    def answers(self, path: str) -> bool:
        """Whether a probe of this path succeeds."""
        try:
            self._get(path)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def metric(self, name: str, /, **labels: str) -> float:
        """Sum of the samples of this name that have these labels; 0 if there are none."""
        families = text_string_to_metric_families(self._get("/metrics"))
        samples = (sample for family in families for sample in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None, "it does not run"
        self._process.send_signal(number)
        return self.wait(STOP_SECONDS)
