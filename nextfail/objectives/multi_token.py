"""Multi-token prediction: one head per future token."""

import torch
from torch import Tensor, nn

from nextfail.config import AtLeast0, AtLeast2
from nextfail.models.backbone import BEFORE_NORM, Backbone
from nextfail.objectives.base import Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("multi_token", revision=2)
class MultiToken(Objective):
    """Also predicts the k - 1 tokens after the next (Gloeckle et al. 2024, arXiv 2404.19737, section 2).

        inputs   ...  =   r0  r1  r2  r3
        head 0   .    r0  r1  r2  r3  r4
        head 1   .    r1  r2  r3  r4  .
        head 2   .    r2  r3  r4  .   .

    As published, a head is one block over the trunk, all heads share the unembedding, and the loss is the sum of the
    heads' cross-entropies, each averaged over its positions. Only head 0 is used for decoding. That heads read the
    trunk before its final norm, which they share, is read in the code of the TOP paper (Zuhri et al. 2025) and in ports
    of the released models; the paper does not say.

    Differs from the paper in:
        - By default the trunk keeps its depth, so that decoding costs one block more than next-token prediction. The
          paper removes as many blocks from the trunk as there are heads (`removed=k`), the TOP paper one (`removed=1`).
        - Only tokens of the path are predicted, and a head has no label beyond its end. In the TOP paper, later heads
          also predict the first tokens of the path from the last positions of the prompt.

    Args:
        k: number of heads, at least 2; capped at the number of path tokens.
        removed: number of blocks to remove from the end of the backbone.

    Raises:
        UserError: the backbone has no more blocks than are removed.
    """

    requires = frozenset({BEFORE_NORM})
    reads_prompt_once = False  # a head looks back over all states

    def __init__(self, k: AtLeast2 = 4, removed: AtLeast0 = 0) -> None:
        super().__init__()
        self.k, self.removed = k, removed

    def build(self, backbone: Backbone) -> None:
        count = min(self.k, self.task.answer_length)  # further heads would have no labels
        self.heads = nn.ModuleList(backbone.new_block() for _ in range(count))
        if self.removed:
            backbone.remove_blocks(self.removed)

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        paths, length = batch.answers, batch.answers.shape[1]
        labels = self.labels(paths)
        trunk = backbone(
            self.inputs(batch.prompts, paths), before_norm=True
        )  # (B, T, C): each head reads all positions
        losses = []
        for ahead, head in enumerate(self.heads):
            hidden = backbone.final_norm(head(trunk, last=length))[:, : length - ahead]
            losses.append(self.cross_entropy(backbone.logits(hidden), labels[:, ahead:]))
        return losses[0].plus(**{f"ahead_{i}": loss.total for i, loss in enumerate(losses) if i})

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        paths = prompts[:, :0] if given is None else given
        trunk, cache = backbone.step(torch.cat([prompts, paths], 1), before_norm=True)
        while paths.shape[1] < length:
            paths = torch.cat([paths, self.pick(self._next(backbone, trunk, 1))], 1)
            if paths.shape[1] < length:
                state, cache = backbone.step(paths[:, -1:], cache, before_norm=True)
                trunk = torch.cat([trunk, state], 1)
        return paths

    @torch.no_grad()
    def forced(self, backbone: Backbone, batch: Batch) -> Tensor:
        trunk = backbone(self.inputs(batch.prompts, batch.answers), before_norm=True)
        return self._next(backbone, trunk, batch.answers.shape[1]).argmax(-1)

    def _next(self, backbone: Backbone, trunk: Tensor, last: int) -> Tensor:
        """Logits (B, last, V) of head 0 at the last positions of the trunk's states (B, T, C)."""
        return backbone.logits(backbone.final_norm(self.heads[0](trunk, last=last)))
