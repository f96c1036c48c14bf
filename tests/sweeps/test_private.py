"""Parts of other libraries that are not public still do what is asked of them, and are used in one file alone."""

import re
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

import nextfail
from nextfail.sweeps import private

PRIVATE = re.compile(r"hydra\._internal|\bSingleton\b|\b_return_value\b|\b_get_node\b|\b_is_none\b|\._requeue\b")


def test_they_are_used_in_one_file() -> None:
    root = Path(nextfail.__file__).parent
    files = [*root.rglob("*.py"), *(root.parent / "hydra_plugins").rglob("*.py")]
    assert sorted(path.name for path in files if PRIVATE.search(path.read_text())) == ["private.py", "sweepers.py"]


def test_state_goes_there_and_back() -> None:
    before = private.state()
    private.restore(before)
    assert private.state().keys() == before.keys()


def test_values_and_errors_of_jobs() -> None:
    done = private.completed(["seed=1"], 0.5)
    assert done.return_value == 0.5 and done.overrides == ["seed=1"] and private.error_of(done) is None
    failed = JobReturn(status=JobStatus.FAILED, _return_value=KeyError("x"))
    assert isinstance(private.error_of(failed), KeyError)
    with pytest.raises(KeyError):
        _ = failed.return_value


def test_nodes_are_not_resolved() -> None:
    config: Any = OmegaConf.create({"a": "${nowhere}", "b": None, "c": {"d": 1}})
    assert [private.is_section(private.node_at(config, key)) for key in "abc"] == [False, False, True]


def test_basic_sweeper_splits_axes() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(["a=1,2", "b=3"])
    assert BasicSweeper.split_arguments(overrides, None) == [[["a=1", "b=3"], ["a=2", "b=3"]]]


def test_requeue_asks_submitit() -> None:
    class Environment:
        def _requeue(self, left: int) -> None:
            self.left = left

    environment = Environment()
    private.requeue(environment, 3)
    assert environment.left == 3
    submitit = pytest.importorskip("submitit", reason="submitit is not installed")
    assert callable(submitit.JobEnvironment._requeue)
