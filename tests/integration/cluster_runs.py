"""A run as pods see it: a claim, a mounted manifest, a run directory that is not there yet, a file for last words."""

from __future__ import annotations

from pathlib import Path

from learner_runs import Run, free_port
from scripted_sampler import ScriptedSampler
from warm import Learner

UID = "0b6c7d9e-1111-4222-8333-444455556666"


class ClusterRun(Run):
    """Learner pods of one run are processes here."""

    def __init__(self, place: Path, **changes: dict[str, object]) -> None:
        claim, spec_file = place / "claim", place / "etc" / "run.json"
        self.last_words = place / "termination-log"
        super().__init__(claim / "t", spec_file, claim / "base", UID, **changes)
        self.arguments = [str(self.root), "--spec", str(spec_file), "--base-dir", str(claim)]
        self.last_words.touch()

    def learner(self, *arguments: str, **environment: str) -> Learner:
        """Start a learner pod."""
        self.last_words.write_text("")
        words = {"EMPG_TERMINATION_LOG": str(self.last_words)}
        return self.launch("empg_trainer.main", [*self.arguments, *arguments], words | environment)

    def nodes(self, *arguments: str) -> list[Learner]:
        """Start the learner pods of an Indexed Job, which know node 0 by different names."""
        port = free_port()
        return [
            self.learner(*arguments, MASTER_ADDR=name, MASTER_PORT=port, JOB_COMPLETION_INDEX=str(index))
            for index, name in enumerate(("127.0.0.1", "localhost", "127.0.0.2")[: self.spec["learner"]["nodes"]])
        ]

    def learn(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """(exit code, what it said) of a learner with a sampler beside it."""
        with ScriptedSampler(self.store):
            return self.learner(*arguments, **environment).ended()
