"""The path-star task: graphs, tokens, text files, data sets."""

from nextfail.task.graph import Batch, PathStar
from nextfail.task.vocab import Vocab

__all__ = ["Batch", "PathStar", "Vocab"]
