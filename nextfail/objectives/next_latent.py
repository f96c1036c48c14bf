"""The next token, and future hidden states."""

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
    """Also predicts future hidden states from the input tokens (NextLat: Teoh et al. 2025, arXiv 2511.05963).

        inputs        ...  =   r0       r1       r2       r3
        states        .    h0  h1       h2       h3       h4      h_t predicts r_t
        foretold      .    .   f(h0,r0) f(h1,r1) f(h2,r2) f(h3,r3)
        two ahead     .    .   .        f(f(h0,r0),r1)   ...

    f(h, x) = h + MLP(LN([h; emb(x)])) is applied up to `horizon` times. Each predicted state g is compared with the
    true state h, which is detached: smooth L1 (mean over channels), and KL(p(h) || p(g)) between the token predictions
    of the two, with the unembedding frozen. Both losses are averaged over the steps ahead and added to the next-token
    cross-entropy. Decoding is that of teacher-forcing: f is dropped. As published, h is the state after the final norm,
    and the MLP has three layers of the model's width, with GELU.

    Differs from the paper in:
        - The default horizon is 4; on star graphs the paper's is l - 2 (`horizon=null`).
        - By default only states of the path are predicted. The paper's smooth L1 loss also covers those of the prompt,
          and its rollouts start there (`prompt=true`).
        - The paper ends a path with an end token, which is trained; star graphs here have none.
        - The norm of f is a LayerNorm, and its layers have biases (there: RMSNorm, no biases); token embedding and
          unembedding are one matrix (there: two).

    Args:
        horizon: number of states ahead, at least 1; states beyond the end of the path are ignored; null for the length
            of the longest answer - 2.
        latent_weight: weight of the smooth L1 loss.
        kl_weight: weight of the KL divergence.
        prompt: whether the hidden states of the prompt take part in the loss, too.
    """

    def __init__(
        self,
        horizon: AtLeast1 | None = 4,
        latent_weight: NotNegative = 1.0,
        kl_weight: NotNegative = 1.0,
        prompt: bool = False,
    ) -> None:
        super().__init__()
        self.horizon, self.prompt = horizon, prompt
        self.latent_weight, self.kl_weight = latent_weight, kl_weight

    def build(self, backbone: Backbone) -> None:
        self.steps = max(1, self.task.answer_length - 2) if self.horizon is None else self.horizon
        width = backbone.width
        self.norm = nn.LayerNorm(2 * width)
        layers = (nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.mlp = nn.Sequential(*layers)

    def foretell(self, hidden: Tensor, embedded: Tensor) -> Tensor:
        """Predicted states f(h, x), (B, k, C), from states (B, k, C) and embeddings (B, k, C) of their input tokens."""
        moved: Tensor = self.mlp(self.norm(torch.cat([hidden, embedded], -1)))
        return hidden + moved

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        paths, length = batch.answers, batch.answers.shape[1]
        inputs = self.inputs(batch.prompts, paths)
        count = inputs.shape[1] if self.prompt else length  # K states, of which the last l predict the path
        hidden = backbone(inputs, last=count)  # (B, K, C)
        counts = F.pad(self.counts(paths), (count - length, 0), value=True)  # (B, K)
        true, embedded = hidden.detach(), backbone.embed(inputs[:, inputs.shape[1] - count + 1 :])  # (B, K - 1, C)
        predicted = F.log_softmax(backbone.logits(true[:, -length:], frozen=True).float(), -1)  # (B, l, V)
        guess, latent, divergence = hidden, [], []
        for ahead in range(1, min(self.steps, count - 1) + 1):
            guess = self.foretell(guess[:, : count - ahead], embedded[:, ahead - 1 :])  # (B, K - ahead, C)
            if self.vocab.end is None:
                latent.append(F.smooth_l1_loss(guess, true[:, ahead:]))
            else:
                apart = F.smooth_l1_loss(guess, true[:, ahead:], reduction="none").mean(-1)
                latent.append(self.mean(apart, counts[:, ahead:]))
            last = min(length, count - ahead)  # only states that predict the path have a token distribution to match
            logits = backbone.logits(guess[:, -last:], frozen=True).float()
            each = F.kl_div(F.log_softmax(logits, -1), predicted[:, -last:], reduction="none", log_target=True)
            divergence.append(self.mean(each.sum(-1), counts[:, -last:]))
        parts = {
            "latent": self.latent_weight * torch.stack(latent).mean(),
            "divergence": self.kl_weight * torch.stack(divergence).mean(),
        }
        return self.next_token(backbone, hidden[:, -length:], paths).plus(**parts)
