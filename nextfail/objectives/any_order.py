"""Masked path tokens from the unmasked ones, with bidirectional attention."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nextfail.models.backbone import BIDIRECTIONAL, Backbone
from nextfail.objectives.base import IGNORE, Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("any_order", revision=2)
class AnyOrder(Objective):
    """Predicts masked path tokens from the unmasked ones, in any order (MLM-U: Kitouni et al. 2024, arXiv 2406.05183).

        inputs   ...  =   $   r1  $   $   r4
        labels   .    .   r0  .   r2  r3  .

    As published (equation 5), the number of masked tokens is uniform on 1..L for each problem, which of them is
    uniform, the loss is averaged over the masked tokens of a problem first, and answers are decoded from left to right.
    Attention is bidirectional, so the backbone must support it (a Transformer does; Mamba is causal). There is no
    forced pass, as there is no order.

    Differs from the paper in:
        - One model reads prompt and path; masked tokens are "$" and attended to. The paper's is an encoder of the
          unmasked tokens, and a decoder that attends to the encoder alone.
        - The prompt is never masked. The authors' later code for star graphs masks it too.
        - That code averages over all masked tokens of a batch (`mean=token`).

    Args:
        decode: order of decoding. left_to_right; confident: the most confident token first; at_once: all in one pass.
        mean: the loss is averaged over the masked tokens of each example first, or over every masked token of a batch.
    """

    requires = frozenset({BIDIRECTIONAL})
    reads_prompt_once = False

    def __init__(
        self,
        decode: Literal["left_to_right", "confident", "at_once"] = "left_to_right",
        mean: Literal["example", "token"] = "example",
    ) -> None:
        super().__init__()
        self.decode, self.mean_over = decode, mean

    def inputs(self, prompts: Tensor, written: Tensor) -> Tensor:
        return torch.cat([prompts, written], 1)

    def states(self, backbone: Backbone, prompts: Tensor, written: Tensor) -> Tensor:
        hidden: Tensor = backbone(self.inputs(prompts, written), causal=False, last=written.shape[1])
        return hidden

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        paths, counts = batch.answers, self.counts(batch.answers)
        draw = torch.rand(paths.shape, device=paths.device).masked_fill(~counts, 2.0)  # these are masked last
        masked = 1 + (torch.rand(len(paths), 1, device=paths.device) * counts.sum(1, keepdim=True)).long()  # (B, 1)
        hide = draw.argsort(1).argsort(1) < masked
        labels = paths.masked_fill(~hide, IGNORE)
        if self.vocab.end is not None:
            hide = hide | ~counts  # padding would reveal where the end is
        hidden = self.states(backbone, batch.prompts, paths.masked_fill(hide, self.vocab.blank))
        logits = backbone.logits(hidden)  # (B, L, V)
        if self.mean_over == "token":
            return self.cross_entropy(logits, labels)
        each = F.cross_entropy(logits.mT.float(), labels, ignore_index=IGNORE, reduction="none")  # (B, L)
        return Loss((each.sum(1, keepdim=True) / masked).mean(), logits, labels)

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        blanks = prompts.new_full((len(prompts), length), self.vocab.blank)
        paths = blanks if given is None else torch.cat([given, blanks[:, given.shape[1] :]], 1)
        place = torch.arange(length, device=prompts.device)
        known = (place < (0 if given is None else given.shape[1])).expand(len(prompts), -1)
        while not known.all():
            if self.vocab.end is not None:  # as in training, padding is masked
                after = ~self.counts(paths)
                paths, known = paths.masked_fill(after, self.vocab.blank), known | after
            logits = backbone.logits(self.states(backbone, prompts, paths))  # (B, L, V)
            fill = ~known
            if self.decode != "at_once":
                sure = -place.expand_as(paths)
                if self.decode == "confident":  # nothing was learned beyond the end
                    counts = self.counts(torch.where(known, paths, logits.argmax(-1)))
                    sure = logits.float().softmax(-1).amax(-1).masked_fill(~counts, -1)
                best = sure.masked_fill(known, -length).argmax(1, keepdim=True)
                fill = fill & torch.zeros_like(known).scatter(1, best, True)
            paths, known = torch.where(fill, self.pick(logits), paths), known | fill
        return paths

    def forced(self, backbone: Backbone, batch: Batch) -> None:
        return None
