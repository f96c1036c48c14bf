"""Hydra's own sweeper, without what our launchers do as well. Hydra imports this at every start."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from hydra_plugins.nextfail_plugins.launchers import NextfailLauncher


class GridSweeper(BasicSweeper):
    """Composes nothing by itself for a launcher that composes every job before it starts one."""

    def __init__(self, max_batch_size: int | None, params: Any = None) -> None:
        if max_batch_size is not None and not (type(max_batch_size) is int and max_batch_size > 0):
            from nextfail.errors import UserError

            raise UserError(
                f"hydra.sweeper.max_batch_size={max_batch_size!r} is not a whole number of at least 1, or null"
            )
        super().__init__(max_batch_size, params)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not isinstance(self.launcher, NextfailLauncher):
            super().validate_batch_is_legal(batch)
