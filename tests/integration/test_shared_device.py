"""Learner and sampler on one device take turns: the learner trains once the sampler sleeps.

On CPU sleeping frees nothing, so what is tested is the order of events.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from empg.api.load import load_run
from empg.local.prepare import write_manifest
from empg.rundir.final import read_final
from empg.rundir.heartbeat import read_records
from empg.rundir.prepare import prepare_directory
from empg.rundir.progress import read_progress
from empg.store.posix import PosixStore

DEMO = Path(__file__).parents[2] / "examples" / "demo"
LIMIT_SECONDS = 240


@pytest.mark.slow
def test_the_learner_waits_until_samplers_sleep(tmp_path: Path) -> None:
    text = (
        (DEMO / "empgrun.yaml")
        .read_text()
        .replace("iterations: 100", "iterations: 3")
        .replace("prompts: 200", "prompts: 8")
    )
    manifest = tmp_path / "run.yaml"
    manifest.write_text(text.replace("./base-model", str(DEMO / "base-model")))
    root = tmp_path / "dir"
    store, run = PosixStore(root), load_run(manifest)
    prepare_directory(store, run)
    write_manifest(store, run)

    learner = [sys.executable, "-m", "empg_trainer.main", str(root), "--samplers-sleep"]
    sampler = [sys.executable, "-m", "empg_sampler.main", str(root), "--id", "s", "--sleep-while-learning"]
    log = tmp_path / "sampler.log"
    with log.open("wb") as output:
        processes = [subprocess.Popen(learner), subprocess.Popen(sampler, stdout=output, stderr=output)]
    seen: set[tuple[str, bool]] = set()
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        while any(process.poll() is None for process in processes):
            assert time.monotonic() < deadline, "the run did not end in time"
            progress, records = read_progress(store), read_records(store)
            if progress and records:
                seen.add((progress.phase, records[0].asleep))
            time.sleep(0.01)
    finally:
        for process in processes:
            process.kill()
            process.wait()

    assert [process.returncode for process in processes] == [0, 0]
    assert read_final(store) is not None
    assert ("learning", True) in seen
    assert ("sampling", False) in seen
    # Each policy is loaded once, when it is there: a sampler that woke up before would load the one it had for nothing.
    loaded = [line.split("policy ")[1].split()[0] for line in log.read_text().splitlines() if " served after " in line]
    assert loaded == ["1", "2", "3"]
