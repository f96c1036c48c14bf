"""Objectives that add a loss to that of the next token, by hand, on one problem of G(2,3) and on small batches."""

import math
from typing import Any

import pytest
import torch
from expected import PROMPT, V, log_prob, states
from helpers import SMALL, attached, drawn, read_by
from torch import Tensor

from nextfail.errors import UserError
from nextfail.objectives import (
    FutureSummary,
    MultiToken,
    NextLatent,
    TokenOrder,
)
from nextfail.objectives.future_summary import bags
from nextfail.objectives.token_order import shares
from nextfail.tasks import Batch

# multi_token


@pytest.mark.parametrize("k", [2, 3])
def test_multi_token_by_hand(k: int, by_hand: Batch) -> None:
    objective, backbone = attached(MultiToken, k=k)
    loss = objective.loss(backbone, by_hand)
    assert [seen.tolist() for seen in read_by(backbone, lambda: objective.loss(backbone, by_hand))] == [
        [[*PROMPT, 7, 1]]
    ]
    trunk = backbone(torch.tensor([[*PROMPT, 7, 1]]), before_norm=True)
    labels = [[7, 1, 4], [1, 4], [4]]  # of head i: the path from its i-th token on
    expected = torch.tensor(0.0)
    for i in range(k):
        logits = backbone.logits(backbone.norm(objective.heads[i](trunk)))[0, -3:]
        by_token = [-log_prob(logits[place], label) for place, label in enumerate(labels[i])]
        part = torch.stack(by_token).mean()
        assert torch.allclose(loss.parts["next_token" if i == 0 else f"ahead_{i}"], part, atol=1e-5)
        expected = expected + part
    assert torch.allclose(loss.total, expected, atol=1e-5)
    assert loss.labels.tolist() == [[7, 1, 4]]


@torch.no_grad()
def test_multi_token_decodes_with_head_0_alone() -> None:
    objective, backbone = attached(MultiToken)
    batch = drawn(SMALL, 8)
    predictions = objective.predict(backbone, batch)
    for head in objective.heads[1:]:
        for parameter in head.parameters():
            parameter.fill_(torch.nan)
    for i, (prompt, path) in enumerate(zip(batch.prompts.tolist(), batch.answers.tolist(), strict=True)):

        def naive(written: list[int], prompt: list[int] = prompt) -> list[int]:
            while len(written) < 3:
                trunk = backbone(torch.tensor([prompt + written]), before_norm=True)
                logits = backbone.logits(backbone.norm(objective.heads[0](trunk)))
                written = [*written, int(logits[0, -1].argmax())]
            return written

        assert predictions.generated[i].tolist() == naive([])
        assert predictions.probed["cheat_accuracy"][i].tolist() == naive(path[:2])
        assert predictions.forced[i].tolist() == [naive(path[:j])[j] for j in range(3)]


def test_multi_token_heads_are_as_many_as_asked() -> None:
    objective, _ = attached(MultiToken, k=2)
    assert len(objective.heads) == 2
    more, _ = attached(MultiToken, k=4)
    assert len(more.heads) == SMALL.path_length  # the fourth would have nothing to predict
    for wrong in (1, 2.0, "3", True):
        with pytest.raises(UserError, match=r"objective\.k=.* is not a whole number of at least 2"):
            MultiToken(wrong)


# token_order


def test_shares_by_hand() -> None:
    e = math.exp(-1)
    whole, pair = 1 + e + e**2, 1 + e
    expected = torch.tensor([[1 / whole, e / whole, e**2 / whole], [0, 1 / pair, e / pair], [0, 0, 1]])
    assert torch.allclose(shares(3), expected, atol=1e-6)


def test_token_order_by_hand(by_hand: Batch) -> None:
    objective, backbone = attached(TokenOrder)
    loss = objective.loss(backbone, by_hand)
    hidden = states(backbone, [7, 1], 3)
    path, order = [7, 1, 4], torch.tensor(0.0)
    for t in range(3):
        logits = objective.order(hidden[t])
        weights = {v: math.exp(-k) for k, v in enumerate(path[t:])}  # v first occurs k ahead; 0 elsewhere
        order = order - sum(w / sum(weights.values()) * log_prob(logits, v) for v, w in weights.items()) / 3
    next_token = -torch.stack([log_prob(backbone.logits(hidden[t]), path[t]) for t in range(3)]).mean()
    assert torch.allclose(loss.parts["order"], order, atol=1e-5)
    assert torch.allclose(loss.parts["next_token"], next_token, atol=1e-5)
    assert torch.allclose(loss.total, next_token + order, atol=1e-5)


def test_token_order_is_least_for_the_right_ranking(by_hand: Batch) -> None:
    """No distribution does better than the one asked for, whose cross-entropy with itself is its entropy."""
    rows = shares(3)
    entropy = -(rows * rows.clamp(min=1e-30).log()).sum(-1).mean()
    objective, backbone = attached(TokenOrder)
    optimizer = torch.optim.Adam([*backbone.parameters(), *objective.parameters()], lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = objective.loss(backbone, by_hand)
        assert loss.parts["order"] > entropy - 1e-4
        loss.total.backward()
        optimizer.step()
    assert torch.allclose(loss.parts["order"], entropy, atol=0.02)
    assert objective.order(states(backbone, [], 1)[0]).topk(3).indices.tolist() == [7, 1, 4]


# next_latent


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_next_latent_by_hand(horizon: int, by_hand: Batch) -> None:
    objective, backbone = attached(NextLatent, horizon=horizon)
    loss = objective.loss(backbone, by_hand)
    hidden, embedded = states(backbone, [7, 1], 3), backbone.tokens.weight

    def step(h: Tensor, token: int) -> Tensor:
        return h + objective.mlp(objective.norm(torch.cat([h, embedded[token]])))

    foretold = {(0, 1): step(hidden[0], 7), (1, 1): step(hidden[1], 1)}  # (from state, how far ahead)
    foretold[0, 2] = step(foretold[0, 1], 1)
    latent, divergence = [], []
    for ahead in range(1, min(horizon, 2) + 1):
        pairs = [(foretold[t, ahead], hidden[t + ahead]) for t in range(3 - ahead)]
        smooth = [torch.where((d := (g - h).abs()) < 1, d**2 / 2, d - 0.5).mean() for g, h in pairs]
        latent.append(torch.stack(smooth).mean())
        kls = []
        for g, h in pairs:
            p, q = (backbone.logits(each).log_softmax(-1) for each in (h, g))
            kls.append((p.exp() * (p - q)).sum())
        divergence.append(torch.stack(kls).mean())
    assert torch.allclose(loss.parts["latent"], torch.stack(latent).mean(), atol=1e-5)
    assert torch.allclose(loss.parts["divergence"], torch.stack(divergence).mean(), atol=1e-5)
    assert torch.allclose(loss.total, torch.stack(list(loss.parts.values())).sum(), atol=1e-5)


def test_next_latent_weights_scale_its_parts(by_hand: Batch) -> None:
    one, backbone = attached(NextLatent)
    other, _ = attached(NextLatent, latent_weight=3.0, kl_weight=0.5)
    other.load_state_dict(one.state_dict())
    parts, scaled = one.loss(backbone, by_hand).parts, other.loss(backbone, by_hand).parts
    for name, factor in {"next_token": 1, "latent": 3, "divergence": 0.5}.items():
        assert torch.allclose(scaled[name], factor * parts[name], rtol=1e-5)


def test_no_gradient_flows_into_what_is_foretold(by_hand: Batch) -> None:
    """The last state of the path is a target alone, and the unembedding only scores."""
    objective, backbone = attached(NextLatent, horizon=2)
    kept: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = backbone.norm.register_forward_hook(keep)
    parts = objective.loss(backbone, by_hand).parts
    hook.remove()
    (parts["latent"] + parts["divergence"]).backward()
    gradient = kept[0].grad
    assert gradient is not None
    by_state = gradient[0, -3:].abs().amax(-1)
    assert by_state[2] == 0
    assert (by_state[:2] > 1e-8).all()
    # of the tied embedding, only the rows of tokens that are read get a gradient: 2 is in no prompt
    assert backbone.tokens.weight.grad is not None
    assert backbone.tokens.weight.grad[2].abs().max() == 0


@pytest.mark.parametrize("make", [FutureSummary, lambda w: NextLatent(1, w), lambda w: NextLatent(1, 1.0, w)])
@pytest.mark.parametrize("wrong", [-5.0, "1", None, True])
def test_weights_are_numbers_of_at_least_0(make: Any, wrong: Any) -> None:
    with pytest.raises(UserError, match=r"objective\.\w*weight=.* is not a number of at least 0"):
        make(wrong)


# future_summary


def test_bags_by_hand() -> None:
    found = bags(torch.tensor([[7, 1, 4]]), V)
    assert [row.nonzero().flatten().tolist() for row in found[0]] == [[1, 4], [4]]
    assert found.sum() == 3


def test_future_summary_by_hand(by_hand: Batch) -> None:
    objective, backbone = attached(FutureSummary, weight=0.25)
    loss = objective.loss(backbone, by_hand)
    hidden, places = states(backbone, [7, 1], 3), []
    for t, bag in enumerate([{1, 4}, {4}]):
        chances = objective.summary(hidden[t]).sigmoid()
        places.append(-torch.stack([(chances[v] if v in bag else 1 - chances[v]).log() for v in range(V)]).sum())
    assert torch.allclose(loss.parts["summary"], 0.25 * torch.stack(places).mean(), atol=1e-4)
    assert torch.allclose(loss.total, loss.parts["next_token"] + loss.parts["summary"], atol=1e-5)
