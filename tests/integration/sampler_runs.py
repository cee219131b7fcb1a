"""Run directories with hand-made policies and plans, and sampler processes on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny_model import VOCABULARY, save_tiny_model, tiny_model

from empg.api.run import RunSpec
from empg.api.task import GraderSpec
from empg.rundir.group import FileEntry, publish_policy
from empg.rundir.identity import Identity, prepare
from empg.rundir.owner import LearnerOwner
from empg.rundir.plan import Plan, PlannedPrompt, Sampling, Unit
from empg.rundir.specs import write_spec
from empg.store.posix import PosixStore

RUN = "uid-1"
SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}  # vLLM has no heads below 32 on CPU


def policy_files(seed: int, *, tied: bool = True, dtype: torch.dtype = torch.float32, **sizes: int) -> dict[str, bytes]:
    """A policy in Hugging Face layout; another seed gives other weights of the same shapes."""
    model = tiny_model(tied, **(SIZES | sizes))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    with tempfile.TemporaryDirectory() as directory:
        save_tiny_model(Path(directory), tied)
        model.to(dtype).save_pretrained(directory)
        return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def write_policy(directory: Path, files: dict[str, bytes]) -> dict[str, tuple[int, str]]:
    """The files on disk, and the entries of a manifest for them."""
    directory.mkdir(parents=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return {name: (entry.size, entry.sha256) for name, data in files.items() for entry in [FileEntry.of(data)]}


def a_spec(**sampler: object) -> RunSpec:
    settings = {"max_tokens": 32, "kv_cache_mib": 64, "max_concurrent_sequences": 32, "lease_seconds": 5}
    return RunSpec.model_validate(
        {
            "model": {"name": "tiny", "dtype": "float32"},
            "task": {"name": "dataset", "source": "made.jsonl", "max_prompt_tokens": 320, "grader": {"name": "exact"}},
            "em": {"iterations": 2},
            "sampler": settings | sampler,
        }
    )


def a_plan(units: int, *, iteration: int = 0, kind: str = "rollout", round: int = 0, **changes: object) -> Plan:
    """Units of two prompts with four answers each."""
    return Plan.model_validate(
        {
            "run": RUN,
            "kind": kind,
            "iteration": iteration,
            "round": round,
            "min_policy": iteration,
            "max_policy": iteration if kind == "eval" else None,
            "seed": 0,
            "samples": 4,
            "sampling": Sampling(temperature=1, top_p=1, top_k=0, max_tokens=32),
            "grader": GraderSpec(name="exact", workers=1),
            "task": "dataset",
            "units": tuple(
                Unit(
                    name=f"{round:02d}-{unit:04d}",
                    prompts=tuple(
                        PlannedPrompt(prompt_id=f"p{i}", prompt=f"p{i}", prompt_ids=prompt_ids(i), gold="A")
                        for i in (2 * unit, 2 * unit + 1)
                    ),
                )
                for unit in range(units)
            ),
            **changes,
        }
    )


def prompt_ids(seed: int, length: int = 12) -> tuple[int, ...]:
    """Tokens that are neither padding nor the end."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(2, VOCABULARY, (length,), generator=generator).tolist())


def new_run(root: Path, **sampler: object) -> PosixStore:
    """A run directory with a spec and policy 0."""
    store = PosixStore(root)
    prepare(store, Identity(uid=RUN, name="tiny", spec_digest="0" * 64))
    write_spec(store, 0, a_spec(**sampler))
    publish(store, 0)
    return store


def publish(store: PosixStore, version: int, **changes: object) -> None:
    owner = LearnerOwner.acquire(store, "test")
    publish_policy(store, owner, version, policy_files(version, **changes).items(), {})


@dataclass
class Process:
    """A sampler at work."""

    popen: subprocess.Popen[bytes]
    log: Path

    def stop(self, number: signal.Signals, seconds: float) -> tuple[int, float]:
        """Send a signal: the exit code, and how many seconds the end took."""
        start = time.monotonic()
        self.popen.send_signal(number)
        return self.popen.wait(seconds), time.monotonic() - start


@contextmanager
def launcher() -> Iterator[Callable[..., Process]]:
    """`start`, whose processes don't outlive the context."""
    started: list[Process] = []

    def launch(store: PosixStore, sampler: str, *arguments: str) -> Process:
        started.append(start(store, sampler, *arguments))
        return started[-1]

    try:
        yield launch
    finally:
        for process in started:
            process.popen.kill()
            process.popen.wait()


def start(store: PosixStore, sampler: str, *arguments: str) -> Process:
    log = store.root.parent / f"{sampler.replace('/', '-')}.log"
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [sys.executable, "-m", "empg_sampler.main", str(store.root), "--id", sampler, *arguments],
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    return Process(popen, log)


def until(what: Callable[[], bool], *processes: Process, seconds: float = 120) -> None:
    """Wait until something holds; fails when it takes too long or a sampler ends meanwhile."""
    deadline = time.monotonic() + seconds
    while not what():
        for process in processes:
            assert process.popen.poll() is None, process.log.read_text()
        assert time.monotonic() < deadline, [process.log.read_text() for process in processes]
        time.sleep(0.02)
