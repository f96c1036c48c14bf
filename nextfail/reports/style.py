"""Style of all figures: one colour per objective, one marker per model; and rendering to files."""

import zlib
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from nextfail.reports.names import MODELS, OBJECTIVES

OTHER_COLOURS = ("#999999", "#000000", "#BBBBBB")
WRONG = "#D55E00"
OTHER_MARKERS = ("^", "D", "v", "P")
CHANCE: dict[str, Any] = {"color": "0.4", "ls": ":", "lw": 1.1, "zorder": 1}

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "text.parse_math": False,  # names come from run folders and may contain $
    "svg.hashsalt": "nextfail",  # fixed, so that the same figure is the same file
}


def colour(objective: str) -> str:
    """The colour of an objective, the same in every figure and report."""
    return OBJECTIVES.get(objective) or OTHER_COLOURS[zlib.crc32(objective.encode()) % len(OTHER_COLOURS)]


def marker(model: str) -> str:
    """The marker of a model, the same in every figure and report."""
    return MODELS.get(model) or OTHER_MARKERS[zlib.crc32(model.encode()) % len(OTHER_MARKERS)]


def render(figure: Figure) -> dict[str, bytes]:
    """A figure as file contents, by suffix: png at 150 dpi, and svg."""
    files = {}
    with matplotlib.rc_context(STYLE):
        for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
            buffer = BytesIO()
            figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
            figure.set_layout_engine("none")  # the layout is fixed after the first drawing
            files[suffix] = buffer.getvalue()
    return files
