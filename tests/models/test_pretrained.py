"""Pretrained models: transformers' own logits, one token a node, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_model, make_tokenizer

from nextfail.errors import UserError
from nextfail.models.pretrained import Pretrained, single_tokens
from nextfail.objectives import Reverse, TeacherForcing, Teacherless
from nextfail.seeding import generator
from nextfail.tasks.path_star.task import PathStar
from nextfail.training.module import TaskModule

GRAPH = PathStar(2, 3, 50)
FAMILIES = ["gpt2", "gpt_neox"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


def load(folder: Path) -> Pretrained:
    backbone = Pretrained(str(folder), GRAPH.vocab.size, 24)
    backbone.name_tokens(GRAPH.vocab.texts)
    return backbone.eval()


def original(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(folders: dict[str, Path], family: str) -> None:
    backbone, prompts = load(folders[family]), GRAPH.sample(3, generator("x", 0)).prompts.long()
    ids = torch.tensor(single_tokens(folders[family] / "tokenizer.json", GRAPH.vocab.texts))
    with torch.no_grad():
        expected = original(folders[family])(ids[prompts]).logits[:, -4:, ids]
        torch.testing.assert_close(backbone.logits(backbone(prompts, last=4)), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_equals_a_whole_pass_and_leaves_its_cache_alone(folders: dict[str, Path], family: str) -> None:
    backbone, batch = load(folders[family]), GRAPH.sample(3, generator("x", 0)).long()
    whole = torch.cat([batch.prompts, batch.answers], 1)
    with torch.no_grad():
        expected = backbone(whole)
        hidden, cache = backbone.step(batch.prompts)
        torch.testing.assert_close(hidden, expected[:, : batch.prompts.shape[1]])
        for _ in range(2):  # twice from the same cache
            rest, _ = backbone.step(batch.answers, cache, last=2)
            torch.testing.assert_close(rest, expected[:, -2:])


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_and_positions(folders: dict[str, Path], family: str) -> None:
    backbone, prompts = load(folders[family]), GRAPH.sample(2, generator("x", 0)).prompts.long()
    length = prompts.shape[1]
    triangle = torch.ones(length, length, dtype=torch.bool).tril()
    with torch.no_grad():
        causal = backbone(prompts)
        torch.testing.assert_close(backbone(prompts, mask=triangle), causal)
        torch.testing.assert_close(backbone(prompts, positions=torch.arange(length)), causal)
        changed = prompts.clone()
        changed[:, -1] = 0
        assert torch.equal(backbone(changed)[:, :-1], causal[:, :-1])
        assert not torch.allclose(backbone(changed, causal=False)[:, 0], backbone(prompts, causal=False)[:, 0])


def test_token_that_the_tokenizer_does_not_know_begins_at_the_mean(folders: dict[str, Path]) -> None:
    backbone = Pretrained(str(folders["gpt2"]), GRAPH.vocab.size + 1, 24)
    backbone.name_tokens(GRAPH.vocab.texts)
    rows = backbone.tokens.weight.detach()
    torch.testing.assert_close(rows[-1], rows[:-1].mean(0))


@pytest.mark.parametrize("kind", [TeacherForcing, Reverse, Teacherless])
def test_every_objective_trains_every_parameter(folders: dict[str, Path], kind: type[TeacherForcing]) -> None:
    backbone = Pretrained(str(folders["gpt_neox"]), GRAPH.vocab.size, 24)
    module = TaskModule(GRAPH, backbone, kind())
    batch = GRAPH.sample(4, generator("x", 0)).long()
    module.objective.loss(backbone, batch).total.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert module.objective.predict(backbone, batch).generated.shape == batch.answers.shape


def test_copy_shares_nothing(folders: dict[str, Path]) -> None:
    backbone = load(folders["gpt2"])
    other = backbone.fresh()
    assert not {id(p) for p in backbone.parameters()} & {id(p) for p in other.parameters()}
    assert backbone.new_block()(torch.zeros(1, 3, 32)).shape == (1, 3, 32)


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_files_and_other_attention_make_no_difference(tmp_path: Path, family: str) -> None:
    """As Pythia's files on the hub are, and as a config.json may ask."""
    folder = make_model(tmp_path, family)
    original(folder).half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"attn_implementation": "eager"}
    (folder / "config.json").write_text(json.dumps(config))
    backbone, prompts = load(folder), GRAPH.sample(2, generator("x", 0)).prompts.long()
    triangle = torch.ones(prompts.shape[1], prompts.shape[1], dtype=torch.bool).tril()
    with torch.no_grad():
        hidden = backbone(prompts, mask=triangle)
        assert hidden.dtype == torch.float32
        torch.testing.assert_close(backbone(prompts), hidden)


# refusals


def test_labels_without_a_token_of_their_own_are_refused(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, numbers=10)
    with pytest.raises(UserError, match=r"does not have one token for each of 10, 11, .*a task with fewer tokens"):
        single_tokens(tmp_path / "tokenizer.json", PathStar(2, 3, 50).vocab.texts)
    assert len(single_tokens(tmp_path / "tokenizer.json", PathStar(2, 3, 10).vocab.texts)) == 14


def test_words_are_written_after_a_blank_where_only_that_is_one_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    pieces = [f" {text}" for text in GRAPH.vocab.texts]
    Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *pieces])}, unk_token="<unk>")).save(
        str(tmp_path / "tokenizer.json")
    )
    assert single_tokens(tmp_path / "tokenizer.json", GRAPH.vocab.texts) == list(range(1, 55))


def test_model_that_is_too_short_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path, longest=16)
    with pytest.raises(UserError, match="reads at most 16 tokens, and this task needs 18"):
        Pretrained(str(tmp_path), GRAPH.vocab.size, 18)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), r"no \*.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "cannot be loaded as GPT2LMHeadModel"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "is a 'bert' model"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
    ],
)
def test_broken_folders_are_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    spoil(make_model(tmp_path))
    with pytest.raises(UserError, match=said):
        Pretrained(str(tmp_path), GRAPH.vocab.size, 24)


def test_name_without_a_hub_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="neither a local folder nor available from the hub"):
        Pretrained("nobody/no-such-model", GRAPH.vocab.size, 24)
