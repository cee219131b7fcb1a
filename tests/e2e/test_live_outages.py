"""Training goes on while the operator, or the API server, is away; the status catches up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import LiveCluster, until

OUTAGE_SECONDS = 60.0
PAUSE_SECONDS = 45.0
"""Longest time between two iterations that is no pause: less than an outage, many times what an iteration takes."""


@pytest.fixture(scope="module")
def run(release: LiveCluster, namespace: str) -> AppliedRun:
    """A run that trains for long."""
    run = AppliedRun(release, namespace, demo("outlasting", em={"iterations": 2000}))
    run.until_learned(2)
    return run


def test_training_outlasts_the_operator(run: AppliedRun) -> None:
    pods, access = run.containers(), run.cluster.access
    operator = ("-n", "empg-system", "deployment/empg")
    access.kubectl("scale", *operator, "--replicas=0")
    try:
        gone = "app.kubernetes.io/name=empg"
        until(lambda: not access.kubectl("get", "pods", "-n", "empg-system", "-l", gone, "-o", "name"), "end", 60)
        with _outage(run.directory):
            # it is not lost on the operator that comes back
            run.kubectl("scale", "empgrun", run.name, "--replicas=2")
        assert run.status()["samplers"]["desired"] == 1
    finally:
        access.kubectl("scale", *operator, "--replicas=1")
    access.kubectl("rollout", "status", *operator, "--timeout=100s")
    run.until(lambda: run.columns()["SAMPLERS"] == "2/2", "second sampler", START_SECONDS)
    assert pods <= run.containers()
    assert run.status()["attempt"] == 1


def test_training_outlasts_the_api_server(run: AppliedRun) -> None:
    if run.cluster.directory is None:
        pytest.skip("the API server of this cluster is not ours to stop")
    pods, directory = run.containers(), run.directory()
    server = _api_server(run.cluster.directory)
    os.kill(server, signal.SIGSTOP)
    try:
        with _outage(lambda: directory):
            pass
    finally:
        os.kill(server, signal.SIGCONT)
    learned = len(list((directory / "metrics").iterdir()))
    run.until(lambda: run.status()["progress"]["iteration"] >= learned, "progress in the status", 60)
    assert int(run.columns()["ITERATION"]) >= learned
    assert pods <= run.containers()
    assert run.status()["attempt"] == 1


@contextmanager
def _outage(directory: Callable[[], Path]) -> Iterator[None]:
    """An outage as long as the block, and at least a minute; training must not pause in it."""
    began = time.time()
    yield
    time.sleep(max(0.0, began + OUTAGE_SECONDS - time.time()))
    ended = time.time()
    written = sorted(path.stat().st_mtime for path in (directory() / "metrics").iterdir())
    moments = [began, *(moment for moment in written if began < moment < ended), ended]
    longest = max(after - before for before, after in pairwise(moments))
    print(f"{len(moments) - 2} iterations in an outage of {ended - began:.0f} s, the longest took {longest:.1f} s")
    assert longest < PAUSE_SECONDS


def _api_server(directory: Path) -> int:
    """Process number of the API server of a cluster of hack.cluster."""
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except (NotADirectoryError, FileNotFoundError, ProcessLookupError):
            continue
        if command[0].endswith(b"/kube-apiserver") and f"--audit-log-path={directory}/audit.log".encode() in command:
            return int(process.name)
    raise AssertionError(f"no API server of {directory} runs")
