"""Training objectives, one a file."""

from nextfail.objectives.base import IGNORE, Loss, Objective, Predictions, cross_entropy
from nextfail.objectives.first_hop_only import FirstHopOnly
from nextfail.objectives.reverse import Reverse
from nextfail.objectives.teacher_forcing import TeacherForcing
from nextfail.objectives.teacherless import Teacherless

__all__ = [
    "IGNORE",
    "FirstHopOnly",
    "Loss",
    "Objective",
    "Predictions",
    "Reverse",
    "TeacherForcing",
    "Teacherless",
    "cross_entropy",
]
