"""Pretrained language models from transformers: GPT-2 and Pythia (GPT-NeoX)."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from nextfail.errors import UserError
from nextfail.models.backbone import BEFORE_NORM, BIDIRECTIONAL, CUSTOM_MASK, EMBEDDINGS, POSITIONS, Backbone
from nextfail.models.mixers.attention import Attention
from nextfail.models.stack import Block
from nextfail.source import public

FAMILIES = {"gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM"}
"""Classes of transformers, by model_type in config.json."""

FINAL_NORM = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}

NO_DROPOUT = {"gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"), "gpt_neox": ("hidden_dropout", "attention_dropout")}
FILES = ("config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json")

KeysAndValues = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, both (B, H, T, C/H)."""


@public("pretrained")
class Pretrained(Backbone):
    """A pretrained decoder in which each token of the task is one token of its own tokenizer.

    Of the embedding and the head only the rows of those tokens are kept; they and all other weights are trained.
    Predictions are thus limited to the task's tokens, as for models trained from scratch. There is no dropout. Weights
    are read from safetensors and the tokenizer from JSON: no code in the folder is executed.

    Args:
        source: a folder with config.json, tokenizer.json and safetensors, or a name on the Hugging Face hub.
        vocab_size: number of token ids V.
        max_length: longest sequence, in tokens.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: the source cannot be used, or the model's maximum length is too short.
    """

    capabilities = frozenset({BIDIRECTIONAL, CUSTOM_MASK, POSITIONS, EMBEDDINGS, BEFORE_NORM})

    def __init__(self, source: str, vocab_size: int, max_length: int, revision: str = "main") -> None:
        folder = find(source, revision)
        config = _read(folder / "config.json")
        family = config.get("model_type")
        if family not in FAMILIES:
            raise UserError(f"model.source={source} is a {family!r} model: {' and '.join(FAMILIES)} are supported")
        loaded = _load(folder, family).train()  # transformers loads models in eval mode
        super().__init__(vocab_size, max_length, width=loaded.config.hidden_size)
        longest = loaded.config.max_position_embeddings
        if longest < max_length:
            raise UserError(f"model.source={source} reads at most {longest} tokens, and this task needs {max_length}")
        self.folder, self.body = folder, loaded.base_model
        self.heads: int = loaded.config.num_attention_heads
        self._final_norm = FINAL_NORM[family]
        self._rows = [part.weight.detach() for part in (loaded.get_input_embeddings(), loaded.get_output_embeddings())]
        self.head = None if loaded.config.tie_word_embeddings else nn.Parameter(torch.empty(vocab_size, self.width))
        self.body.set_input_embeddings(None)  # replaced by `tokens`

    def join_pairs(self, count: int) -> None:
        raise UserError("task.edges_as=tokens makes an edge one token, for which a pretrained model has no "
                        "embedding: choose task.edges_as=triples")  # fmt: skip

    def name_tokens(self, texts: Sequence[str]) -> None:
        """Take the pretrained embeddings of these texts; other ids are initialised with their mean.

        Raises:
            UserError: a text is not one token of the tokenizer, or two texts are the same token.
        """
        if not self._rows:
            return  # a copy that already has them
        ids = torch.tensor(single_tokens(self.folder / "tokenizer.json", texts))
        with torch.no_grad():
            for rows, own in zip(self._rows, [self.tokens.weight, self.head], strict=True):
                if own is not None:
                    own[:] = rows[ids].mean(0)
                    own[: len(ids)] = rows[ids]
        self._rows = []

    def forward(
        self,
        tokens: Tensor | None = None,
        *,
        last: int | None = None,
        causal: bool = True,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        embeddings: Tensor | None = None,
        before_norm: bool = False,
    ) -> Tensor:
        x = self.embedded(tokens, embeddings)  # (B, T, C)
        if mask is None and not causal:
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        if mask is not None:
            mask = mask.expand(len(x), *mask.shape[-2:]).unsqueeze(1)  # (B, 1, T, T)
        if positions is not None:
            positions = positions.expand(len(x), -1)
        hidden = self._run(before_norm, inputs_embeds=x, attention_mask=mask, position_ids=positions, use_cache=False)
        return hidden[:, -(last or x.shape[1]) :]

    def step(
        self,
        tokens: Tensor | None = None,
        cache: KeysAndValues | None = None,
        *,
        last: int | None = None,
        embeddings: Tensor | None = None,
        before_norm: bool = False,
    ) -> tuple[Tensor, KeysAndValues]:
        from transformers import DynamicCache

        x = self.embedded(tokens, embeddings)
        past = DynamicCache(cache, config=self.body.config) if cache else DynamicCache(config=self.body.config)
        hidden = self._run(before_norm, inputs_embeds=x, cache=past, use_cache=True)
        # transformers appends to a copy, so the given cache is unchanged
        layers: list[Any] = past.layers
        return hidden[:, -(last or x.shape[1]) :], [(layer.keys, layer.values) for layer in layers]

    def final_norm(self, hidden: Tensor) -> Tensor:
        normed: Tensor = getattr(self.body, self._final_norm)(hidden)
        return normed

    def _run(self, before_norm: bool, **given: Any) -> Tensor:
        """Last hidden states (B, T, C) of the body, before or after its final norm."""
        read: list[Tensor] = []
        hook = getattr(self.body, self._final_norm).register_forward_pre_hook(lambda _, args: read.append(args[0]))
        try:
            normed: Tensor = self.body(**given).last_hidden_state
        finally:
            hook.remove()
        return read[0] if before_norm else normed

    def _unembedding(self) -> Tensor:
        return self.tokens.weight if self.head is None else self.head

    def new_block(self) -> nn.Module:
        return Block(self.width, Attention(self.width, self.heads, self.max_length), norm="layer", mlp="gelu")

    def fresh(self) -> Self:
        """A copy with the current weights."""
        return copy.deepcopy(self)


def find(source: str, revision: str) -> Path:
    """Folder of a model, downloaded from the hub if there is no such local folder.

    Raises:
        UserError: there is neither, or files are missing.
    """
    folder = Path(source)
    if not folder.is_dir():
        try:
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(source, revision=revision, allow_patterns=list(FILES)))
        except ImportError as error:
            raise UserError("model=gpt2 needs transformers: pip install 'nextfail[pretrained]'") from error
        except Exception as error:  # network, name, permission: many types
            raise UserError(f"model.source={source} is neither a local folder nor available from the hub: "
                            f"{_first_line(error)}") from error  # fmt: skip
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: save model and tokenizer there with save_pretrained")
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder} has no *.safetensors, the only weights that are read: save the model there with "
                        "save_pretrained(folder, safe_serialization=True)")  # fmt: skip
    return folder


def single_tokens(tokenizer_json: Path, texts: Sequence[str]) -> list[int]:
    """The tokenizer's id of each text, all encoded as they are or else all with a leading space.

    Raises:
        UserError: a text is not one token either way, or two texts are the same token.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # tokenizers raises nothing more specific
        raise UserError(f"{tokenizer_json} is not a tokenizer: {error}") from error
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    for before in ("", " "):
        ids = [tokenizer.encode(before + text, add_special_tokens=False).ids for text in texts]
        split = [text for text, each in zip(texts, ids, strict=True) if len(each) != 1 or each[0] == unknown]
        if not split and len({each[0] for each in ids}) == len(texts):
            return [each[0] for each in ids]
    named = ", ".join(split[:5] or texts[:5])
    raise UserError(f"{tokenizer_json} does not have one token for each of {named} ...: "
                    "use a task with fewer tokens, or another model")  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _load(folder: Path, family: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError("model=gpt2 needs transformers: pip install 'nextfail[pretrained]'") from error
    transformers.utils.logging.disable_progress_bar()
    kind = getattr(transformers, FAMILIES[family])
    try:
        no_dropout = dict.fromkeys(NO_DROPOUT[family], 0.0)
        # float32 whatever the file holds: precision is up to the trainer; sdpa: others interpret masks differently
        alike = {"dtype": torch.float32, "attn_implementation": "sdpa"}
        return kind.from_pretrained(folder, use_safetensors=True, local_files_only=True, **alike, **no_dropout)
    except Exception as error:  # broken or foreign files: many types
        raise UserError(f"{folder} cannot be loaded as {FAMILIES[family]}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
