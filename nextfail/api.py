"""The Python API: train, load and evaluate runs, and collect their results."""

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextfail.errors import UserError
from nextfail.paths import FOLDERS
from nextfail.reports.collect import collect as read_all
from nextfail.reports.report import records
from nextfail.runs.folder import RunFolder
from nextfail.runs.table import number, read_rows
from nextfail.tasks.facts import facts
from nextfail.terminal import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from nextfail.tasks.base import Batch, Task
    from nextfail.tasks.data import TaskData
    from nextfail.training.inspect import Inspection
    from nextfail.training.module import TaskModule

WORDS = 12  # lines of a failed command's output to include in its error


@dataclass(frozen=True)
class Run:
    """A run folder. Properties that need torch are created on first access.

    Args:
        folder: folder of the run.
        trust: whether to import classes that the folder names and that are not nextfail's own. This runs their code.
    """

    folder: Path
    trust: bool = False

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of run.json: task, data, model, objective and everything else that determines the result."""
        return RunFolder(self.folder).run()

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of result.json; None if the run is not done."""
        return RunFolder(self.folder).result()

    def metrics(self, split: str = "validation") -> dict[str, list[float]]:
        """Columns of metrics.csv, such as `step` and `exact_match`, with NaN for empty cells.

        Args:
            split: train (means since the last validation), validation, test; train_set and sampled if they were
                measured.
        """
        rows = [row for row in read_rows(RunFolder(self.folder).metrics_csv) if row.get("split") == split]
        columns = dict.fromkeys(key for row in rows for key in row if key != "split")
        return {key: [number(row, key) for row in rows] for key in columns}

    @cached_property
    def task(self) -> "Task":
        """The task, which samples problems and scores answers."""
        from nextfail.training.load import remake_task

        return remake_task(RunFolder(self.folder), self.trust)

    @cached_property
    def module(self) -> "TaskModule":
        """The LightningModule with the weights of the last checkpoint, in evaluation mode."""
        from nextfail.training.load import load

        module, _, _ = load(RunFolder(self.folder), trust=self.trust)
        module.adapt("cpu")
        return module.eval()

    @cached_property
    def data(self) -> "TaskData":
        """The LightningDataModule, set up: `validation` and `test` are the problems that the run was evaluated on."""
        from nextfail.training.load import remake_data

        data = remake_data(RunFolder(self.folder), self.task, self.trust)
        data.setup()
        return data

    def answer(self, problems: "Batch") -> "Tensor":
        """Decoded answers (B, L) to problems, first token first."""
        batch = problems.long()
        return self.module.objective.generate(self.module.backbone, batch.prompts, batch.answers.shape[1])

    def draw(self, problems: "Batch") -> "Figure":
        """Draw problems with the model's answers, as the task visualizes them.

        Raises:
            UserError: the task has no such figure, or there is nothing to draw.
        """
        identity, answers = RunFolder(self.folder).identity(), self.answer(problems)
        known = facts(str(identity.classes["task"]["name"]), identity.settings["task"], self.result)
        if known.draw is None:
            raise UserError(f"{known.title} has no figure of its answers")
        examples = known.examples(self.task.example(problems, answers))
        if not examples:
            raise UserError(f"there is nothing to draw for {len(answers)} problems of {known.title}")
        figure: Figure = known.draw(examples, self.config["choices"]["objective"])
        return figure

    def inspect(self, problems: "Batch") -> "Inspection":
        """Hidden states and attention weights while the model reads problems and its own answers to them."""
        from nextfail.training.inspect import inspect

        return inspect(self.module, problems.long().prompts, self.answer(problems))


def train(*overrides: str, folder: str | Path = ".") -> Run | list[Run]:
    """Run `nextfail-train OVERRIDES` in a subprocess, and pass on its output.

    Args:
        overrides: as on the command line; a leading `-m`, or an experiment with several values, makes a sweep.
        folder: the folder that contains runs/.

    Returns:
        The run, or the runs of a sweep. Finished runs are found and not trained again.

    Raises:
        UserError: the command failed, or not all runs are done; the message is the end of its output.
    """
    with tempfile.TemporaryDirectory() as scratch:
        names = Path(scratch, "folders.json")
        process = subprocess.Popen([sys.executable, "-m", "nextfail.cli.train", *overrides], cwd=folder, text=True,
                                   env=os.environ | {FOLDERS: str(names)}, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)  # fmt: skip
        assert process.stdout is not None
        said: deque[str] = deque(maxlen=WORDS)
        try:
            for text in process.stdout:
                said.append(text.rstrip())
                say(said[-1])
        except BaseException:  # such as an interrupted notebook cell: runs save, and the same call resumes them
            process.terminate()
            raise
        finally:
            process.wait()
        if process.returncode:
            raise UserError("\n".join(said))
        told = json.loads(names.read_text(encoding="utf-8"))
    runs = [Run(Path(name)) for name in told["folders"]]
    return runs if told["sweep"] else runs[0]


def load(folder: str | Path, trust: bool = False) -> Run:
    """Load a run from its folder.

    Args:
        trust: see `Run`.

    Raises:
        UserError: it is not a run folder, or run.json is malformed.
    """
    RunFolder(Path(folder)).identity()
    return Run(Path(folder), trust)


def evaluate(
    run: Run,
    task: Mapping[str, Any] | None = None,
    file: str | Path | None = None,
    checkpoint: str = "last",
    samples: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate a run on its test set or on other problems; returns what `nextfail-eval --json` prints.

    Args:
        task: task settings to override, by name.
        file: problems in the task's text format, instead of sampled ones.
        checkpoint: last, best, or a path.
        samples: answers to sample per problem, beside greedy decoding.
        temperature, seed: of the samples.

    Raises:
        UserError: the run, task, file or checkpoint cannot be used.
    """
    from nextfail.training.evaluate import evaluate as measure

    sizes = None if task is None else dict(task)
    where = None if file is None else Path(file)
    return measure(
        RunFolder(run.folder),
        checkpoint=checkpoint,
        sizes=sizes,
        file=where,
        trust=run.trust,
        samples=samples,
        temperature=temperature,
        seed=seed,
    )


def collect(*folders: str | Path) -> list[dict[str, Any]]:
    """One row per run at or below the given folders, done or not, as in results.csv; suits `pandas.DataFrame`.

    Raises:
        UserError: a folder does not exist, or none of them contains a run.
    """
    return records(read_all([Path(folder) for folder in folders]))
