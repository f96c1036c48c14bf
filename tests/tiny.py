"""Pretrained models without a hub: randomly initialised, of two layers, with a tokenizer of signs and numbers."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

SIGNS = ("|", "=", "/", "$")


def make_tokenizer(folder: Path, numbers: int) -> None:
    """A tokenizer that has one token for each number below `numbers`, in an order of its own."""
    words = ["<unk>", "the", *SIGNS, *(str(i) for i in reversed(range(numbers)))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def make_model(folder: Path, family: str = "gpt2", numbers: int = 60, longest: int = 64) -> Path:
    """Save a model and its tokenizer as save_pretrained does."""
    make_tokenizer(folder, numbers)
    vocabulary = numbers + 2 + len(SIGNS)
    torch.manual_seed(0)
    if family == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": longest}
        GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, bos_token_id=0, eos_token_id=0, **sizes)).save_pretrained(
            folder
        )
    else:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = GPTNeoXConfig(
            vocab_size=vocabulary, max_position_embeddings=longest, tie_word_embeddings=False, **sizes
        )
        GPTNeoXForCausalLM(config).save_pretrained(folder)
    return folder
