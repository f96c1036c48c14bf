"""Loggers beside metrics.csv that need more than a configuration of Lightning's own."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

TAG = "nextfail.id"
SQLITE = "sqlite:///"


class MLflow(MLFlowLogger):
    """Lightning's MLFlowLogger, which continues its run when nextfail's is resumed: MLflow gives out ids of its own, so
    that the run is found again by a tag.

    Args:
        id: of nextfail's run.
        experiment_name: of MLflow's experiment.
        run_name: of MLflow's run.
        tracking_uri: of the store or server.
        more: as MLFlowLogger takes it.
    """

    def __init__(self, id: str, experiment_name: str, run_name: str, tracking_uri: str, **more: Any) -> None:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # it is read on import
        with _one_at_a_time(tracking_uri):  # runs of a sweep would make the same tables
            super().__init__(experiment_name, run_name, tracking_uri, tags={TAG: id}, **more)
            client = self._mlflow_client
            experiment = client.get_experiment_by_name(experiment_name)
            number = experiment.experiment_id if experiment else client.create_experiment(experiment_name)
            found = client.search_runs([number], filter_string=f"tags.`{TAG}` = '{id}'")
        self._run_id = found[0].info.run_id if found else None


@contextmanager
def _one_at_a_time(tracking_uri: str) -> Iterator[None]:
    """Hold the folder of a database for a moment; a server looks after itself."""
    if not tracking_uri.startswith(SQLITE):
        yield
        return
    folder = os.open(Path(tracking_uri.removeprefix(SQLITE)).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
