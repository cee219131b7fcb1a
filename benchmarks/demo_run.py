"""A finished run of the demo: what it took, and what another loop needs to do the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from empg.api.run import RunSpec
from empg.rundir import keys
from empg.rundir.group import group_dir, read_manifest
from empg.rundir.metrics import read_metrics
from empg.rundir.plan import PlannedPrompt
from empg.rundir.plans import read_plans
from empg.rundir.specs import read_spec
from empg.store.posix import PosixStore

DEMO = Path(__file__).parents[1] / "examples" / "demo" / "empgrun.yaml"
LIMIT_SECONDS = 3600
WARM_UP = 2
"""First iterations, which are left out of all medians: caches fill and allocators grow."""
SMALL = {"em.promptsPerIteration": 8, "em.samplesPerPrompt": 4}
"""Changes for a quick look."""

CORES = str(len(os.sched_getaffinity(0)))
ENGINE = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": CORES,
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Environment of a process with vLLM in it, as our sampler has it; set before vLLM is imported."""


def run_demo(root: Path, iterations: int, changes: dict[str, int]) -> list[dict[str, float]]:
    """Figures of each iteration of a run without evaluations, with a learner and a sampler process."""
    settings = {"em.iterations": iterations, "evaluation.prompts": 0} | changes
    given = [f"--set={name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "empg.cli.main", "run", str(DEMO), "--run-dir", str(root), "--plain", *given]
    subprocess.run(command, check=True, timeout=LIMIT_SECONDS, stdout=sys.stderr)
    return read_metrics(PosixStore(root))[WARM_UP:]


@dataclass(frozen=True)
class Finished:
    """A run directory."""

    spec: RunSpec
    base: str
    """Directory of the base model."""
    prompts: list[list[PlannedPrompt]]
    """By iteration."""


def read_run(root: Path, iterations: int) -> Finished:
    """What a finished run of so many iterations trained, and on what."""
    store = PosixStore(root)
    manifest = read_manifest(store, keys.policy_prefix(0))
    assert manifest is not None, "a finished run has policies"
    prompts = [
        [prompt for plan in read_plans(store, "rollout", t) for unit in plan.units for prompt in unit.prompts]
        for t in range(iterations)
    ]
    return Finished(read_spec(store, 0), str(group_dir(store, keys.policy_prefix(0), manifest)), prompts)


def reward(response: str, gold: str) -> float:
    """1 if the last number of the response is the gold one."""
    numbers = re.findall(r"-?\d+", response)
    return float(bool(numbers) and int(numbers[-1]) == int(gold))
