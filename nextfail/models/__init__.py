"""Backbones: what predicts. They know nothing of graphs or objectives."""

from nextfail.models.backbone import Backbone
from nextfail.models.mamba import Mamba
from nextfail.models.pretrained import Pretrained
from nextfail.models.transformer import Transformer

__all__ = ["Backbone", "Mamba", "Pretrained", "Transformer"]
