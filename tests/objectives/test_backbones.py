"""Every objective with every backbone: it trains and decodes, or is refused with the reason; and the table of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ARGUMENTS, drawn
from tiny import make_model
from torch import Tensor, nn

from nextfail.errors import UserError
from nextfail.models import Backbone, Hybrid, Mamba, Mamba2, Pretrained, Transformer
from nextfail.objectives import ALL, Objective
from nextfail.source import own
from nextfail.tasks import PathStar
from nextfail.training.build import fit
from nextfail.training.load import own_class
from nextfail.training.module import TaskModule

PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"
TASK = PathStar(2, 4, 12)
SIZES = {"width": 16, "init_std": 0.3}
ATTENTION: dict[str, Any] = {"heads": 2, **SIZES}


class Means(Backbone):
    """A backbone of a user's own with `forward` alone: means of what was read."""

    def __init__(self, width: int, vocab_size: int, max_length: int) -> None:
        super().__init__(vocab_size, max_length, width=width)
        self.mix = nn.Linear(width, width)

    def forward(self, tokens: Tensor, *, last: int | None = None, **options: Any) -> Tensor:  # type: ignore[override]
        self.refuse_unknown(**options)
        hidden = self.mix(self.embed(tokens).cumsum(1) / torch.arange(1, tokens.shape[1] + 1)[:, None])
        return hidden if last is None else hidden[:, -last:]


KINDS: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "transformer": {
        "": (Transformer, {"depth": 2, **ATTENTION}),
        "as Llama": (Transformer, {"depth": 2, **ATTENTION, "positions": "rope", "norm": "rms", "mlp": "swiglu"}),
        "no positions": (Transformer, {"depth": 2, **ATTENTION, "positions": "none", "qk_norm": True}),
        "convolution": (Transformer, {"depth": 2, **ATTENTION, "conv": 4}),
    },
    "mamba": {"": (Mamba, {"depth": 2, **SIZES, "d_state": 4})},
    "mamba2": {"": (Mamba2, {"depth": 2, **SIZES, "d_state": 4, "head_dim": 8})},
    "hybrid": {
        "": (Hybrid, {"layers": ["mamba", "attention"], **ATTENTION}),
        "all mixers": (Hybrid, {"layers": ["conv", "mamba2", "attention", "mamba"], **ATTENTION, "head_dim": 8}),
    },
    "gpt2": {"": (Pretrained, {})},
    "forward alone": {"": (Means, {"width": 16})},
}
"""Columns of the table, and models of each."""

CASES = [(kind, column, variant) for kind in ALL for column, variants in KINDS.items() for variant in variants]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("gpt2")))


def made(kind: type[Objective], column: str, variant: str, pretrained: str) -> TaskModule:
    """Raises UserError if the two do not go together."""
    torch.manual_seed(0)
    objective = kind(**ARGUMENTS.get(kind, {}))
    model, sizes = KINDS[column][variant]
    if column == "gpt2":
        sizes = {"source": pretrained}
    backbone: Backbone = model(**sizes, **fit(TASK, objective))
    return TaskModule(TASK, backbone, objective)


@pytest.mark.parametrize(("kind", "column", "variant"), CASES)
def test_it_trains_and_decodes_or_says_why_not(
    kind: type[Objective], column: str, variant: str, pretrained: str
) -> None:
    missing = kind.requires - _capabilities(column, variant)
    if missing:
        with pytest.raises(UserError, match=rf"{kind.__name__} needs a backbone with {min(missing)}, which"):
            made(kind, column, variant, pretrained)
        return
    module = made(kind, column, variant, pretrained)
    module.eval()  # which a pretrained model's dropout would else tell apart
    batch = drawn(TASK, 6)
    loss = module.objective.loss(module.backbone, batch)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert loss.total.isfinite()
    heads = [*module.objective.named_parameters()]
    for name, parameter in [*module.backbone.named_parameters(), *heads]:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    predictions = module.objective.predict(module.backbone, batch)
    assert predictions.generated.shape == batch.answers.shape
    # one problem at a time is decoded as all at once, and the true answer is answered as if it were generated
    for i in range(2):
        alone = module.objective.predict(module.backbone, batch.rows(slice(i, i + 1)))
        assert torch.equal(alone.generated, predictions.generated[i : i + 1])
    if predictions.forced is not None:
        right = (predictions.forced == batch.answers).all(1)
        assert torch.equal((predictions.generated == batch.answers).all(1), right)


def _capabilities(column: str, variant: str) -> frozenset[str]:
    model, sizes = KINDS[column][variant]
    if column in ("gpt2", "forward alone"):
        return model.capabilities
    return model(**sizes, vocab_size=9, max_length=9).capabilities


def table() -> str:
    """The table of the page."""
    objectives = {name: found for name in own() if (found := own_class(name)) in ALL}
    lines = ["| objective | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for name, kind in sorted(objectives.items(), key=lambda item: ALL.index(item[1])):
        cells = []
        for column, variants in KINDS.items():
            missing = {", ".join(sorted(kind.requires - _capabilities(column, each))) for each in variants}
            assert len(missing) == 1, "all of a column are alike"
            cells.append((next(iter(missing)) and f"`{next(iter(missing))}`") or "yes")
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_table_of_the_page_is_this() -> None:
    assert table() in PAGE.read_text()


if __name__ == "__main__":
    print(table())
