"""Loggers besides metrics.csv that need more than a configuration of Lightning's own."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from nextfail.errors import UserError

TAG = "nextfail.id"
SQLITE = "sqlite:///"


class MLflow(MLFlowLogger):
    """Lightning's MLFlowLogger, continuing its MLflow run when the nextfail run is resumed.

    MLflow assigns its own ids, so the run is found again by a tag.

    Args:
        id: of the nextfail run.
        experiment_name: of the MLflow experiment.
        run_name: of the MLflow run.
        tracking_uri: of the store or server.
        more: as for MLFlowLogger.
    """

    def __init__(self, id: str, experiment_name: str, run_name: str, tracking_uri: str, **more: Any) -> None:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # it is read on import
        try:
            from mlflow.exceptions import MlflowException
        except ModuleNotFoundError as error:
            raise UserError("logger=mlflow needs mlflow: pip install 'nextfail[mlflow]'") from error
        try:
            with _one_at_a_time(tracking_uri):  # parallel runs would create the same tables
                super().__init__(experiment_name, run_name, tracking_uri, tags={TAG: id}, **more)
                client = self._mlflow_client
                experiment = client.get_experiment_by_name(experiment_name)
                number = experiment.experiment_id if experiment else client.create_experiment(experiment_name)
                found = client.search_runs([number], filter_string=f"tags.`{TAG}` = '{id}'")
        except (MlflowException, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"logger.mlflow.tracking_uri={tracking_uri} cannot be used: {reason}") from error
        self._run_id = found[0].info.run_id if found else None


@contextmanager
def _one_at_a_time(tracking_uri: str) -> Iterator[None]:
    """Lock the folder of an SQLite database; a server handles concurrency itself."""
    if not tracking_uri.startswith(SQLITE):
        yield
        return
    folder = os.open(Path(tracking_uri.removeprefix(SQLITE)).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
