"""Standard next-token prediction with teacher forcing: the one that fails."""

from nextfail.objectives.base import Objective
from nextfail.source import public


@public("teacher_forcing")
class TeacherForcing(Objective):
    """Predicts each token of the path from the true ones before it (Bachmann & Nagarajan 2024, eq. 2).

        inputs   ...  =   r0  r1  r2  r3
        labels   .    r0  r1  r2  r3  r4

    Given r1, every later token follows from a single edge: the Clever Hans cheat. It leaves r1 as the only token that
    needs the goal, and removes the supervision from which the model could learn to search for it.
    """
