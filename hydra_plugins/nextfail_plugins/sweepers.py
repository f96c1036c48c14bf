"""Hydra's basic sweeper, without the checks that nextfail's launchers repeat. Hydra imports this at every start."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from hydra_plugins.nextfail_plugins.launchers import NextfailLauncher


class GridSweeper(BasicSweeper):
    """Skips composing jobs for validation, since NextfailLauncher composes every job before it starts one."""

    def sweep(self, arguments: list[str]) -> Any:
        most = self.max_batch_size
        if most is not None and not (type(most) is int and most > 0):
            from nextfail.errors import UserError

            raise UserError(f"hydra.sweeper.max_batch_size={most!r} is not a whole number of at least 1, or null")
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not isinstance(self.launcher, NextfailLauncher):
            super().validate_batch_is_legal(batch)
