"""The options with which objectives follow their papers or released code more closely."""

from typing import Any

import pytest
import torch
from helpers import SMALL, attached, drawn, read_by, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models import Mamba, Transformer
from nextfail.objectives import BeliefState, MultiToken, NextLatent, TokenMasking
from nextfail.tasks import Batch, PathStar

BLANK, V = 13, 14
PUBLISHED = PathStar(2, 5, 50)
seeds = st.integers(0, 2**32 - 1)


def full_size(objective: Any, depth: int, width: int) -> Transformer:
    torch.manual_seed(0)
    sizes = {"depth": depth, "width": width, "heads": 4, "vocab_size": PUBLISHED.vocab.size}
    return Transformer(**sizes, max_length=objective.max_length(PUBLISHED))


# multi_token


@torch.no_grad()
def test_a_head_changes_its_input_as_much_as_published() -> None:
    """At initialisation, a head adds about 0.2 of its input at width 48 and 4 layers; of a normed trunk, 0.008."""
    objective = MultiToken(k=4)
    backbone = full_size(objective, depth=4, width=48)
    objective.attach(PUBLISHED, backbone)
    batch = drawn(PUBLISHED, 64)
    trunk = backbone(objective.inputs(batch.prompts, batch.answers), before_norm=True)
    for head in objective.heads:
        added = ((head(trunk) - trunk).norm(dim=-1) / trunk.norm(dim=-1)).mean()
        assert 0.1 < added < 0.4
        normed = backbone.final_norm(trunk)
        assert ((head(normed) - normed).norm(dim=-1) / normed.norm(dim=-1)).mean() < 0.02


@pytest.mark.parametrize(("removed", "trunk"), [(0, 4), (1, 3), (3, 1)])
def test_heads_take_the_place_of_blocks(removed: int, trunk: int) -> None:
    objective = MultiToken(k=3, removed=removed)
    backbone = tiny(SMALL, objective, depth=4)
    blocks = [*backbone.blocks]
    objective.attach(SMALL, backbone)
    assert [*backbone.blocks] == blocks[:trunk] and backbone.depth == trunk
    batch = drawn(SMALL, 4)
    objective.loss(backbone, batch).total.backward()
    assert all(each.grad is not None for each in (*backbone.parameters(), *objective.parameters()))
    # decoding from the cache is that of reading everything again
    written = objective.generate(backbone, batch.prompts, 3)
    again = MultiToken.forced(objective, backbone, Batch.full(batch.prompts, written))
    assert torch.equal(again, written)


def test_removing_all_blocks_is_refused() -> None:
    objective = MultiToken(removed=2)
    with pytest.raises(UserError, match=r"model\.depth=2 is too small to remove 2 blocks"):
        objective.attach(SMALL, tiny(SMALL, objective, depth=2))


# belief_state


def test_the_encoders_share_their_token_embedding() -> None:
    objective, backbone = attached(BeliefState, shared_embedding=True)
    assert objective.backward_encoder.tokens is backbone.tokens
    apart, _ = attached(BeliefState)
    count = [sum(p.numel() for p in torch.nn.ModuleList([backbone, each]).parameters()) for each in (objective, apart)]
    assert count[1] - count[0] == V * backbone.width
    objective.loss(backbone, drawn(SMALL, 4)).total.backward()
    assert all(p.grad is not None for p in (*backbone.parameters(), *objective.parameters()))


def test_the_released_head_by_hand(by_hand: Batch) -> None:
    objective, backbone = attached(BeliefState, head="swiglu")
    head, width = objective.head, backbone.width
    both = torch.randn(2 * width)
    inner = F.silu(head.mlp.gate.weight @ both) * (head.mlp.expand.weight @ both)
    residual = both + head.mlp.contract.weight @ inner
    normed = residual / (residual.square().mean() + 1e-5).sqrt()
    logits = [head.unembed.weight @ half for half in (normed[:width], normed[width:])]
    assert torch.allclose(head(both), torch.cat(logits), atol=1e-5)
    one, other = objective.pairs(both[:width], both[width:])
    assert torch.allclose(one, logits[0], atol=1e-5) and torch.allclose(other, logits[1], atol=1e-5)
    assert objective.loss(backbone, by_hand).total.isfinite()


def test_an_embedding_is_shared_on_mamba_too() -> None:
    objective = BeliefState(shared_embedding=True, head="swiglu")
    backbone = Mamba(depth=2, width=16, d_state=4, vocab_size=V, max_length=objective.max_length(SMALL), scan="loop")
    objective.attach(SMALL, backbone)
    assert objective.backward_encoder.tokens is backbone.tokens
    assert objective.predict(backbone, drawn(SMALL, 4)).generated.shape == (4, 3)


# token_masking


@given(seeds, st.sampled_from([0.0, 0.3, 1.0, "uniform"]))
def test_spans_are_contiguous_and_inside_the_path(seed: int, m: Any) -> None:
    objective, _ = attached(TokenMasking, m=m, spans=True)
    torch.manual_seed(seed)
    hide = objective.masked(drawn(SMALL, 64).answers).int()
    starts = (hide.diff(dim=1, prepend=torch.zeros(64, 1, dtype=torch.int32)) == 1).sum(1)
    assert (starts <= 1).all()
    assert m != 1.0 or hide.all()
    assert m != 0.0 or not hide.any()


@pytest.mark.parametrize("spans", [False, True])
def test_as_many_tokens_are_masked_in_spans(spans: bool) -> None:
    objective, _ = attached(TokenMasking, m=0.4, spans=spans)
    torch.manual_seed(0)
    hide = objective.masked(drawn(SMALL, 20_000).answers)
    counts = torch.bincount(hide.sum(1), minlength=4) / 20_000
    assert torch.allclose(counts, torch.tensor([0.216, 0.432, 0.288, 0.064]), atol=0.012)  # binomial(3, 0.4)


def test_a_uniform_rate_is_one_rate_for_each_problem() -> None:
    """Of three tokens, 0 to 3 are masked equally often: it would be binomial with one rate for all."""
    objective, _ = attached(TokenMasking, m="uniform")
    torch.manual_seed(0)
    hide = objective.masked(drawn(SMALL, 20_000).answers)
    assert torch.allclose(torch.bincount(hide.sum(1)) / 20_000, torch.full((4,), 0.25), atol=0.012)


@pytest.mark.parametrize("random", [0.0, 0.25, 1.0])
def test_masked_tokens_are_replaced_as_often_as_said(random: float) -> None:
    objective, backbone = attached(TokenMasking, m=1.0, random=random)
    batch = drawn(SMALL, 5000)
    torch.manual_seed(0)
    (seen,) = read_by(backbone, lambda: objective.loss(backbone, batch))
    fed = seen[:, -2:]
    assert abs(float((fed == BLANK).float().mean()) - (1 - random)) < 0.02
    assert (fed[fed != BLANK] < 10).all()  # labels, which answers consist of
    if random:  # a tenth of ten labels is the right one by chance
        right = (fed == batch.answers[:, :2])[fed != BLANK].float().mean()
        assert abs(float(right) - 0.1) < 0.02


@pytest.mark.parametrize("wrong", ["even", True, -0.1])
def test_a_rate_is_a_share_or_uniform(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"objective\.m=.* is not a number from 0 to 1 or uniform"):
        TokenMasking(wrong)


# next_latent


def test_a_horizon_of_null_ends_at_the_hard_token() -> None:
    objective = NextLatent(horizon=None)
    objective.attach(PUBLISHED, full_size(objective, depth=1, width=16))
    other = NextLatent(horizon=3)  # l - 2: from the goal's parent back to the hard token
    other.attach(PUBLISHED, backbone := full_size(other, depth=1, width=16))
    other.load_state_dict(objective.state_dict())
    batch = drawn(PUBLISHED, 4)
    assert torch.equal(objective.loss(backbone, batch).total, other.loss(backbone, batch).total)


@pytest.mark.parametrize("horizon", [1, 3])
def test_next_latent_of_the_prompt_by_hand(horizon: int, by_hand: Batch) -> None:
    """Smooth L1 at every state that has one `ahead` before it, KL at those that predict the path."""
    objective, backbone = attached(NextLatent, horizon=horizon, prompt=True)
    loss = objective.loss(backbone, by_hand)
    inputs = torch.cat([by_hand.prompts, by_hand.answers[:, :-1]], 1)
    hidden, embedded, count = backbone(inputs)[0], backbone.tokens.weight[inputs[0]], inputs.shape[1]

    def foretold(start: int, ahead: int) -> Tensor:
        h = hidden[start]
        for i in range(1, ahead + 1):
            h = h + objective.mlp(objective.norm(torch.cat([h, embedded[start + i]])))
        return h

    latent, divergence = [], []
    for ahead in range(1, horizon + 1):
        pairs = [(foretold(t, ahead), hidden[t + ahead]) for t in range(count - ahead)]
        latent.append(torch.stack([F.smooth_l1_loss(g, h) for g, h in pairs]).mean())
        kls = []
        for g, h in pairs[-min(3, len(pairs)) :]:
            p, q = (backbone.logits(each).log_softmax(-1) for each in (h, g))
            kls.append((p.exp() * (p - q)).sum())
        divergence.append(torch.stack(kls).mean())
    assert torch.allclose(loss.parts["latent"], torch.stack(latent).mean(), atol=1e-5)
    assert torch.allclose(loss.parts["divergence"], torch.stack(divergence).mean(), atol=1e-5)
    plain, _ = attached(NextLatent, horizon=horizon)
    assert torch.allclose(loss.parts["next_token"], plain.loss(backbone, by_hand).parts["next_token"], atol=1e-6)
