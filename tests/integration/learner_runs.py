"""Run directories of a tiny model, and learners on them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

from scripted_sampler import ScriptedSampler
from tiny_model import save_tiny_model
from warm import Learner

from empg.rundir import keys
from empg.rundir.group import policies, read_manifest
from empg.rundir.progress import read_progress
from empg.store.posix import PosixStore

SPEC = {
    "model": {"name": "base", "dtype": "float32"},
    "task": {"name": "arithmetic", "maxPromptTokens": 200},
    "em": {"iterations": 3, "promptsPerIteration": 4, "samplesPerPrompt": 2, "promptsPerUnit": 2},
    "optimizer": {"learningRate": 1e-3},
    "sampler": {"maxTokens": 12},
    "learner": {"precision": "float32", "tokensPerMicroBatch": 300, "logprobChunkTokens": 8, "deadlineSeconds": 60},
    "evaluation": {"prompts": 4, "every": 2, "promptsPerUnit": 2, "deadlineSeconds": 30},
    "retention": {"policies": 100},
}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


class Directory:
    """A run directory and its learner."""

    def __init__(self, place: Path, **changes: dict[str, object]) -> None:
        self.root = place / "run"
        self.store = PosixStore(self.root)
        self.spec = {section: {**SPEC.get(section, {}), **changes.get(section, {})} for section in {*SPEC, *changes}}
        self.root.mkdir(parents=True)
        save_tiny_model(self.root / "base")
        self.write()
        self._started = 0

    def write(self) -> None:
        run = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": "t"}, "spec": self.spec}
        self.store.put("manifest.json", json.dumps(run).encode())

    def start(self, **environment: str) -> Learner:
        """``empg-learner``."""
        return self._start("empg_trainer.main", [environment])

    def start_ranks(self, world: int) -> Learner:
        """The ranks of the learner without its launcher, which would import everything again for each."""
        port = str(free_port())
        return self._start(
            "empg_trainer.worker",
            [
                {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(world),
                    "LOCAL_WORLD_SIZE": str(world),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                }
                for rank in range(world)
            ],
        )

    def _start(self, module: str, environments: list[dict[str, str]]) -> Learner:
        self._started += 1
        log = self.root.parent / f"learner-{self._started}.log"
        return Learner(module, [str(self.root)], [ENVIRONMENT | environment for environment in environments], log)

    def learn(self, ranks: int = 1, seconds: float = 240, **sampler: object) -> tuple[int, str]:
        """(exit code, what it said) of a learner with a sampler beside it."""
        with ScriptedSampler(self.store, **sampler):
            learner = self.start() if ranks == 1 else self.start_ranks(ranks)
            return learner.ended(seconds)

    def until(self, what: Callable[[], bool], learner: Learner, seconds: float = 120) -> None:
        """Wait until something holds while the learner is running."""
        deadline = time.monotonic() + seconds
        while not what():
            assert learner.running, learner.ended()
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    def sampling(self, attempt: int = 1) -> bool:
        """Whether a learner waits for samplers."""
        progress = read_progress(self.store)
        return progress is not None and progress.phase == "sampling" and progress.attempt == attempt

    def weights(self) -> dict[int, str]:
        """Digest of the weights of each policy."""
        digests = {}
        for version in policies(self.store):
            manifest = read_manifest(self.store, keys.policy_prefix(version))
            assert manifest is not None, version
            digests[version] = manifest.files["model.safetensors"].sha256
        return digests


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
