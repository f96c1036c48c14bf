"""Ordinary next-token training: the one that fails."""

from nextfail.objectives.base import Objective
from nextfail.source import public


@public("teacher_forcing")
class TeacherForcing(Objective):
    """Each token of the path from the true ones before it (Bachmann & Nagarajan 2024, eq. 2).

        inputs   ...  =   r0  r1  r2  r3
        labels   .    r0  r1  r2  r3  r4

    Given r1, every later token is the one edge onward: the Clever Hans cheat. It leaves r1 the only token that needs
    the goal, and starves it of the supervision that would have taught how to look for it.
    """
