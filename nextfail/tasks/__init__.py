"""The path-star task: graphs, tokens, text files, data sets."""

from nextfail.tasks.path_star.graph import Batch, PathStar
from nextfail.tasks.path_star.vocab import Vocab

__all__ = ["Batch", "PathStar", "Vocab"]
