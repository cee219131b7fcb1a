"""How the operator bears many runs: a real control plane, simulated pods, N runs.

    python benchmarks/operator_scale.py --runs 100 1000

For each N: all runs are created and come to train (their pods run as kwok says); the operator is started again and must
find that nothing is to do; then runs change at a fixed rate. Printed beside the goals on a machine of 2 cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hack import tools  # noqa: E402
from hack.controlplane import plane, simulated  # noqa: E402
from hack.controlplane.access import read_calls  # noqa: E402
from hack.controlplane.processes import free_port  # noqa: E402
from hack.rest import Rest  # noqa: E402

RUNS_PER_NAMESPACE = 100
PODS_PER_RUN = 2
PODS_PER_NODE = 110
CHANGES_PER_SECOND = 10.0
STEADY_SECONDS = 60.0
READY_SECONDS = 60.0
SETTLE_SECONDS = 1800.0
QUIET_SECONDS = 5.0
"""The operator has settled when it made no pass for so long."""
GOALS = {"cold start [s]": 10.0, "event to pass p99 [s]": 0.5, "RSS [MiB]": 200.0}

PASSES = "empg_operator_reconcile_seconds_count"
"""Often asked for alone: the series of 1,000 runs take the operator longer to write than a pass."""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Scrape = Callable[..., Samples]


@dataclass(frozen=True)
class Cluster:
    """The control plane and the administrator's way in."""

    directory: Path
    kubeconfig: Path
    audit_log: Path
    rest: Rest


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the operator did not settle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000], metavar="N", help="numbers of runs")
    parser.add_argument("--seconds", type=float, default=STEADY_SECONDS, help="how long runs change")
    given = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores; the control plane and kwok share them with the operator")
    for runs in given.runs:
        with cluster(runs) as there:
            for name, figure in measure(there, runs, given.seconds).items():
                goal = f"   goal {GOALS[name]:g}: {figure / GOALS[name]:.2f} of it" if name in GOALS else ""
                print(f"{runs:6d} runs   {name:36s} {figure:10.3f}{goal}", flush=True)
    return 0


@contextmanager
def cluster(runs: int) -> Iterator[Cluster]:
    """A control plane with as many simulated nodes as the pods need, and the custom resource definition."""
    directory = Path(tempfile.mkdtemp(prefix="empg-scale-"))
    started = plane.start(directory)
    try:
        simulated.add_nodes(started, runs * PODS_PER_RUN // PODS_PER_NODE + 2)
        kubectl = [str(tools.path("kubectl")), f"--kubeconfig={started.kubeconfig}"]
        subprocess.run([*kubectl, "create", "-f", str(ROOT / "manifests/crd.yaml")], check=True, capture_output=True)
        # Not `kubectl wait`, which fails on a definition that has no conditions yet.
        until_ready(lambda: subprocess.run([*kubectl, "get", "empgruns"], capture_output=True).returncode == 0)
        yield Cluster(directory, started.kubeconfig, started.audit_log, Rest(started.kubeconfig, "benchmark"))
    finally:
        started.close()
        shutil.rmtree(directory)


def until_ready(ready: Callable[[], bool]) -> None:
    """Wait until it is."""
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit("the API of EMPGRuns is not served")
        time.sleep(0.2)


def measure(there: Cluster, runs: int, seconds: float) -> dict[str, float]:
    """All figures for one number of runs."""
    figures: dict[str, float] = {}
    places = [(f"team-{index // RUNS_PER_NAMESPACE}", f"run-{index}") for index in range(runs)]
    for namespace in sorted({namespace for namespace, _ in places}):
        add_namespace(there.rest, namespace)
    with operator(there) as (scrape, pid):
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda place: create(there.rest, *place), places))
        figures["runs created [s]"] = time.monotonic() - began
        settle(scrape, lambda: all_ready(there.rest, runs))
        figures["all runs sample [s]"] = time.monotonic() - began - QUIET_SECONDS
        figures["API requests per run so far"] = total(scrape(), "empg_operator_api_requests_total") / runs
        figures["RSS after creation [MiB]"] = resident(pid)

    size = there.audit_log.stat().st_size
    began = time.monotonic()
    with operator(there) as (scrape, pid):
        while total(scrape(PASSES), PASSES) < runs:
            time.sleep(0.05)
        figures["cold start [s]"] = time.monotonic() - began
        settle(scrape, lambda: True)
        writes = [call for call in read_calls(there.audit_log, size) if call.writes and "empg" in call.agent]
        figures["writes of a cold start"] = len(writes)

        before = scrape()
        change(there.rest, places, seconds)
        time.sleep(QUIET_SECONDS)
        after = scrape()
        for quantile in (0.5, 0.99):
            name = f"p{quantile * 100:g}"
            figures[f"event to pass {name} [s]"] = bound(
                before, after, "empg_operator_workqueue_latency_seconds", quantile
            )
            figures[f"pass {name} [s]"] = bound(before, after, "empg_operator_reconcile_seconds", quantile)
        figures["passes"] = difference(before, after, PASSES)
        figures["RSS [MiB]"] = resident(pid)
        for verb in sorted(
            {dict(labels)["verb"] for name, labels in after if name == "empg_operator_api_requests_total"}
        ):
            figures[f"API requests {verb}"] = total(after, "empg_operator_api_requests_total", verb=verb)
    return figures


@contextmanager
def operator(there: Cluster, *flags: str) -> Iterator[tuple[Scrape, int]]:
    """The operator as a process: how to read its metrics, or those of one name, and its process id."""
    port = free_port()
    command = [sys.executable, "-m", "empg_operator.main", "--kubeconfig", str(there.kubeconfig), *flags]
    with (there.directory / "operator.log").open("ab") as log:
        process = subprocess.Popen([*command, "--metrics-port", str(port)], stdout=log, stderr=log)

    def scrape(name: str = "") -> Samples:
        if process.poll() is not None:
            raise SystemExit(f"the operator ended:\n{(there.directory / 'operator.log').read_text()[-4000:]}")
        only = f"?name[]={name}" if name else ""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics{only}", timeout=30) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            samples = (sample for family in families for sample in family.samples)
            return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}

    try:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                scrape()
                break
            except urllib.error.URLError:
                if time.monotonic() > deadline:
                    raise SystemExit("the operator does not answer") from None
                time.sleep(0.05)
        yield scrape, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def add_namespace(rest: Rest, name: str) -> None:
    """Make a namespace with a claim for all of its runs."""
    rest.create("/api/v1/namespaces", {"metadata": {"name": name}})
    same = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = same | {"capacity": {"storage": "1Ti"}, "hostPath": {"path": f"/{name}"}}
    rest.create("/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": volume})
    claim = same | {"volumeName": name, "resources": {"requests": {"storage": "1Ti"}}}
    rest.create(f"/api/v1/namespaces/{name}/persistentvolumeclaims", {"metadata": {"name": "shared"}, "spec": claim})


def create(rest: Rest, namespace: str, name: str) -> None:
    """Make a small run on CPUs."""
    spec = {
        "model": {"name": "base-model"},
        "task": {"name": "arithmetic"},
        "em": {"iterations": 100},
        "sampler": {"accelerator": ""},
        "learner": {"accelerator": ""},
        "storage": {"claimName": "shared"},
    }
    document = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": name}, "spec": spec}
    rest.create(f"/apis/empg.dev/v1alpha1/namespaces/{namespace}/empgruns", document)


def all_ready(rest: Rest, runs: int) -> bool:
    """Whether every run has its sampler."""
    items = rest.get("/apis/empg.dev/v1alpha1/empgruns")["items"]
    return sum((item.get("status", {}).get("samplers") or {}).get("ready", 0) for item in items) >= runs


def settle(scrape: Scrape, done: Callable[[], bool]) -> None:
    """Wait until there is nothing left to do."""
    deadline = time.monotonic() + SETTLE_SECONDS
    passes, since = -1.0, time.monotonic()
    while True:
        now = total(scrape(PASSES), PASSES)
        if now != passes:
            passes, since = now, time.monotonic()
        if time.monotonic() - since >= QUIET_SECONDS and done():
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"the operator did not settle within {SETTLE_SECONDS:g} s")
        time.sleep(0.5)


def change(rest: Rest, places: Sequence[tuple[str, str]], seconds: float) -> None:
    """Edit runs in turn, at a fixed rate: each edit changes what their learners read."""
    began = time.monotonic()
    for count in range(int(seconds * CHANGES_PER_SECOND)):
        namespace, name = places[count % len(places)]
        rate = 1e-6 * (2 + count // len(places))
        path = f"/apis/empg.dev/v1alpha1/namespaces/{namespace}/empgruns/{name}"
        rest.patch(path, {"spec": {"optimizer": {"learningRate": rate}}})
        time.sleep(max(0.0, began + (count + 1) / CHANGES_PER_SECOND - time.monotonic()))


def total(samples: Mapping[Any, float], name: str, **labels: str) -> float:
    """Sum of the samples of this name that have these labels."""
    return sum(
        value for (each, held), value in samples.items() if each == name and labels.items() <= dict(held).items()
    )


def difference(before: Samples, after: Samples, name: str) -> float:
    return total(after, name) - total(before, name)


def bound(before: Samples, after: Samples, histogram: str, quantile: float) -> float:
    """Upper bound of the bucket that the quantile is in."""
    bounds = sorted({float(dict(held)["le"]) for name, held in after if name == f"{histogram}_bucket"})
    counts = {
        float(dict(held)["le"]): value - before.get((name, held), 0.0)
        for (name, held), value in after.items()
        if name == f"{histogram}_bucket"
    }
    whole = counts[bounds[-1]]
    return next(upper for upper in bounds if counts[upper] >= quantile * whole)


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
