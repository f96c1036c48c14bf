from pathlib import Path

import pytest
from commands import train


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("run") / "task=g2_4,seed=0"
    train(f"hydra.run.dir='{folder}'", "task=g2_4", cwd=folder.parent)
    return folder
