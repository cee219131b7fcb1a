"""What runs in which nothing happens cost: the operator's writes and reads while they are only watched.

    python benchmarks/steady_state.py --runs 20 --seconds 300

Runs of every kind come to rest (in the middle of an E-step, waiting for a pod that fits nowhere, suspended), and all
requests of the operator are counted from then on. Everything is listed again meanwhile, more often than by default.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.operator_scale import Cluster, add_namespace, all_ready, cluster, operator, settle  # noqa: E402
from hack.controlplane.access import read_calls  # noqa: E402

NAMESPACE = "team"
RESYNC_SECONDS = 60.0
AGENT = "empg-operator"
KINDS: dict[str, dict[str, Any]] = {
    "samples": {},
    "rolls": {"sampler": {"rollStrategy": "RollingUpdate"}},
    "waits": {"learner": {"podTemplate": {"spec": {"schedulingGates": [{"name": "example.com/gate"}]}}}},
    "rests": {"suspend": True},
}
"""Kind of run: what it has in its spec beside the rest."""
TRAINING = ("samples", "rolls")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if there was a write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="number of runs")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long they are watched")
    given = parser.parse_args(arguments)
    with cluster(given.runs) as there, operator(there, f"--resync-seconds={RESYNC_SECONDS:g}") as (scrape, _):
        add_namespace(there.rest, NAMESPACE)
        names = [f"{kind}-{number}" for number in range(given.runs) for kind in [list(KINDS)[number % len(KINDS)]]]
        training = [name for name in names if name.startswith(TRAINING)]
        for name in names:
            create(there, name)
        settle(scrape, lambda: all_ready(there.rest, len(training)))
        for name in training:
            report(there, name)
        settle(scrape, lambda: True)
        time.sleep(RESYNC_SECONDS)  # what waits is looked at in vain before, and says why
        began = there.audit_log.stat().st_size
        time.sleep(given.seconds)
        calls = [call for call in read_calls(there.audit_log, began) if call.agent.startswith(AGENT)]
    writes = Counter((call.verb, call.resource, call.name) for call in calls if call.writes)
    reads = Counter(call.verb for call in calls if not call.writes)
    print(f"{given.runs} runs, {given.seconds:g} s, all listed every {RESYNC_SECONDS:g} s or so")
    print(f"writes {writes.total()}")
    for what, count in writes.most_common():
        print(f"  {count} {' '.join(what)}")
    print(f"reads {reads.total()} ({', '.join(f'{count} {verb}' for verb, count in reads.most_common())})")
    return 1 if writes else 0


def create(there: Cluster, name: str) -> None:
    """Make a run of the kind that its name begins with."""
    changes = KINDS[name.rpartition("-")[0]]
    spec = {
        "model": {"name": "base-model"},
        "task": {"name": "arithmetic"},
        "em": {"iterations": 100},
        "storage": {"claimName": "shared"},
        **changes,
        "sampler": {"accelerator": "", **changes.get("sampler", {})},
        "learner": {"accelerator": "", **changes.get("learner", {})},
    }
    document = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": name}, "spec": spec}
    there.rest.create(f"/apis/empg.dev/v1alpha1/namespaces/{NAMESPACE}/empgruns", document)


def report(there: Cluster, name: str) -> None:
    """Say as its learner that a run is in the middle of an E-step."""
    progress = {"attempt": 1, "iteration": 7, "iterations": 100, "phase": "sampling", "policyVersion": 7}
    versions = {"samplerVersions": [{"policy": 7, "samplers": 1}], "updated": "2026-01-01T00:00:00Z"}
    body = {
        "apiVersion": "empg.dev/v1alpha1",
        "kind": "EMPGRun",
        "status": {"progress": {**progress, **versions}},
    }
    path = f"/apis/empg.dev/v1alpha1/namespaces/{NAMESPACE}/empgruns/{name}/status"
    there.rest.patch(path, body, "apply", fieldManager="empg-learner", force="true")


if __name__ == "__main__":
    sys.exit(main())
