"""Stands in for vLLM: commits units of tokens drawn from their seeds, with the log-probs that the policy gives them."""

import random
import threading
import time

import torch
from tiny_model import VOCABULARY
from transformers import AutoModelForCausalLM

from empg.rundir import keys
from empg.rundir.claims import claim, survey
from empg.rundir.group import group_dir, newest_policy, read_manifest
from empg.rundir.heartbeat import Liveness, SamplerRecord, write_record
from empg.rundir.identity import read_identity
from empg.rundir.plan import sample_seed
from empg.rundir.plans import read_plans, unsealed
from empg.rundir.units import commit
from empg.store.base import KeyMissing
from empg.trajectory import Trajectory
from empg.verdict import Verdict


class ScriptedSampler(threading.Thread):
    """Works on whatever is planned until it is stopped. `verdict` judges (prompt id, response ids)."""

    def __init__(self, store, verdict=None, logprob_shift=0.0, kinds=("eval", "rollout")):
        super().__init__(daemon=True)
        self.store = store
        self.verdict = verdict or (lambda _, ids: Verdict.CORRECT if ids[0] % 2 else Verdict.WRONG)
        self.logprob_shift = logprob_shift
        self.kinds = kinds
        self.stopping = threading.Event()
        self.model = (None, None)
        self.failure = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()
        if self.failure:
            raise self.failure

    def run(self):
        torch.set_num_threads(1)
        liveness = Liveness(60)
        try:
            while not self.stopping.wait(0.02):
                self.work(liveness)
        except BaseException as error:  # noqa: BLE001
            self.failure = error

    def work(self, liveness):
        try:
            read_identity(self.store)
        except KeyMissing:
            return
        newest = newest_policy(self.store)
        if newest is None:
            return
        write_record(
            self.store,
            SamplerRecord(
                id="s", incarnation="i", counter=time.monotonic_ns(), progress=time.monotonic_ns(), policy=newest
            ),
        )
        for kind in self.kinds:
            for iteration in unsealed(self.store, kind):
                plans = read_plans(self.store, kind, iteration)
                statuses = survey(self.store, plans, liveness)
                for plan in plans:
                    version = plan.max_policy if plan.max_policy is not None else newest
                    if not plan.admits(version) or version > newest:
                        continue
                    for unit in plan.units:
                        status = statuses[unit.name]
                        if status.state == "open" and claim(
                            self.store, plan, unit.name, status.attempt, "s", "i", version
                        ):
                            rows = [row for p in unit.prompts for row in self.answers(plan, unit.name, p, version)]
                            commit(self.store, plan, unit.name, status.attempt, rows)

    def answers(self, plan, unit, prompt, version):
        for sample in range(plan.samples):
            draw = random.Random(sample_seed(plan.seed, plan.kind, plan.iteration, prompt.prompt_id, sample))
            ids = tuple(draw.randrange(2, VOCABULARY) for _ in range(draw.randint(1, plan.sampling.max_tokens)))
            verdict = self.verdict(prompt.prompt_id, ids)
            yield Trajectory(
                run=plan.run,
                iteration=plan.iteration,
                unit=unit,
                prompt_id=prompt.prompt_id,
                sample=sample,
                prompt=prompt.prompt,
                prompt_ids=prompt.prompt_ids,
                response_ids=ids,
                response="",
                logprobs=self.logprobs(version, prompt.prompt_ids, ids, plan.sampling.temperature or 1.0),
                policy_versions=((version, len(ids)),),
                finish_reason="stop" if len(ids) < plan.sampling.max_tokens else "length",
                rewards={},
                reward=float(verdict is Verdict.CORRECT) if verdict.trains else float("nan"),
                verdict=verdict,
            )

    def logprobs(self, version, prompt_ids, ids, temperature):
        if self.model[0] != version:
            manifest = read_manifest(self.store, keys.policy_prefix(version))
            path = group_dir(self.store, keys.policy_prefix(version), manifest)
            self.model = (version, AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32))
        whole = torch.tensor([[*prompt_ids, *ids]])
        with torch.no_grad():
            logits = self.model[1](whole).logits[0, len(prompt_ids) - 1 : -1] / temperature
        found = torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
        return tuple((found + self.logprob_shift).tolist())
