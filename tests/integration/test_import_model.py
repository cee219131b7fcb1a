"""The base model in the run directory: same weights, same log-probs, unsupported models refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import save_tiny_model, tiny_config, tiny_model
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from empg.api.model import FromRun, ModelSpec
from empg.rundir.identity import Identity, prepare
from empg.rundir.owner import LearnerOwner
from empg.store.posix import PosixStore
from empg_trainer.attention import PACKED
from empg_trainer.import_model import check, import_model
from empg_trainer.models import load_policy, load_tokenizer
from empg_trainer.shards import divide

LONGEST = 64


def run_directory(root):
    store = PosixStore(root)
    prepare(store, Identity(uid="u", name="n", spec_digest="d"))
    return store, LearnerOwner.acquire(store, "test")


@pytest.mark.parametrize("tied", [True, False])
def test_policy_0_is_the_base_model(tmp_path, tied):
    save_tiny_model(tmp_path / "base", tied)
    store, owner = run_directory(tmp_path / "run")
    import_model(store, owner, ModelSpec(name="base", dtype="float32"), tmp_path, LONGEST)
    policy = load_policy(store, 0, torch.float32, trust_remote_code=False)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    assert policy.state_dict().keys() == base.state_dict().keys()
    for name, weight in base.state_dict().items():
        assert torch.equal(policy.state_dict()[name], weight), name
    assert load_tokenizer(store, 0, False).convert_tokens_to_ids("<eos>") == 1


def test_published_number_type_is_the_one_of_the_spec(tmp_path):
    save_tiny_model(tmp_path / "base")
    store, owner = run_directory(tmp_path / "run")
    import_model(store, owner, ModelSpec(name="base", dtype="bfloat16"), tmp_path, LONGEST)
    (config,) = (tmp_path / "run/policy/000000").glob("*/config.json")
    assert json.loads(config.read_text())["dtype"] == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(config.parent)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_another_run_can_be_forked(tmp_path):
    save_tiny_model(tmp_path / "base")
    first, owner = run_directory(tmp_path / "first")
    import_model(first, owner, ModelSpec(name="base", dtype="float32"), tmp_path, LONGEST)
    second, owner = run_directory(tmp_path / "second")
    spec = ModelSpec(from_run=FromRun(run_dir="first"), dtype="float32")
    import_model(second, owner, spec, tmp_path, LONGEST)
    ours, theirs = (load_policy(store, 0, torch.float32, False).state_dict() for store in (first, second))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_missing_directory_is_named(tmp_path):
    store, owner = run_directory(tmp_path / "run")
    with pytest.raises(ValueError, match=r"model\.name: there is no directory .*nowhere"):
        import_model(store, owner, ModelSpec(name="./nowhere"), tmp_path, LONGEST)


def test_a_damaged_base_is_refused(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    save_tiny_model(tmp_path / "base")
    model.save_pretrained(tmp_path / "base")
    store, owner = run_directory(tmp_path / "run")
    with pytest.raises(ValueError, match="model"):
        import_model(store, owner, ModelSpec(name="base"), tmp_path, LONGEST)
    assert not (tmp_path / "run/policy").exists()


def test_weights_that_are_absent_are_not_made_up(tmp_path):
    base = save_tiny_model(tmp_path / "base", tied=False)
    weights = load_file(base / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    store, owner = run_directory(tmp_path / "run")
    with pytest.raises(ValueError, match=r"model: .*weights are absent or of another shape: lm_head\.weight"):
        import_model(store, owner, ModelSpec(name="base"), tmp_path, LONGEST)
    assert not (tmp_path / "run/policy").exists()


def test_output_weights_that_only_the_learner_would_train_are_refused(tmp_path):
    base = save_tiny_model(tmp_path / "base", tied=False)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    store, owner = run_directory(tmp_path / "run")
    with pytest.raises(ValueError, match=r"config\.json says tie_word_embeddings, but the output weights are not"):
        import_model(store, owner, ModelSpec(name="base"), tmp_path, LONGEST)


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_positions_that_depend_on_neighbours_are_refused(kind):
    rope = {"rope_type": kind, "rope_theta": 10000.0, "original_max_position_embeddings": 32}
    rope |= {"factor": 2.0} | ({"short_factor": [1.0] * 4, "long_factor": [2.0] * 4} if kind == "longrope" else {})
    model = tiny_model(attn_implementation=PACKED, rope_parameters=rope)
    with pytest.raises(ValueError, match=rf"rotary positions \({kind}\) change beyond \d+ tokens; lower .*\(1000\)"):
        check(model, 1000)
    check(model, 32)


def test_capped_logits_are_refused():
    options = {name: getattr(tiny_config(), name) for name in ("vocab_size", "hidden_size", "intermediate_size")}
    config = Gemma2Config(**options, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    config.attn_logit_softcapping = None
    model = Gemma2ForCausalLM._from_config(config, attn_implementation=PACKED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    with pytest.raises(ValueError, match=r"Gemma2ForCausalLM differ|softcap"):
        check(model, LONGEST)


def test_shards_keep_order_and_size():
    assert divide({"a": 3, "b": 3, "c": 9, "d": 1}, limit=6) == [["a", "b"], ["c"], ["d"]]
