"""The engine against fresh engines and against transformers."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sampler_runs import a_spec, policy_files, prompt_ids, write_policy
from tiny_model import VOCABULARY

from empg.rundir.plan import Sampling
from empg_sampler.engine import Completion, Engine, Policy, engine_arguments
from empg_sampler.environment import variables
from empg_sampler.errors import InvalidSpec
from empg_sampler.weights import BadPolicy

pytestmark = pytest.mark.slow

GREEDY = Sampling(temperature=0, top_p=1, top_k=0, max_tokens=24)
RANDOM = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=24)
KINDS = [(True, "float32"), (False, "float32"), (True, "bfloat16"), (False, "bfloat16")]


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables("cpu", os.environ, 1).items():
            patch.setenv(name, value)
        patch.setattr("torch._dynamo.config.disable", True)  # another test may have imported torch before
        yield


def make_policy(directory: Path, version: int, tied: bool = True, dtype: str = "float32") -> Policy:
    files = policy_files(version, tied=tied, dtype=getattr(torch, dtype))
    return Policy(version, directory, write_policy(directory, files))


def make_engine(policy: Policy, dtype: str = "float32") -> Engine:
    spec = a_spec()
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": dtype})})
    return Engine(policy, engine_arguments(spec, policy.directory, "cpu"))


def answers(engine: Engine, sampling: Sampling, count: int = 6, length: int = 12) -> list[Completion]:
    for index in range(count):
        engine.add(str(index), prompt_ids(index, length), sampling, seed=(1 << 62) + index)
    return finish(engine)


def finish(engine: Engine) -> list[Completion]:
    done: list[Completion] = []
    while engine.running:
        done += engine.step()
    return sorted(done, key=lambda completion: completion.request_id)


def said(completions: list[Completion]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    return [(completion.token_ids, completion.logprobs) for completion in completions]


@pytest.mark.parametrize(("tied", "dtype"), KINDS)
def test_after_a_swap_it_answers_as_a_fresh_engine_does(tmp_path: Path, tied: bool, dtype: str) -> None:
    old, new = (make_policy(tmp_path / str(version), version, tied, dtype) for version in (0, 1))
    engine = make_engine(old, dtype)
    # Longer than a block of the cache, whose content would survive a swap.
    before = answers(engine, GREEDY, length=300)
    engine.swap(new)
    swapped = answers(engine, GREEDY, length=300)
    engine.swap(old)
    back = answers(engine, GREEDY, length=300)
    assert said(swapped) == said(answers(make_engine(new, dtype), GREEDY, length=300))
    assert said(back) == said(before)
    assert all(a.token_ids != b.token_ids for a, b in zip(before, swapped, strict=True))
    assert all(completion.policy_versions == ((1, len(completion.token_ids)),) for completion in swapped)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Policy, Policy]:
    root = tmp_path_factory.mktemp("policies")
    policies = [make_policy(root / str(version), version) for version in (0, 1)]
    return make_engine(policies[0]), policies[0], policies[1]


def corrupt(directory: Path, how: str) -> dict[str, tuple[int, str]]:
    """A bad version of policy 1, and what its manifest says."""
    if how == "foreign":
        return write_policy(directory, policy_files(1, intermediate_size=96))
    if how == "other tensors":
        return write_policy(directory, policy_files(1, tied=False))
    files = policy_files(1)
    if how == "not finite":
        data = bytearray(files["model.safetensors"])
        data[-4:] = torch.tensor([torch.nan]).numpy().tobytes()
        return write_policy(directory, files | {"model.safetensors": bytes(data)})
    entries = write_policy(directory, files)
    weights = directory / "model.safetensors"
    data = weights.read_bytes()
    if how == "missing":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(data[:-1000])
    elif how == "flipped":
        weights.write_bytes(data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:])
    elif how == "no safetensors":
        weights.write_bytes(b"\xff" * len(data))
    return entries


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "model.safetensors: No such file"),
        ("truncated", "in the manifest"),
        ("flipped", "SHA-256"),
        ("no safetensors", "not a safetensors file"),
        ("not finite", "not finite"),
        ("foreign", "has shape"),
        ("other tensors", "lm_head.weight"),
    ],
)
def test_a_bad_policy_leaves_the_old_one_serving(
    served: tuple[Engine, Policy, Policy], tmp_path: Path, how: str, message: str
) -> None:
    engine, old, _ = served
    engine.swap(old)
    before = answers(engine, GREEDY)
    bad = Policy(1, tmp_path / "bad", corrupt(tmp_path / "bad", how))
    with pytest.raises(BadPolicy, match=message):
        engine.swap(bad)
    assert engine.version == 0
    assert said(answers(engine, GREEDY)) == said(before)


def test_a_policy_is_verified_while_requests_run(served: tuple[Engine, Policy, Policy], tmp_path: Path) -> None:
    engine, old, new = served
    engine.swap(old)
    assert engine.may_swap(new)  # nothing would wait
    slow = Policy(1, tmp_path / "slow", corrupt(tmp_path / "slow", "missing"))
    os.mkfifo(slow.directory / "model.safetensors")  # who opens it waits for a writer
    for index in range(6):
        engine.add(str(index), prompt_ids(index), GREEDY, seed=index)
    done = []
    for _ in range(23):
        assert not engine.may_swap(slow)
        done += engine.step()
    (slow.directory / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadPolicy, match="in the manifest"):
        engine.swap(slow)
    assert engine.running
    while not engine.may_swap(new):
        time.sleep(0.001)
    engine.swap(new)
    done += finish(engine)
    assert {completion.policy_versions for completion in done if len(completion.token_ids) == 24} == {((0, 23), (1, 1))}


@pytest.mark.parametrize(
    "sampling",
    [
        RANDOM,
        RANDOM.model_copy(update={"temperature": 0.7}),
        RANDOM.model_copy(update={"top_p": 0.6, "temperature": 1.3}),
        RANDOM.model_copy(update={"top_k": 5}),
        GREEDY,
    ],
    ids=["T=1", "T=0.7", "top_p", "top_k", "greedy"],
)
def test_log_probs_are_those_of_the_distribution_sampled_from(
    served: tuple[Engine, Policy, Policy], sampling: Sampling
) -> None:
    engine, old, _ = served
    engine.swap(old)
    for index, completion in enumerate(answers(engine, sampling)):
        logits = hf_logits(old, prompt_ids(index), completion.token_ids)
        expected = filtered(logits / (sampling.temperature or 1.0), sampling).log_softmax(-1)
        chosen = expected.gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), chosen, atol=1e-4, rtol=0)


def hf_logits(policy: Policy, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """[T, vocabulary] of the positions that predict the answer."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy.directory, dtype=torch.float32)
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([prompt + answer])).logits[0]
    return logits[len(prompt) - 1 : -1]


def filtered(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Logits with what top-k and top-p leave out at minus infinity."""
    ordered, places = logits.sort(descending=True)
    cut = torch.zeros_like(ordered, dtype=torch.bool)
    if sampling.top_k:
        cut[:, sampling.top_k :] = True
    # A token stays while the mass before it is below top_p.
    probabilities = ordered.softmax(-1)
    cut |= probabilities.cumsum(-1) - probabilities >= sampling.top_p
    return logits.masked_fill(cut.scatter(-1, places, cut), -torch.inf)


def test_requests_under_way_go_on_under_the_new_policy(served: tuple[Engine, Policy, Policy]) -> None:
    engine, old, new = served
    engine.swap(old)
    sampling = RANDOM.model_copy(update={"temperature": 0.7})
    for index in range(6):
        engine.add(str(index), prompt_ids(index), sampling, seed=index)
    done = [completion for _ in range(7) for completion in engine.step()]
    engine.swap(new)
    done += finish(engine)
    assert {completion.policy_versions for completion in done if len(completion.token_ids) == 24} == {((0, 7), (1, 17))}
    for completion in done:
        prompt = prompt_ids(int(completion.request_id))
        logits = torch.cat(
            [
                hf_logits(old, prompt, completion.token_ids)[:7],
                hf_logits(new, prompt, completion.token_ids)[7:],
            ]
        )
        expected = (logits / 0.7).log_softmax(-1).gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


def test_the_end_token_counts_and_its_text_does_not(served: tuple[Engine, Policy, Policy]) -> None:
    engine, old, _ = served
    engine.swap(old)
    hot = RANDOM.model_copy(update={"temperature": 2.0})
    completions = answers(engine, hot, count=32)
    ended = [completion for completion in completions if completion.finish_reason == "stop"]
    assert ended
    assert all(completion.token_ids[-1] == 1 and 1 not in completion.token_ids[:-1] for completion in ended)
    assert all("eos" not in completion.text for completion in completions)
    assert all(len(completion.logprobs) == len(completion.token_ids) for completion in completions)
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}


def test_a_stop_text_ends_an_answer_and_is_cut_off(served: tuple[Engine, Policy, Policy]) -> None:
    engine, old, _ = served
    engine.swap(old)
    free = max(answers(engine, RANDOM), key=lambda completion: len(completion.token_ids))
    stop = free.text[3]
    stopping = answers(engine, RANDOM.model_copy(update={"stop": (stop,)}))
    [stopped] = [completion for completion in stopping if completion.request_id == free.request_id]
    assert stopped.finish_reason == "stop"
    assert 0 < len(stopped.token_ids) <= 4
    assert stopped.token_ids == free.token_ids[: len(stopped.token_ids)]
    assert stop not in stopped.text
    assert free.text.startswith(stopped.text)


def test_a_seed_alone_decides_an_answer(served: tuple[Engine, Policy, Policy]) -> None:
    engine, old, _ = served
    engine.swap(old)
    engine.forget_prefixes()
    first = answers(engine, RANDOM)
    engine.forget_prefixes()
    assert said(answers(engine, RANDOM)) == said(first)
    assert len({completion.token_ids for completion in first}) == len(first)


@pytest.mark.parametrize(
    ("prompt", "changes", "message"),
    [
        (prompt_ids(0, 330), {}, r"sampler\.maxModelLength"),
        ((5, 2 * VOCABULARY), {}, "out of vocabulary"),
        ((5, 6), {"temperature": 2.5}, r"temperature must be in \[0, 2\]"),
    ],
)
def test_a_request_that_vllm_would_refuse_is_a_value_error(
    served: tuple[Engine, Policy, Policy], prompt: tuple[int, ...], changes: dict[str, float], message: str
) -> None:
    engine, _, _ = served
    with pytest.raises(ValueError, match=message):
        engine.add("bad", prompt, RANDOM.model_copy(update=changes), seed=0)
    assert engine.running == 0


def test_arguments_of_the_sampler_itself_are_refused(tmp_path: Path) -> None:
    for arguments, message in (
        ({"logprobs_mode": "raw_logprobs"}, "set by the sampler itself"),
        ({"no_such_thing": 1}, "no engine argument of this vLLM"),
    ):
        with pytest.raises(InvalidSpec, match=message):
            engine_arguments(a_spec(engine_args=arguments), tmp_path, "cpu")
    assert engine_arguments(a_spec(engine_args={"block_size": 32}), tmp_path, "cpu")["block_size"] == 32


@pytest.mark.parametrize(
    ("given", "sleeps", "share"), [({}, False, 0.9), ({}, True, 0.4), ({"gpu_memory_utilization": 0.6}, True, 0.6)]
)
def test_an_engine_leaves_room_on_the_learners_gpu(
    tmp_path: Path, given: dict[str, float], sleeps: bool, share: float
) -> None:
    arguments = engine_arguments(a_spec(**given), tmp_path, "cuda", sleeps=sleeps)
    assert (arguments["gpu_memory_utilization"], arguments["enable_sleep_mode"]) == (share, sleeps)
