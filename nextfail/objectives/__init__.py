"""Training objectives, one per file."""

from nextfail.objectives.any_order import AnyOrder
from nextfail.objectives.base import IGNORE, Loss, Objective, Predictions
from nextfail.objectives.belief_state import BeliefState
from nextfail.objectives.first_hop_only import FirstHopOnly
from nextfail.objectives.future_summary import FutureSummary
from nextfail.objectives.multi_token import MultiToken
from nextfail.objectives.next_latent import NextLatent
from nextfail.objectives.reverse import Reverse
from nextfail.objectives.scratchpad import Scratchpad
from nextfail.objectives.teacher_forcing import TeacherForcing
from nextfail.objectives.teacherless import Teacherless
from nextfail.objectives.token_masking import TokenMasking
from nextfail.objectives.token_order import TokenOrder

ALL = (
    TeacherForcing,
    FirstHopOnly,
    Reverse,
    Teacherless,
    MultiToken,
    TokenOrder,
    NextLatent,
    FutureSummary,
    AnyOrder,
    BeliefState,
    TokenMasking,
    Scratchpad,
)

__all__ = [
    "ALL",
    "IGNORE",
    "AnyOrder",
    "BeliefState",
    "FirstHopOnly",
    "FutureSummary",
    "Loss",
    "MultiToken",
    "NextLatent",
    "Objective",
    "Predictions",
    "Reverse",
    "Scratchpad",
    "TeacherForcing",
    "Teacherless",
    "TokenMasking",
    "TokenOrder",
]
