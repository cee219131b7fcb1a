"""Learner and sampler are killed at random instants; the run ends with the very weights of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from empg.rundir.group import read_manifest
from empg.rundir.metrics import read_metrics
from empg.store.posix import PosixStore

ROOT = Path(__file__).parents[2]
ITERATIONS = 12
LIMIT_SECONDS = 900

LEARNER, SAMPLER = "empg_trainer", "empg_sampler"
KILLS = [(LEARNER, SAMPLER), (SAMPLER,), (LEARNER,), (SAMPLER, LEARNER), (LEARNER,), (SAMPLER,), (LEARNER, SAMPLER)]
"""Who is killed when the run has come another part of its way; the second of two while the first starts again."""

MANIFEST = f"""\
apiVersion: empg.dev/v1alpha1
kind: EMPGRun
metadata: {{name: kill}}
spec:
  model: {{name: {ROOT}/examples/demo/base-model, dtype: float32}}
  task: {{name: arithmetic, maxPromptTokens: 96, grader: {{workers: 1}}}}
  em: {{iterations: {ITERATIONS}, promptsPerIteration: 8, samplesPerPrompt: 4, promptsPerUnit: 2, unitAttempts: 100}}
  optimizer: {{learningRate: 1e-4}}
  sampler: {{maxTokens: 40, deterministic: true, kvCacheMib: 64, leaseSeconds: 5, maxConcurrentSequences: 32}}
  learner: {{precision: float32, zeroStage: 1, tokensPerMicroBatch: 1024, processes: RANKS}}
  evaluation: {{prompts: 16, every: 5}}
  retention: {{policies: 100}}
"""


@contextmanager
def running(manifest: Path, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "empg.cli.main",
        "run",
        str(manifest),
        "--run-dir",
        str(root),
        "--plain",
        "--restarts",
        "1000",
    ]
    with (root.parent / f"{root.name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def programs(supervisor: int) -> dict[str, list[int]]:
    """Process groups of the supervisor's children, by program."""
    found: dict[str, list[int]] = {SAMPLER: [], LEARNER: []}
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    for child in map(int, children):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes().decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for name, pids in found.items():
            if name in command:
                pids.append(child)
    return found


def weights(root: Path) -> dict[int, dict[str, str]]:
    """SHA-256 of every weight file of every published policy."""
    store = PosixStore(root)
    digests = {}
    for version in range(ITERATIONS + 1):
        manifest = read_manifest(store, f"policy/{version:06d}")
        assert manifest is not None, f"policy {version} is missing"
        digests[version] = {
            name: digest for name, (_, digest) in manifest.files.items() if name.endswith(".safetensors")
        }
    return digests


@pytest.mark.slow
@pytest.mark.flaky(reruns=0)  # chance that a second try would hide is what it looks for
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_weights_after_kills_equal_the_undisturbed_run(tmp_path: Path, ranks: int) -> None:
    manifest = tmp_path / "run.yaml"
    manifest.write_text(MANIFEST.replace("RANKS", str(ranks)))
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    instants = random.Random(ranks)
    # Both at once: while one process starts again, the other core would have nothing to do.
    with running(manifest, calm) as undisturbed, running(manifest, disturbed) as process:
        store = PosixStore(disturbed)
        deadline = time.monotonic() + LIMIT_SECONDS

        def until(what: Callable[[], object]) -> None:
            while not what():
                assert time.monotonic() < deadline, "the run made no progress"
                assert process.poll() is None, "the run ended before it was killed often enough"
                time.sleep(0.05)

        for number, names in enumerate(KILLS):
            reached = number * (ITERATIONS - 2) / len(KILLS)
            until(lambda: disturbed.exists() and len(read_metrics(store)) >= reached)  # noqa: B023 - called at once
            for name in names:
                time.sleep(instants.uniform(0, 1.5))
                until(lambda: programs(process.pid)[name])  # noqa: B023
                for pid in programs(process.pid)[name]:
                    os.killpg(pid, signal.SIGKILL)
        assert process.wait(LIMIT_SECONDS) == 0, (tmp_path / "disturbed.log").read_text()
        assert undisturbed.wait(LIMIT_SECONDS) == 0, (tmp_path / "calm.log").read_text()

    assert (tmp_path / "disturbed.log").read_text().count("starting it again") >= sum(map(len, KILLS))
    assert weights(disturbed) == weights(calm)
    assert len({digest for files in weights(calm).values() for digest in files.values()}) == ITERATIONS + 1
    assert not any(row.get("void_units") for row in read_metrics(PosixStore(disturbed)))
