"""A Qwen2 of some thousand parameters with a character tokenizer, made on the spot."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 64


def tiny_config(tied: bool = True, **changes) -> Qwen2Config:
    options = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return Qwen2Config(**(options | changes))


def tiny_model(tied: bool = True, **changes) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(tiny_config(tied, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # initial weights give nearly uniform outputs
    return model


def save_tiny_model(path: Path, tied: bool = True) -> Path:
    """Model and tokenizer in Hugging Face layout."""
    tiny_model(tied).save_pretrained(path)
    words = ["<pad>", "<eos>", *(chr(ord("!") + i) for i in range(VOCABULARY - 2))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>").save_pretrained(path)
    return path
