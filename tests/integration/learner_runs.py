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


class Run:
    """A run directory, its manifest and its learners."""

    def __init__(self, root: Path, spec_file: Path, base: Path, uid: str | None, **changes: dict[str, object]) -> None:
        """`changes` of the spec by section; `base` is where the base model goes."""
        self.root = root
        self.store = PosixStore(root)
        self.spec = {section: {**SPEC.get(section, {}), **changes.get(section, {})} for section in {*SPEC, *changes}}
        self._spec_file = spec_file
        self._metadata = {"name": "t"} | ({} if uid is None else {"uid": uid})
        self._started = 0
        spec_file.parent.mkdir(parents=True)
        self.write()
        save_tiny_model(base)

    def write(self) -> None:
        run = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": self._metadata, "spec": self.spec}
        self._spec_file.write_text(json.dumps(run))

    def launch(self, module: str, arguments: list[str], *environments: dict[str, str]) -> Learner:
        self._started += 1
        log = self._spec_file.parent / f"learner-{self._started}.log"
        return Learner(module, arguments, [ENVIRONMENT | environment for environment in environments], log)

    def phase(self, attempt: int = 1) -> str | None:
        """What the learner does, None before that of this `attempt` told."""
        progress = read_progress(self.store)
        return progress.phase if progress is not None and progress.attempt == attempt else None

    def weights(self) -> dict[int, str]:
        """Digest of the weights of each policy."""
        digests = {}
        for version in policies(self.store):
            manifest = read_manifest(self.store, keys.policy_prefix(version))
            assert manifest is not None, version
            digests[version] = manifest.files["model.safetensors"].sha256
        return digests


class Directory(Run):
    """A run on one machine."""

    def __init__(self, place: Path, **changes: dict[str, object]) -> None:
        root = place / "run"
        super().__init__(root, root / "manifest.json", root / "base", None, **changes)

    def start(self, **environment: str) -> Learner:
        """`empg-learner`."""
        return self.launch("empg_trainer.main", [str(self.root)], environment)

    def start_ranks(self, world: int) -> Learner:
        """The ranks of the learner without its launcher, which would import everything again for each."""
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        sizes = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} | address | sizes for rank in range(world)]
        return self.launch("empg_trainer.worker", [str(self.root)], *ranks)

    def learn(self, ranks: int = 1, **sampler: object) -> tuple[int, str]:
        """(exit code, what it said) of a learner with a sampler beside it."""
        with ScriptedSampler(self.store, **sampler):
            return (self.start() if ranks == 1 else self.start_ranks(ranks)).ended()


def until(what: Callable[[], bool], *learners: Learner, seconds: float = 120) -> None:
    """Wait until something holds; fails when it takes too long or a learner ends meanwhile."""
    deadline = time.monotonic() + seconds
    while not what():
        for learner in learners:
            assert learner.running, learner.ended()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
