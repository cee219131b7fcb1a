"""A run as pods see it: a claim, a mounted manifest, a run directory that is not there yet, a file for last words."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

from scripted_sampler import ScriptedSampler
from tiny_model import save_tiny_model

from empg.rundir import keys
from empg.rundir.group import policies, read_manifest
from empg.rundir.progress import read_progress
from empg.store.posix import PosixStore

UID = "0b6c7d9e-1111-4222-8333-444455556666"
SPEC = {
    "model": {"name": "base", "dtype": "float32"},
    "task": {"name": "arithmetic", "maxPromptTokens": 200},
    "em": {"iterations": 3, "promptsPerIteration": 4, "samplesPerPrompt": 2, "promptsPerUnit": 2},
    "optimizer": {"learningRate": 1e-3},
    "sampler": {"maxTokens": 12},
    "learner": {"precision": "float32", "tokensPerMicroBatch": 300, "logprobChunkTokens": 8, "deadlineSeconds": 120},
    "evaluation": {"prompts": 4, "every": 2, "promptsPerUnit": 2, "deadlineSeconds": 30},
    "retention": {"policies": 100},
}


class ClusterRun:
    """Learner pods of one run are processes here."""

    def __init__(self, place, **changes):
        self.claim = place / "claim"
        self.root = self.claim / "t"
        self.store = PosixStore(self.root)
        self.spec = {section: {**SPEC.get(section, {}), **changes.get(section, {})} for section in {*SPEC, *changes}}
        self.spec_file = place / "etc" / "run.json"
        self.spec_file.parent.mkdir(parents=True)
        self.last_words = place / "termination-log"
        self.last_words.touch()
        self.write()
        save_tiny_model(self.claim / "base")

    def write(self):
        """Mount the manifest."""
        metadata = {"name": "t", "uid": UID}
        run = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": metadata, "spec": self.spec}
        self.spec_file.write_text(json.dumps(run))

    def learner(self, *arguments, under=(), **environment):
        """Start a learner pod."""
        paths = [str(self.root), "--spec", str(self.spec_file), "--base-dir", str(self.claim)]
        self.last_words.write_text("")
        return subprocess.Popen(
            [*under, sys.executable, "-m", "empg_trainer.main", *paths, *arguments],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "PYTHONWARNINGS": "ignore",
                "EMPG_TERMINATION_LOG": str(self.last_words),
                **environment,
            },
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def nodes(self, *arguments):
        """Start the learner pods of an Indexed Job, which know node 0 by different names."""
        port = free_port()
        return [
            self.learner(*arguments, MASTER_ADDR=name, MASTER_PORT=port, JOB_COMPLETION_INDEX=str(index))
            for index, name in enumerate(("127.0.0.1", "localhost", "127.0.0.2")[: self.spec["learner"]["nodes"]])
        ]

    def learn(self, *arguments, seconds=240, sampler=None, **environment):
        """(exit code, what it said) of a learner with a sampler beside it."""
        with ScriptedSampler(self.store, **(sampler or {})):
            return ended(self.learner(*arguments, **environment), seconds)

    def phase(self):
        progress = read_progress(self.store)
        return progress.phase if progress else None

    def weights(self):
        """Digest of the weights of each policy."""
        return {
            version: read_manifest(self.store, keys.policy_prefix(version)).files["model.safetensors"].sha256
            for version in policies(self.store)
        }


def ended(process, seconds=240):
    """(exit code, what it said) of a process that ends in time."""
    try:
        said = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, said


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def until(condition, *processes, seconds=120):
    """Wait until something holds; fails when it takes too long or a process ends meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
