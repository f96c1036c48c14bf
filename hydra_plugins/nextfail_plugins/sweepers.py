"""Hydra's own sweeper, without what our launchers do as well. Hydra imports this at every start."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from hydra_plugins.nextfail_plugins.launchers import NextfailLauncher


class GridSweeper(BasicSweeper):
    """Composes nothing by itself for a launcher that composes every job before it starts one."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not isinstance(self.launcher, NextfailLauncher):
            super().validate_batch_is_legal(batch)
