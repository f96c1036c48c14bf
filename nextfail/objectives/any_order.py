"""Masked path tokens from the unmasked ones, with bidirectional attention."""

from typing import Literal

import torch
from torch import Tensor

from nextfail.models.backbone import BIDIRECTIONAL, Backbone
from nextfail.objectives.base import IGNORE, Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("any_order")
class AnyOrder(Objective):
    """Predicts masked path tokens from the unmasked ones, in any order (MLM-U: Kitouni et al. 2024, arXiv 2406.05183).

        inputs   ...  =   $   r1  $   $   r4
        labels   .    .   r0  .   r2  r3  .

    Each path token is masked with probability u, sampled uniformly from (0, 1) for each problem. Attention is
    bidirectional, so the backbone must support it (a Transformer does; Mamba is causal). Choices of ours: a single
    model reads prompt and path (the paper's is an encoder-decoder that does not attend to masked tokens); "$" is the
    mask token and is attended to; if no token is masked, the one with the lowest random draw is; all masked tokens of a
    batch have equal weight; decoding starts from masked tokens only and proceeds by confidence (the paper's from left
    to right). There is no forced pass, as there is no order.

    Args:
        decode: "confident" fills in one masked token at a time, most confident first; "at_once" fills in all.
    """

    requires = frozenset({BIDIRECTIONAL})
    reads_prompt_once = False

    def __init__(self, decode: Literal["confident", "at_once"] = "confident") -> None:
        super().__init__()
        self.decode = decode

    def inputs(self, prompts: Tensor, written: Tensor) -> Tensor:
        return torch.cat([prompts, written], 1)

    def states(self, backbone: Backbone, prompts: Tensor, written: Tensor) -> Tensor:
        hidden: Tensor = backbone(self.inputs(prompts, written), causal=False, last=written.shape[1])
        return hidden

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        paths = batch.answers
        draw = torch.rand(paths.shape, device=paths.device)
        rate = torch.rand(len(paths), 1, device=paths.device)
        if self.vocab.end is not None:
            draw = draw.masked_fill(~self.counts(paths), 2.0)  # never the lowest
        hide = draw <= torch.maximum(rate, draw.amin(1, keepdim=True))
        labels = paths.masked_fill(~hide, IGNORE)
        if self.vocab.end is not None:
            hide = hide | ~self.counts(paths)  # padding would reveal where the end is
        hidden = self.states(backbone, batch.prompts, paths.masked_fill(hide, self.vocab.blank))
        return self.cross_entropy(backbone.logits(hidden), labels)

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        blanks = prompts.new_full((len(prompts), length), self.vocab.blank)
        paths = blanks if given is None else torch.cat([given, blanks[:, given.shape[1] :]], 1)
        known = torch.arange(length, device=prompts.device) < (0 if given is None else given.shape[1])
        known = known.expand(len(prompts), -1)
        while not known.all():
            if self.vocab.end is not None:  # as in training, padding is masked
                after = ~self.counts(paths)
                paths, known = paths.masked_fill(after, self.vocab.blank), known | after
            logits = backbone.logits(self.states(backbone, prompts, paths))  # (B, l, V)
            sure, tokens = logits.float().softmax(-1).max(-1)
            fill = ~known
            if self.decode == "confident":
                best = sure.masked_fill(known, -1).argmax(1, keepdim=True)
                fill = fill & torch.zeros_like(known).scatter(1, best, True)
            paths, known = torch.where(fill, tokens, paths), known | fill
        return paths

    def forced(self, backbone: Backbone, batch: Batch) -> None:
        return None
