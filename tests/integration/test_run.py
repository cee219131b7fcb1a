"""`empg run` end to end with real engines: one run, looked at from every side."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from empg.rundir.evaluations import read_results
from empg.rundir.metrics import read_metrics
from empg.store.posix import PosixStore

ROOT = Path(__file__).parents[2]
ITERATIONS = 4
LEARNER_PORT, SAMPLER_PORT = 19401, 19402

MANIFEST = f"""\
apiVersion: empg.dev/v1alpha1
kind: EMPGRun
metadata: {{name: small}}
spec:
  model: {{name: {ROOT}/examples/demo/base-model, dtype: float32}}
  task: {{name: arithmetic, maxPromptTokens: 96, grader: {{workers: 1}}}}
  em: {{iterations: {ITERATIONS}, promptsPerIteration: 8, samplesPerPrompt: 4, promptsPerUnit: 4, maxStaleness: LAG}}
  optimizer: {{learningRate: 1e-4}}
  sampler: {{maxTokens: 40, kvCacheMib: 64, leaseSeconds: 10, metricsPort: {SAMPLER_PORT}}}
  learner: {{precision: float32, tokensPerMicroBatch: 1024, metricsPort: {LEARNER_PORT}}}
  evaluation: {{prompts: 16, every: 2, samples: 2, promptsPerUnit: 8}}
"""

FIGURES = """
loss reward_mean reward_std accuracy advantage_mean advantage_std entropy kl_behaviour ratio_min ratio_mean ratio_max
grad_norm learning_rate tokens tokens_per_second seconds_sampling seconds_learning staleness_mean filtered_share
truncated_share response_length_mean
"""


def empg(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "empg.cli.main", *arguments]


def run(*arguments: str, seconds: float = 400) -> subprocess.CompletedProcess[str]:
    return subprocess.run(empg(*arguments), capture_output=True, text=True, timeout=seconds, check=False)


def say(*arguments: str) -> str:
    done = run(*arguments, seconds=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(what: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@dataclass(frozen=True)
class Finished:
    manifest: Path
    root: Path
    log: str
    learner_metrics: str
    sampler_metrics: str


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        text: str = reply.read().decode()
    return text


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that was stopped by Ctrl-C after an iteration, gone on with, edited twice, and run to its end."""
    place = tmp_path_factory.mktemp("run")
    manifest, root, log = place / "run.yaml", place / "dir", place / "log"
    text = MANIFEST.replace("LAG", "0")
    manifest.write_text(text.replace(f"iterations: {ITERATIONS}", f"iterations: {ITERATIONS - 1}"))
    command = empg("run", str(manifest), "--run-dir", str(root), "--plain")
    store = PosixStore(root)

    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: first.poll() is not None or len(read_metrics(store)) >= 1)
    learner_metrics, sampler_metrics = scrape(LEARNER_PORT), scrape(SAMPLER_PORT)
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 75, said
    assert "the same command goes on from here" in said

    with log.open("w") as file:
        second = subprocess.Popen(command, stdout=file, stderr=file)
        until(lambda: "run directory" in log.read_text())
        manifest.write_text(text.replace("dtype: float32", "dtype: bfloat16"))
        until(lambda: "edit not taken: spec.model.dtype is immutable" in log.read_text(), 20)
        manifest.write_text(text)
        until(lambda: "edit taken" in log.read_text(), 20)
        assert second.wait(400) == 0, log.read_text()
    return Finished(manifest, root, log.read_text(), learner_metrics, sampler_metrics)


@pytest.mark.slow
def test_the_last_line_tells_the_accuracy_before_and_after(finished: Finished) -> None:
    results = read_results(PosixStore(finished.root))
    before, after = results[0].greedy, results[ITERATIONS].greedy
    assert finished.log.splitlines()[-1] == f"held-out greedy accuracy {before:.3f} -> {after:.3f}"
    assert (finished.root / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_every_iteration_has_whole_and_finite_metrics(finished: Finished) -> None:
    rows = read_metrics(PosixStore(finished.root))
    assert [row["iteration"] for row in rows] == list(range(ITERATIONS))
    for row in rows:
        for key in FIGURES.split():
            assert isinstance(row[key], int | float), key
        assert row["staleness_max"] == 0
        assert row["logprob_mismatch"] < 1e-4
        assert 0 < row["accuracy"] < 1


@pytest.mark.slow
def test_evaluations_are_greedy_and_averaged(finished: Finished) -> None:
    results = read_results(PosixStore(finished.root))
    assert list(results) == [0, 2, 4]
    for result in results.values():
        assert result.greedy is not None
        assert result.average is not None
        assert result.prompts == 16


@pytest.mark.slow
def test_show_prints_the_table(finished: Finished) -> None:
    table = say("show", str(finished.root))
    assert "small: done, iteration 4/4" in table
    assert len([line for line in table.splitlines() if line.strip()[:1].isdigit()]) == ITERATIONS
    rows = [json.loads(line) for line in say("show", str(finished.root), "--json", "--last", "2").splitlines()]
    assert [row["iteration"] for row in rows] == [2, 3]


@pytest.mark.slow
def test_trajectories_can_be_looked_at(finished: Finished) -> None:
    rows = [
        json.loads(line)
        for line in say("trajectories", str(finished.root), "--all", "--json", "--limit", "999").splitlines()
    ]
    assert len(rows) == ITERATIONS * 8 * 4
    assert len({(row["iteration"], row["prompt_id"], row["sample"]) for row in rows}) == len(rows)
    for row in rows:
        assert len(row["logprobs"]) == len(row["response_ids"])
        assert row["policy_versions"] == [[row["iteration"], len(row["response_ids"])]]
    wrong = say("trajectories", str(finished.root), "--iteration", "0", "--verdict", "wrong", "--limit", "1")
    assert "iteration 0" in wrong
    assert "wrong" in wrong
    best = [json.loads(line) for line in say("trajectories", str(finished.root), "--best", "3", "--json").splitlines()]
    assert [row["reward"] for row in best] == sorted((row["reward"] for row in best), reverse=True)


@pytest.mark.slow
def test_learner_and_sampler_serve_metrics(finished: Finished) -> None:
    assert "empg_learner_iteration" in finished.learner_metrics
    assert "empg_sampler_policy_version" in finished.sampler_metrics
    assert "vllm:generation_tokens_total" in finished.sampler_metrics


@pytest.mark.slow
def test_a_finished_run_is_left_alone(finished: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished.root / "policy").rglob("*")}
    started = time.monotonic()
    assert "held-out greedy accuracy" in say("run", str(finished.manifest), "--run-dir", str(finished.root), "--plain")
    assert time.monotonic() - started < 60
    assert {path: path.stat().st_mtime_ns for path in (finished.root / "policy").rglob("*")} == before


@pytest.mark.slow
def test_another_run_is_kept_out_of_the_directory(finished: Finished) -> None:
    other = finished.manifest.with_name("other.yaml")
    other.write_text(
        finished.manifest.read_text().replace("task: {name: arithmetic", "task: {name: arithmetic, levels: [1]")
    )
    done = run("run", str(other), "--run-dir", str(finished.root))
    assert done.returncode == 64
    assert "run.json" in done.stderr
    assert "adopt" in done.stderr


@pytest.mark.slow
def test_samplers_work_ahead_with_staleness_one(tmp_path: Path) -> None:
    manifest, root = tmp_path / "run.yaml", tmp_path / "dir"
    manifest.write_text(MANIFEST.replace("LAG", "1").replace("metricsPort", "replicas: 2, metricsPort", 1))
    done = run("run", str(manifest), "--run-dir", str(root), "--plain")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_metrics(PosixStore(root))
    assert len(rows) == ITERATIONS
    assert max(row["staleness_max"] for row in rows) == 1


@pytest.mark.slow
def test_a_model_that_is_not_there_ends_the_run_with_64(tmp_path: Path) -> None:
    manifest = tmp_path / "run.yaml"
    manifest.write_text(MANIFEST.replace("LAG", "0").replace(f"{ROOT}/examples/demo/base-model", "./absent"))
    done = run("run", str(manifest), "--run-dir", str(tmp_path / "dir"), "--plain")
    assert done.returncode == 64, done.stdout + done.stderr
    assert "model.name" in done.stdout
