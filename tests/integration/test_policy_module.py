"""The policy module on its own: packed equals one by one, chunks change nothing, unsupported models are refused."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_model import VOCABULARY, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import OPTConfig, OPTForCausalLM

from empg_trainer.attention import PACKED
from empg_trainer.batch import collate
from empg_trainer.policy import LogProbHead, Policy

LENGTHS = (7, 1, 19, 4)


def sequences():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def packed_inputs(rows):
    lengths = torch.tensor([len(row) for row in rows])
    ends = lengths.cumsum(0)
    ids = torch.cat(rows)
    starts = set((ends - lengths).tolist())
    predicted = torch.tensor([i for i in range(len(ids)) if i not in starts])
    return {
        "input_ids": ids,
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows]),
        "cu_seqlens": torch.cat([torch.zeros(1, dtype=torch.long), ends]).int(),
        "max_length": int(lengths.max()),
        "positions": predicted - 1,
        "targets": ids[predicted],
    }


def reference(model, rows, temperature):
    """Log-probs and entropies from the model's own logits, one sequence at a time."""
    logprobs, entropies = [], []
    for row in rows:
        logits = model(input_ids=row[None]).logits[0, :-1].float() / temperature
        distribution = torch.log_softmax(logits, -1)
        logprobs.append(distribution.gather(-1, row[1:, None])[:, 0])
        entropies.append(-(distribution.exp() * distribution).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("window", [None, 5])
def test_packed_equals_one_by_one_in_value_and_gradient(tied, window):
    changes = {} if window is None else {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}
    plain, packed = tiny_model(tied, **changes), tiny_model(tied, attn_implementation=PACKED, **changes)
    policy = Policy(packed, chunk_tokens=6)
    rows = sequences()
    weights = torch.linspace(-1, 1, sum(LENGTHS) - len(LENGTHS))

    expected, expected_entropy = reference(plain, rows, 0.7)
    ((expected * weights).sum() + 0.1 * expected_entropy.sum()).backward()
    found, entropy = policy(**packed_inputs(rows), temperature=0.7, entropy_gradient=True)
    ((found * weights).sum() + 0.1 * entropy.sum()).backward()

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy, expected_entropy, atol=1e-5, rtol=0)
    wanted = dict(plain.named_parameters())
    for name, parameter in packed.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("window", [None, 5])
def test_a_shared_prompt_changes_neither_values_nor_gradients(window):
    """But for rounding: its tokens meet the weights once and not once per answer."""
    changes = {} if window is None else {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}
    prompt, other = tuple(range(3, 12)), (7, 3)
    answers = ((prompt, (5, 6, 7, 8)), (prompt, (9,)), (prompt, (10, 3, 4, 5, 6, 7, 8, 9)), (other, (20, 21)))
    rows = [SimpleNamespace(prompt_ids=prompt, response_ids=response) for prompt, response in answers]
    alone, shared = ([[0], [1], [2], [3]], [[0, 1, 2], [3]])
    weights = torch.linspace(-1, 1, 15)

    def found(bundles):
        model = tiny_model(attn_implementation=PACKED, **changes)
        policy = Policy(model, chunk_tokens=6)
        logprobs, entropy = policy(**collate(rows, bundles).inputs(), temperature=0.7, entropy_gradient=True)
        ((logprobs * weights).sum() + 0.1 * entropy.sum()).backward()
        return logprobs, entropy, {name: parameter.grad for name, parameter in model.named_parameters()}

    assert len(collate(rows, shared).input_ids) < len(collate(rows, alone).input_ids)
    for mine, wanted in zip(found(shared), found(alone), strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-4)


def test_chunk_size_changes_nothing():
    model = tiny_model(attn_implementation=PACKED)
    inputs = packed_inputs(sequences())
    whole, _ = Policy(model, chunk_tokens=1000)(**inputs, temperature=1.0)
    chunked, _ = Policy(model, chunk_tokens=1)(**inputs, temperature=1.0)
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=0)


def test_entropy_carries_no_gradient_unless_asked_for():
    policy = Policy(tiny_model(attn_implementation=PACKED), chunk_tokens=8)
    _, entropy = policy(**packed_inputs(sequences()), temperature=1.0)
    assert not entropy.requires_grad


def test_a_neighbour_in_the_pack_changes_nothing():
    policy = Policy(tiny_model(attn_implementation=PACKED), chunk_tokens=64)
    rows = sequences()
    before, _ = policy(**packed_inputs(rows), temperature=1.0)
    rows[0] = (rows[0] + 1) % VOCABULARY
    after, _ = policy(**packed_inputs(rows), temperature=1.0)
    first = LENGTHS[0] - 1
    assert not torch.allclose(before[:first], after[:first])
    assert torch.equal(before[first:], after[first:])


def tiny_opt():
    """Its layers call the function for dropout, with rates of their own."""
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        dropout=0.5,
        attention_dropout=0.5,
    )
    torch.manual_seed(0)
    return OPTForCausalLM._from_config(config, attn_implementation=PACKED)


@pytest.mark.parametrize("make", [tiny_opt, partial(tiny_model, attn_implementation=PACKED, attention_dropout=0.5)])
def test_dropout_is_switched_off(make):
    policy = Policy(make(), chunk_tokens=64).train()
    inputs = packed_inputs(sequences())
    assert torch.equal(policy(**inputs, temperature=1.0)[0], policy(**inputs, temperature=1.0)[0])


def test_activations_are_checkpointed_in_a_network_that_is_in_evaluation():
    policy = Policy(tiny_model(attn_implementation=PACKED), chunk_tokens=64).eval()
    inputs = packed_inputs(sequences())
    passes = []
    layer = policy.backbone.layers[0]
    layer.mlp.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    plain = policy(**inputs, temperature=1.0)[0]
    plain.sum().backward()
    gradient = layer.mlp.up_proj.weight.grad.clone()
    assert len(passes) == 1
    policy.zero_grad()
    policy.checkpoint_activations()
    again = policy(**inputs, temperature=1.0)[0]
    again.sum().backward()
    assert len(passes) == 3, "the layer is computed again in the backward pass"
    assert torch.equal(plain, again)
    assert torch.allclose(gradient, layer.mlp.up_proj.weight.grad)
    assert not layer.mlp.training


class LogitRows(TorchDispatchMode):
    """Notes the number of rows of everything that any operation makes with a column per word of the vocabulary."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary = vocabulary
        self.rows = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.shape[-1:] == (self.vocabulary,):
                self.rows.append(value.numel() // self.vocabulary)
        return result


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_no_more_rows_of_logits_exist_than_a_chunk_has(entropy_gradient):
    vocabulary, width, chunk, tokens = 101, 4, 6, 40  # a transposed weight has fewer rows than a chunk
    torch.manual_seed(0)
    head = LogProbHead(torch.nn.Linear(width, vocabulary), chunk)
    hidden = torch.randn(tokens, width, requires_grad=True)
    kept = []

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with LogitRows(vocabulary) as seen:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logprobs, entropy = head(hidden, torch.arange(tokens), 0.7, entropy_gradient)
        forward, seen.rows = seen.rows, []
        (logprobs.sum() + (entropy.sum() if entropy_gradient else 0.0)).backward()
    assert max(forward) == chunk
    assert max(seen.rows) == chunk
    assert not any(shape[-1:] == (vocabulary,) for shape in kept), "no logits wait for the backward pass"
    assert hidden.grad is not None
    assert hidden.grad.abs().sum(-1).min() > 0
