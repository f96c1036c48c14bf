"""The logger behind metrics.csv: one row per step and split, without timings."""

from argparse import Namespace
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from nextfail.runs.folder import RunFolder
from nextfail.runs.table import Row, Table


class MetricsFile(Logger):
    """Writes metrics logged as `split/column` to the row (step, split).

    Lightning's CSVLogger deletes the rows of an earlier session; this one keeps those up to the step it resumes from.

    Args:
        folder: of the run.
        resume_step: rows after this step are dropped.
    """

    def __init__(self, folder: RunFolder, resume_step: int) -> None:
        super().__init__()
        self.table = Table(folder.files, folder.metrics_csv.name, resume_step)

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: hyperparameters are in run.json."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        splits: dict[str, Row] = {}
        for key, value in metrics.items():
            split, _, column = key.partition("/")
            if column:
                row = splits.setdefault(split, {"step": str(step), "split": split})
                row[column] = f"{value:.6g}"
        self.table.add(*splits.values())
