"""Optuna as a Hydra sweeper: it proposes runs, and a launcher runs them. Hydra imports this at every start."""

import json
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

RUN_WITH, ASKED = "overrides", "asked"
"""User attributes: the overrides of a trial, and the search space and fixed overrides of a study."""


class OptunaSweeper(Sweeper):
    """Maximizes exact match on the validation set over axes such as `optimizer.lr=tag(log,interval(1e-4,1e-2))`.

    The study is stored in a file and resumable: a command first runs the trials that were proposed and have no result
    yet, as the same runs in the same folders, and then proposes the rest of `n_trials`.

    Args:
        storage: path of the study's file, an Optuna journal.
        study_name: name of the study in the file.
        n_trials: total number of trials, including those of earlier commands.
        n_jobs: trials proposed at once. More of them keep a cluster busy, but learn less from each other.
        seed: seed of the sampler, Optuna's tree-structured Parzen estimator (TPE).
        params: axes by key, as on the command line, which overrides them.
    """

    def __init__(
        self, storage: str, study_name: str, n_trials: int, n_jobs: int, seed: int, params: DictConfig | None
    ) -> None:
        self.storage, self.study_name, self.params = Path(storage), study_name, dict(params or {})
        self.n_trials, self.n_jobs, self.seed = n_trials, n_jobs, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.parser = OverridesParser.create(config_loader=hydra_context.config_loader)

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are `n_trials`, and write the best one next to the study."""
        self._check()
        overrides = self.parser.parse_overrides(
            [*(f"{key!s}={value}" for key, value in self.params.items()), *arguments]
        )
        axes = {each.get_key_element(): each for each in overrides}
        fixed = [str(each.input_line) for each in axes.values() if not each.is_sweep_override()]
        space = {key: _distribution(each) for key, each in axes.items() if each.is_sweep_override()}
        self._require_axes(space)
        study = self._study(sorted(fixed), space)
        assert self.launcher is not None
        tried: set[int] = set()
        without: list[str] = []
        while batch := self._next(study, space, fixed, tried):
            done = self.launcher.launch(
                [_overrides(trial, fixed, space) for trial in batch], initial_job_idx=len(tried)
            )
            tried |= {trial.number for trial in batch}
            for trial, result in zip(batch, done, strict=True):
                if (value := float(result.return_value)) == value:  # without a value, a trial stays open
                    study.tell(trial.number, value, skip_if_finished=True)
                else:
                    without.append(" ".join(_overrides(trial, fixed, space)))
        self._report(study)
        self._require_values(without)

    def _check(self) -> None:
        """Reject invalid settings.

        Raises:
            UserError: a number is invalid, Optuna is not installed, or the launcher would not wait for trials.
        """
        from nextfail.config import OPTUNA
        from nextfail.errors import UserError

        for key, value in {"n_trials": self.n_trials, "n_jobs": self.n_jobs, "seed": self.seed}.items():
            if refusal := OPTUNA[key].type.refusal(f"hydra.sweeper.{key}", value):
                raise UserError(refusal)
        if getattr(self.launcher, "settings", {}).get("detach"):
            raise UserError("hydra.launcher.detach=true cannot be used with hydra/sweeper=optuna, which proposes runs "
                            "from the results of earlier ones")  # fmt: skip
        if find_spec("optuna") is None:
            raise UserError("hydra/sweeper=optuna needs optuna: pip install 'nextfail[search]'")

    def _study(self, fixed: list[str], space: dict[str, Any]) -> "optuna.Study":
        """Create or resume the study."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        from nextfail.errors import UserError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.storage.parent.mkdir(parents=True, exist_ok=True)
        _mend(self.storage)
        try:
            storage = JournalStorage(JournalFileBackend(str(self.storage)))
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self.storage} is not an Optuna journal: {error}") from error
        study = optuna.create_study(
            storage=storage, study_name=self.study_name, direction="maximize", load_if_exists=True
        )
        study.sampler = optuna.samplers.TPESampler(seed=self.seed + len(study.trials))
        asked = {"fixed": fixed, "space": {key: repr(value) for key, value in space.items()}}
        before = study.user_attrs.setdefault(ASKED, asked)
        if before != asked:
            raise UserError(f"the study {self.study_name} in {self.storage} started with {before}, not with {asked}: "
                            "their trials cannot be compared. Choose another hydra.sweeper.study_name")  # fmt: skip
        study.set_user_attr(ASKED, asked)
        return study

    def _next(
        self, study: "optuna.Study", space: dict[str, Any], fixed: list[str], tried: set[int]
    ) -> "list[FrozenTrial]":
        """Open trials that this command has not tried yet; else new ones, as many as are left and fit into a batch."""
        # ignore trials whose overrides were not yet recorded when the process was killed
        trials = [trial for trial in study.get_trials(deepcopy=False) if RUN_WITH in trial.user_attrs]
        if unfinished := [trial for trial in trials if not trial.state.is_finished() and trial.number not in tried]:
            return unfinished[: self.n_jobs]
        new = [study.ask(space) for _ in range(min(self.n_jobs, self.n_trials - len(trials)))]
        for trial in new:
            trial.set_user_attr(RUN_WITH, [*fixed, *(f"{key}={value}" for key, value in trial.params.items())])
        numbers = {trial.number for trial in new}
        return [trial for trial in study.get_trials(deepcopy=False) if trial.number in numbers]

    def _require_axes(self, space: dict[str, Any]) -> None:
        """Reject an empty search space, with which all trials would be the same.

        Raises:
            UserError: there is no axis to search over.
        """
        from nextfail.errors import UserError

        if not space:
            raise UserError("hydra/sweeper=optuna has no axis to search over: give one, as in "
                            "optimizer.lr=tag(log,interval(1e-4,1e-2))")  # fmt: skip

    def _require_values(self, without: list[str]) -> None:
        """Check that every trial whose run is done has a value to optimize.

        Raises:
            UserError: names such a trial; runs that are not done are reported elsewhere.
        """
        from nextfail.errors import UserError
        from nextfail.sweeps import sweep

        if without and sweep.report()[2]:
            raise UserError(f"{len(without)} trials have no exact match in the validation rows of their metrics.csv "
                            f"and stay open, such as {without[0]}")  # fmt: skip

    def _report(self, study: "optuna.Study") -> None:
        from optuna.trial import TrialState

        from nextfail.files import Inside
        from nextfail.terminal import say

        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            return
        best = study.best_trial
        path = self.storage.with_name("best.json")
        record = {
            "exact_match": best.value,
            "overrides": best.user_attrs[RUN_WITH],
            "trial": best.number,
            "of": len(complete),
        }
        Inside(path.parent).write_json(path.name, record)
        say(f"best of {len(complete)} trials: exact match {best.value:.3f} with {json.dumps(best.params)} ({path})")


def _overrides(trial: "FrozenTrial", fixed: list[str], space: dict[str, Any]) -> list[str]:
    """Overrides of a trial: values from the journal, which may be untrusted; keys and the rest from the command.

    Raises:
        UserError: its axes differ from those of the command.
    """
    from nextfail.errors import UserError

    if trial.distributions != space:
        raise UserError(f"trial {trial.number} of the study has different axes from this command")
    return [*fixed, *(f"{key}={value}" for key, value in trial.params.items())]


def _distribution(override: Override) -> "optuna.distributions.BaseDistribution":
    """The Optuna distribution for a sweep override in Hydra's grammar."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from nextfail.errors import UserError

    value = override.value()
    if not isinstance(value, IntervalSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    low, high, log = value.start, value.end, "log" in value.tags
    assert low is not None and high is not None
    try:
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}") from error


def _mend(journal: Path) -> None:
    """Truncate an incomplete last line of a study's file, left by a full disk, to which the next entry would append."""
    if not journal.exists() or time.time() - journal.stat().st_mtime < 10:
        return  # new, or being written
    content = journal.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)
