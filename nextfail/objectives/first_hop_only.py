"""The hard token alone: can it be learned when nothing else is asked?"""

import torch
from torch import Tensor

from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Loss, Objective, cross_entropy
from nextfail.source import public
from nextfail.tasks.path_star.graph import Batch


@public("first_hop_only")
class FirstHopOnly(Objective):
    """The first hop from the prompt and the start (Bachmann & Nagarajan 2024, the indecipherable token, Table 5).

        inputs   ...  =   r0
        labels   .    .   r1

    A diagnostic and no remedy: it takes the cheat away, and with it the supervision of every other token. It is judged
    on the hard token. The start stands in the prompt, so it is given when decoding; tokens after the first hop are
    decoded, for the metrics have a place for them, and mean nothing.
    """

    takes_given = False  # what comes after the hop was never asked
    hard_token_alone = True

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        hidden = backbone(torch.cat([batch.prompts, batch.paths[:, :1]], 1), last=1)  # (B, 1, C)
        return cross_entropy(backbone.logits(hidden), batch.paths[:, 1:2])

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        self.refuse_prefix(given)
        hidden, cache = backbone.step(prompts, last=1)
        _, start, _ = self.vocab.split(prompts)
        return self._continue(backbone, hidden, cache, length, start.unsqueeze(1))

    def forced(self, backbone: Backbone, batch: Batch) -> None:
        return None
