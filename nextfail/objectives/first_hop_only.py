"""The hard token only: can it be learned on its own?"""

import torch
from torch import Tensor

from nextfail.errors import UserError
from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("first_hop_only")
class FirstHopOnly(Objective):
    """Trains on the hard token only (Bachmann & Nagarajan 2024, the indecipherable token, Table 5).

        inputs   ...  =   r0
        labels   .    .   r1

    A diagnostic, not a remedy: it removes the cheat, and with it the supervision of all other tokens. It is judged by
    the hard token. The start is known from the prompt and is given when decoding; tokens after the first hop are
    decoded only to fill the answer and are meaningless.
    """

    takes_given = False  # tokens after the first hop are not trained
    reads_prompt_once = False
    judged_by = "hard_token_accuracy"

    def build(self, backbone: Backbone) -> None:
        if self.task.hard_position is None:
            raise UserError(f"{type(self).__name__} needs a task with one hard token, and {self.task} has none")
        self.place = self.task.hard_position

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        known, hard = batch.answers[:, : self.place], self.labels(batch.answers)[:, self.place :]
        hidden = backbone(torch.cat([batch.prompts, known], 1), last=1)  # (B, 1, C)
        return self.cross_entropy(backbone.logits(hidden), hard[:, :1])

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        self.refuse_prefix(given)
        hidden, cache = backbone.step(prompts, last=1)
        return self._continue(backbone, hidden, cache, length, self.task.known_prefix(prompts))

    def forced(self, backbone: Backbone, batch: Batch) -> None:
        return None
