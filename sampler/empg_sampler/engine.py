"""vLLM's engine as the sampler uses it: requests of token ids, steps, and weights that are swapped between steps.

What is recorded per token is its log-prob under the distribution it was drawn from: after temperature, top-p and top-k,
renormalised over what those keep. A greedy answer (temperature 0) is recorded at temperature 1. The end-of-sequence
token is part of an answer and has a log-prob; its text is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from empg.api.run import RunSpec
from empg.rundir.plan import Sampling
from empg_sampler.environment import Device
from empg_sampler.errors import InvalidSpec
from empg_sampler.weights import BadPolicy, differences, verify

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput

CPU_KV_CACHE_MIB = 512
"""Key-value cache on CPU where `sampler.kvCacheMib` is absent. vLLM would take a share of all memory."""
ALONE, BESIDE_LEARNER = 0.9, 0.4
"""Share of GPU memory where `sampler.gpuMemoryUtilization` is absent. vLLM starts only where so much is free."""
INSPECTION_FAILED = "to be inspected"
"""Said by vLLM when its process that looks at the model's class ended, as for want of memory: no fault of the spec."""
OWN_ARGUMENTS = frozenset(
    {
        "model",
        "tokenizer",
        "dtype",
        "max_model_len",
        "max_num_seqs",
        "tensor_parallel_size",
        "trust_remote_code",
        "logprobs_mode",
        "worker_extension_cls",
        "disable_log_stats",
    }
)
"""Engine arguments that the sampler's correctness rests on, or that have a field of their own."""


@dataclass(frozen=True)
class Policy:
    """One published policy on a local file system."""

    version: int
    directory: Path
    """Hugging Face layout: safetensors, config and tokenizer."""
    files: Mapping[str, tuple[int, str]]
    """Size in bytes and hex SHA-256 by name in `directory`."""


@dataclass(frozen=True)
class Completion:
    """The end of one request."""

    request_id: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """As long as `token_ids`, in nats."""
    text: str
    """Without special tokens, and without the stop text that ended it."""
    finish_reason: str
    """`stop` or `length`; anything else (`abort`, `error`) is no answer."""
    policy_versions: tuple[tuple[int, int], ...]
    """Runs of (policy version, number of tokens)."""

    @property
    def answered(self) -> bool:
        """Whether the request ended as an answer does, with numbers that can be trained on."""
        return self.finish_reason in ("stop", "length") and all(map(math.isfinite, self.logprobs))


def engine_arguments(
    spec: RunSpec, directory: Path, device: Device, *, stats: bool = False, sleeps: bool = False
) -> dict[str, Any]:
    """vLLM's `EngineArgs` for a run whose policies look like the one in `directory`.

    `stats`: keep vLLM's own metrics. `sleeps`: the engine will be put to sleep. InvalidSpec names what
    `sampler.engineArgs` may not set.
    """
    from vllm.engine.arg_utils import EngineArgs

    sampler = spec.sampler
    known = {field.name for field in fields(EngineArgs)}
    for name in sampler.engine_args:
        if name in OWN_ARGUMENTS:
            raise InvalidSpec(f"sampler.engineArgs.{name} is set by the sampler itself; remove it")
        if name not in known:
            raise InvalidSpec(f"sampler.engineArgs.{name} is no engine argument of this vLLM; remove or correct it")
    kv_cache_mib = sampler.kv_cache_mib or (CPU_KV_CACHE_MIB if device == "cpu" else None)
    arguments: dict[str, Any] = {
        "model": str(directory),
        "tokenizer": str(directory),
        "dtype": spec.model.dtype,
        "max_model_len": spec.model_length,
        "max_num_seqs": sampler.max_concurrent_sequences,
        "tensor_parallel_size": sampler.tensor_parallel,
        "trust_remote_code": spec.model.trust_remote_code,
        "kv_cache_memory_bytes": kv_cache_mib << 20 if kv_cache_mib else None,
        "logprobs_mode": "processed_logprobs",
        "worker_extension_cls": "empg_sampler.worker_extension.PolicyWorker",
        "disable_log_stats": not stats,
        "use_tqdm_on_load": False,
    }
    if device == "cpu":
        # A prompt split over two steps ends the engine when its request has a seed ("CPU Generator does not use
        # offset"); and compiling costs 20 s at each start.
        arguments |= {"enforce_eager": True, "enable_chunked_prefill": False}
    else:
        share = sampler.gpu_memory_utilization or (BESIDE_LEARNER if sleeps else ALONE)
        arguments |= {"gpu_memory_utilization": share, "enable_sleep_mode": sleeps}
    return arguments | sampler.engine_args


class Engine:
    """One vLLM engine in this process (plus one process per GPU with tensor parallelism)."""

    def __init__(self, policy: Policy, arguments: Mapping[str, Any]) -> None:
        """Start on a policy with arguments of `engine_arguments`.

        Raises BadPolicy before anything else, and if the policy is removed meanwhile; InvalidSpec when vLLM refuses the
        arguments for this model.
        """
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        self._layout = verify(policy.directory, policy.files)
        checked = EngineArgs(**arguments)
        try:
            # By its context vLLM chooses how many tokens a step takes; what is unknown gets few.
            config = checked.create_engine_config(UsageContext.LLM_CLASS if current_platform.is_cuda() else None)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            if not policy.directory.is_dir():
                raise BadPolicy(f"{policy.directory} was removed while the engine started") from error
            if INSPECTION_FAILED in reason:
                raise
            raise InvalidSpec(f"vLLM can't serve this model as spec.sampler asks: {reason}") from error
        self._llm = LLMEngine.from_vllm_config(config, disable_log_stats=checked.disable_log_stats)
        self._llm.set_weight_version(str(policy.version))
        self._tokenizer = self._llm.get_tokenizer()
        self._detokenized: set[str] = set()
        """Running requests whose text vLLM makes while it decodes."""
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="verify")
        self._verification: tuple[Policy, Future[None]] | None = None
        """The policy that is verified beside generation, or was."""
        self.version = policy.version
        self.model_length = int(self._llm.model_config.max_model_len)

    @property
    def running(self) -> int:
        """Requests that were added and did not end."""
        return int(self._llm.get_num_unfinished_requests())

    def add(self, request_id: str, prompt_ids: Sequence[int], sampling: Sampling, seed: int) -> None:
        """Queue one answer to one prompt.

        Raises ValueError when prompt and answer together are longer than the engine's sequences, and for whatever else
        vLLM refuses, as a temperature above 2.
        """
        from vllm.exceptions import VLLMClientError

        if len(prompt_ids) + sampling.max_tokens > self.model_length:
            raise ValueError(
                f"{len(prompt_ids)} prompt tokens and up to {sampling.max_tokens} of the answer exceed the engine's "
                f"{self.model_length}; raise sampler.maxModelLength"
            )
        try:
            [prompt] = self._llm.renderer.render_cmpl([{"prompt_token_ids": list(prompt_ids)}])
            self._llm.add_request(request_id, prompt, _parameters(sampling, seed))
        except VLLMClientError as error:
            raise ValueError(f"vLLM refuses the request: {error}") from error
        if sampling.stop:
            self._detokenized.add(request_id)

    def step(self) -> list[Completion]:
        """One forward pass for every running request; the requests that ended with it."""
        return [self._completion(output) for output in self._llm.step() if output.finished]

    def may_swap(self, policy: Policy) -> bool:
        """Whether a swap has only to load `policy`.

        While requests run, its verification, which reads all of it, is made beside them: the first call starts it.
        """
        if not self.running:
            return True
        if self._verification is None or self._verification[0] != policy:
            self._verification = policy, self._reader.submit(self._verify, policy)
        return self._verification[1].done()

    def swap(self, policy: Policy) -> float:
        """Serve another policy from the next step on; the seconds it took.

        Running requests go on: their key-value cache is recomputed under the new weights, and their tokens so far keep
        their version. Raises BadPolicy, with the old policy still served, when the new one does not verify or fit.
        """
        start = time.monotonic()
        self._check(policy)
        self._load(policy)
        return time.monotonic() - start

    def forget_prefixes(self) -> None:
        """Empty the prefix cache, so that the next requests find what they would find in a fresh engine."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache can't be emptied while requests run")

    def abort(self, request_ids: Sequence[str]) -> None:
        """Drop requests; they produce no completion."""
        self._llm.abort_request(list(request_ids))
        self._detokenized.difference_update(request_ids)

    def sleep(self) -> None:
        """Give the GPU's memory to somebody else: weights and cache are dropped. For an engine that may sleep."""
        self._llm.sleep(level=2)

    def wake(self, policy: Policy) -> float:
        """Take the memory back and load a policy, since sleeping dropped the weights; the seconds it took.

        Raises BadPolicy like `swap`; the engine then sleeps on.
        """
        start = time.monotonic()
        self._check(policy)
        self._llm.wake_up()
        self._load(policy)
        return time.monotonic() - start

    def _check(self, policy: Policy) -> None:
        verification, self._verification = self._verification, None
        if verification is not None and verification[0] == policy:
            verification[1].result()
        else:
            self._verify(policy)

    def _verify(self, policy: Policy) -> None:
        if wrong := differences(verify(policy.directory, policy.files), self._layout):
            raise BadPolicy(f"{policy.directory}: not a policy of this run's model: {wrong}")

    def _load(self, policy: Policy) -> None:
        paths = sorted(str(policy.directory / name) for name in policy.files if name.endswith(".safetensors"))
        self._llm.collective_rpc("load_policy", args=(paths,))
        # In this order: preempting the running requests also discards a batch that is still in flight on a GPU, whose
        # tokens are the old policy's and must not be stamped with the new version.
        self._llm.reset_prefix_cache(reset_running_requests=True)
        self._llm.set_weight_version(str(policy.version))
        self.version = policy.version

    def _completion(self, output: RequestOutput) -> Completion:
        (answer,) = output.outputs
        token_ids = tuple(answer.token_ids)
        logprobs = answer.logprobs
        if output.request_id in self._detokenized:
            self._detokenized.remove(output.request_id)
            text = answer.text
        else:
            text = self._tokenizer.decode(answer.token_ids, skip_special_tokens=True)
        return Completion(
            request_id=output.request_id,
            token_ids=token_ids,
            logprobs=tuple(logprobs.logprobs) if logprobs is not None else (),
            text=text,
            finish_reason=answer.finish_reason or "error",
            policy_versions=tuple((int(span.version), span.end - span.start) for span in answer.weight_versions or ()),
        )


def _parameters(sampling: Sampling, seed: int) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop) or None,
        # Text while decoding is only needed to see stop texts; it costs a detokenizer call per token.
        detokenize=bool(sampling.stop),
        seed=None if sampling.temperature == 0 else seed,
        logprobs=0,
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
