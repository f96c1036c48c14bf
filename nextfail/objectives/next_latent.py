"""The next token, and the next hidden states."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.config import AtLeast1, NotNegative
from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("next_latent")
class NextLatent(Objective):
    """Every state also foretells the states to come from the tokens fed (NextLat: Teoh et al. 2025, arXiv 2511.05963).

        inputs        ...  =   r0       r1       r2       r3
        states        .    h0  h1       h2       h3       h4      h_t predicts r_t
        foretold      .    .   f(h0,r0) f(h1,r1) f(h2,r2) f(h3,r3)
        two ahead     .    .   .        f(f(h0,r0),r1)   ...

    f(h, x) = h + MLP(LN([h; emb(x)])) is applied up to `horizon` times, each foretold state g standing against the
    true one h, through which no gradient flows: smooth L1 (mean over channels) and KL(p(h) || p(g)) of the tokens
    that the two would predict, with the unembedding held fixed. Each is the mean over how far ahead, and both are
    added to the next token's cross-entropy. It decodes as teacher-forcing does: f is dropped. Choices of ours: the
    MLP has three layers as wide as the model, with GELU; states of the path alone are foretold, and none across its
    end (the paper is read to foretell those of the prompt as well).

    Args:
        horizon: how many states ahead, at least 1; what reaches beyond the path's end is left out.
        latent_weight: of the smooth L1.
        kl_weight: of the KL divergence.
    """

    def __init__(self, horizon: AtLeast1 = 4, latent_weight: NotNegative = 1.0, kl_weight: NotNegative = 1.0) -> None:
        super().__init__()
        self.horizon = horizon
        self.latent_weight, self.kl_weight = latent_weight, kl_weight

    def build(self, backbone: Backbone) -> None:
        width = backbone.width
        self.norm = nn.LayerNorm(2 * width)
        layers = (nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.mlp = nn.Sequential(*layers)

    def foretell(self, hidden: Tensor, embedded: Tensor) -> Tensor:
        """f of states (B, k, C) and embeddings (B, k, C) of the tokens fed to them: (B, k, C)."""
        moved: Tensor = self.mlp(self.norm(torch.cat([hidden, embedded], -1)))
        return hidden + moved

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        paths, length = batch.answers, batch.answers.shape[1]
        counts = self.counts(paths)
        hidden = self.states(backbone, batch.prompts, paths)  # (B, l, C)
        true, embedded = hidden.detach(), backbone.embed(paths)
        predicted = F.log_softmax(backbone.logits(true, frozen=True).float(), -1)  # (B, l, V)
        guess, latent, divergence = hidden, [], []
        for ahead in range(1, min(self.horizon, length - 1) + 1):
            guess = self.foretell(guess[:, : length - ahead], embedded[:, ahead - 1 : length - 1])  # (B, l - ahead, C)
            if self.vocab.end is None:
                latent.append(F.smooth_l1_loss(guess, true[:, ahead:]))
            else:
                apart = F.smooth_l1_loss(guess, true[:, ahead:], reduction="none").mean(-1)
                latent.append(self.mean(apart, counts[:, ahead:]))
            logits = backbone.logits(guess, frozen=True).float()
            each = F.kl_div(F.log_softmax(logits, -1), predicted[:, ahead:], reduction="none", log_target=True)
            divergence.append(self.mean(each.sum(-1), counts[:, ahead:]))
        parts = {
            "latent": self.latent_weight * torch.stack(latent).mean(),
            "divergence": self.kl_weight * torch.stack(divergence).mean(),
        }
        return self.next_token(backbone, hidden, paths).plus(**parts)
