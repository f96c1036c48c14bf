"""Backbones: sequence models, independent of tasks and objectives."""

from nextfail.models.backbone import Backbone
from nextfail.models.hybrid import Hybrid
from nextfail.models.mamba import Mamba, Mamba2
from nextfail.models.pretrained import Pretrained
from nextfail.models.stack import Stack
from nextfail.models.transformer import Transformer

__all__ = ["Backbone", "Hybrid", "Mamba", "Mamba2", "Pretrained", "Stack", "Transformer"]
