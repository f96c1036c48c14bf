"""Objectives of a user's own, each defined here alone: the protocol is wide enough for heads, states and masks."""

from pathlib import Path

import pytest
import torch
from helpers import SMALL, Averaging, drawn, quiet_trainer, trainable
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models import Backbone
from nextfail.models.backbone import BIDIRECTIONAL
from nextfail.objectives import IGNORE, Loss, Objective, Predictions
from nextfail.tasks import Batch, PathStar
from nextfail.tasks.data import DrawnData
from nextfail.training.module import TaskModule


class TwoAhead(Objective):
    """An extra head: a block of its own that predicts the token after the next."""

    def build(self, backbone: Backbone) -> None:
        self.head = backbone.new_block()

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        hidden = backbone(self.inputs(batch.prompts, batch.answers), last=batch.answers.shape[1])
        loss = self.cross_entropy(backbone.logits(hidden), batch.answers)
        after = self.cross_entropy(backbone.logits(self.head(hidden[:, :-1])), batch.answers[:, 1:]).total
        return Loss(loss.total + after, loss.logits, loss.labels, {"next": loss.total, "after": after})


class NextState(Objective):
    """A loss on hidden states: from each, foretell the one at the next token."""

    def build(self, backbone: Backbone) -> None:
        self.head = nn.Linear(backbone.width, backbone.width)

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        hidden = backbone(self.inputs(batch.prompts, batch.answers), last=batch.answers.shape[1])
        loss = self.cross_entropy(backbone.logits(hidden), batch.answers)
        state = F.smooth_l1_loss(self.head(hidden[:, :-1]), hidden[:, 1:].detach())
        return Loss(loss.total + state, loss.logits, loss.labels, {"next": loss.total, "state": state})


class AnyOrder(Objective):
    """A bidirectional mask and a token of its own: fill in any masked part of the path, the surest token first."""

    extra_tokens = 1
    requires = frozenset({BIDIRECTIONAL})
    takes_given = False
    reads_prompt_once = False

    def build(self, backbone: Backbone) -> None:
        self.mask = self.vocab.size
        self.head = nn.Linear(backbone.width, backbone.width)

    def states(self, backbone: Backbone, prompts: Tensor, paths: Tensor) -> Tensor:
        hidden = backbone(torch.cat([prompts, paths], 1), causal=False, last=paths.shape[1])
        return backbone.logits(hidden + self.head(hidden))

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        hide = torch.rand(batch.answers.shape) < torch.rand(len(batch.answers), 1)
        hide[:, 1] = True  # so that something is asked of every row
        logits = self.states(backbone, batch.prompts, batch.answers.masked_fill(hide, self.mask))
        loss = self.cross_entropy(logits, batch.answers.masked_fill(~hide, IGNORE))
        return Loss(loss.total, loss.logits, loss.labels, {"masked": loss.total})

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        paths = prompts.new_full((len(prompts), length), self.mask)
        for _ in range(length):
            surest, tokens = self.states(backbone, prompts, paths)[..., : self.mask].softmax(-1).max(-1)
            place = surest.masked_fill(paths != self.mask, -1).argmax(1, keepdim=True)
            paths.scatter_(1, place, tokens.gather(1, place))
        return paths

    @torch.no_grad()
    def predict(self, backbone: Backbone, batch: Batch) -> Predictions:
        return Predictions(self.generate(backbone, batch.prompts, batch.answers.shape[1]))


CUSTOM = {TwoAhead: ("next", "after"), NextState: ("next", "state"), AnyOrder: ("masked",)}


@pytest.mark.parametrize("kind", CUSTOM)
def test_custom_objective_trains_and_is_measured(kind: type[Objective], tmp_path: Path) -> None:
    made = trainable(kind())
    data = DrawnData(SMALL, train=64, validation=10, test=10, seed=0, batch_size=16, eval_batch_size=8, run_seed=0)
    before = {name: parameter.clone() for name, parameter in made.named_parameters()}
    trainer = quiet_trainer(tmp_path, 3, val_check_interval=3)
    trainer.fit(made, datamodule=data)
    assert trainer.global_step == 3
    for part in ("loss", "token_accuracy", *CUSTOM[kind]):
        assert torch.isfinite(trainer.callback_metrics[f"train/{part}"]), part
    for name, parameter in made.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert any(name.startswith("objective.head") for name in before)
    assert made.results["exact_match"]["n"] == 10

    trainer.test(made, datamodule=data, verbose=False)
    batch = data.test.rows(slice(None)).long()
    paths = made.objective.generate(made.backbone, batch.prompts, 3)
    right = int((paths == batch.answers).all(1).sum())
    assert made.results["exact_match"]["value"] == right / 10
    assert (made.results["cheat_accuracy"] is None) is (kind is AnyOrder)


@pytest.mark.parametrize("kind", CUSTOM)
def test_custom_head_gets_gradients(kind: type[Objective]) -> None:
    made = trainable(kind())
    loss = made.objective.loss(made.backbone, drawn(SMALL, 16))
    assert set(loss.parts) == set(CUSTOM[kind])
    assert all(torch.isfinite(part) for part in loss.parts.values())
    loss.total.backward()
    for name, parameter in made.objective.head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize("kind", CUSTOM)
@pytest.mark.parametrize("graph", [SMALL, PathStar(3, 4, 20)])
def test_custom_generate_has_the_right_shape(kind: type[Objective], graph: PathStar) -> None:
    made = trainable(kind(), graph)
    paths = made.objective.generate(made.backbone, drawn(graph, 5).prompts, graph.path_length)
    assert paths.shape == (5, graph.path_length)
    assert paths.dtype == torch.int64
    assert paths.min() >= 0
    assert paths.max() < made.backbone.vocab_size


def test_any_order_sees_both_ways_and_its_own_token() -> None:
    made = trainable(AnyOrder())
    assert made.backbone.vocab_size == SMALL.vocab.size + 1
    batch = drawn(SMALL, 4)
    masked = torch.full_like(batch.answers, SMALL.vocab.size)
    known = masked.clone()
    known[:, -1] = batch.answers[:, -1]
    one, other = (made.objective.states(made.backbone, batch.prompts, paths) for paths in (masked, known))
    assert not torch.allclose(one[:, 0], other[:, 0], atol=1e-3)  # the last token is seen from the first


def test_any_order_is_refused_by_a_backbone_that_cannot() -> None:
    with pytest.raises(UserError, match=r"AnyOrder needs a backbone with bidirectional, which Averaging does not have"):
        TaskModule(SMALL, Averaging(width=16, vocab_size=15, max_length=18), AnyOrder())


class Copycat(Objective):
    """It changes how a path is decoded, and nothing else."""

    takes_given = False
    reads_prompt_once = False

    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        return prompts[:, :length]


class Both(Objective):
    """It changes how the model looks at its input, and nothing else."""

    takes_given = False
    reads_prompt_once = False

    def states(self, backbone: Backbone, prompts: Tensor, written: Tensor) -> Tensor:
        return backbone(self.inputs(prompts, written), causal=False, last=written.shape[1])


def test_states_of_ones_own_are_what_is_measured() -> None:
    made, batch = trainable(Both()), drawn(SMALL, 12)
    predictions = made.objective.predict(made.backbone, batch)
    assert predictions.forced is not None
    assert torch.equal(predictions.forced, made.objective.forced(made.backbone, batch))
    plain = Objective()
    plain.attach(SMALL, made.backbone)
    assert not torch.equal(predictions.forced, plain.forced(made.backbone, batch))


def test_an_order_of_ones_own_has_no_place_for_a_prefix() -> None:
    class Backwards(Objective):
        def write(self, paths: Tensor) -> Tensor:
            return paths.flip(1)

    with pytest.raises(UserError, match=r"Backwards writes in an order of its own.*set takes_given = False"):
        trainable(Backwards())


@pytest.mark.parametrize("names", [("inputs",), ("states",), ("generate",), ("forced",), ("states", "forced")])
def test_ways_of_ones_own_must_be_said(names: tuple[str, ...]) -> None:
    """Else evaluation would read the prompt once and ask none of them."""
    kind = type("Mine", (Objective,), {name: getattr(Objective, name) for name in names})
    with pytest.raises(UserError, match=rf"Mine has {' and '.join(names)} of its own: set reads_prompt_once = False"):
        trainable(kind())
    further = type("Further", (kind,), {})  # inherited from a class of one's own, it is no less so
    with pytest.raises(UserError, match=r"Further has .* of its own: set reads_prompt_once = False"):
        trainable(further())
    trainable(type("Said", (kind,), {"reads_prompt_once": False})())


def test_decoding_of_ones_own_is_what_is_measured() -> None:
    made, batch = trainable(Copycat()), drawn(SMALL, 4)
    assert torch.equal(made.objective.predict(made.backbone, batch).generated, batch.prompts[:, :3])
