"""Datasets for any task: generated (fixed or endless) or read from text files, disjoint by the task's canonical keys.

Batch k of a run is a pure function of the data settings, the run's seed and k, so resuming is exact.
"""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from nextfail.config import AtLeast0, AtLeast1
from nextfail.errors import UserError
from nextfail.seeding import generator
from nextfail.source import public
from nextfail.tasks.base import Batch, Task


class TaskData(L.LightningDataModule, ABC):
    """Endless training batches, and fixed validation and test sets.

    Args:
        task: task of the problems.
        batch_size: problems per training batch.
        eval_batch_size: problems per evaluation batch.
        run_seed: the run's seed, which determines the order or sampling of training batches.
    """

    def __init__(self, task: Task, batch_size: int, eval_batch_size: int, run_seed: int) -> None:
        super().__init__()
        tokens = task.prompt_length + task.answer_length
        logits = task.answer_length * task.vocab.size
        require_memory(8 * tokens + 4 * logits, batch_size=batch_size, eval_batch_size=eval_batch_size)
        self.task, self.batch_size, self.eval_batch_size, self.run_seed = task, batch_size, eval_batch_size, run_seed
        self.validation: Batch | None = None
        self.test: Batch | None = None

    def setup(self, stage: str | None = None) -> None:
        if self.test is None:
            self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Sample or read the sets: set `validation` and `test`, and whatever `train_batch` needs."""

    @abstractmethod
    def train_batch(self, k: int) -> Batch:
        """Training batch k, counted from 0."""

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        # a run resumes at its last complete optimizer step
        first = trainer.global_step * trainer.accumulate_grad_batches if trainer else 0
        return _loader(_Stream(self.train_batch, first))

    def val_dataloader(self) -> DataLoader[Batch]:
        return fixed_loader(self.validation, self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return fixed_loader(self.test, self.eval_batch_size)


@public("drawn")
class DrawnData(TaskData):
    """Sets sampled from `seed`: the same for all runs of a task, independent of the run's own seed.

    Args:
        train: problems in the training set, or None to sample fresh ones at every step.
        validation: problems in the validation set.
        test: problems in the test set.
        seed: random seed of the sets.
        batch_size: problems per training batch.
        eval_batch_size: problems per evaluation batch.

    Raises:
        UserError: too few distinct problems exist for disjoint sets, a size is not a multiple of the task's group, or a
            set does not fit into memory.
    """

    def __init__(
        self,
        task: Task,
        run_seed: int,
        train: AtLeast1 | None = 200_000,
        validation: AtLeast1 = 1000,
        test: AtLeast1 = 2000,
        seed: AtLeast0 = 0,
        batch_size: AtLeast1 = 128,
        eval_batch_size: AtLeast1 = 1000,
    ) -> None:
        super().__init__(task, batch_size, eval_batch_size, run_seed)
        given = {} if train is None else {"train": train}
        self.sizes, self.seed = (train, validation, test), seed
        require_memory(task.prompt_length + task.answer_length, validation=validation, test=test, **given)
        for key, value in {"batch_size": batch_size, **given}.items():
            if value % task.group:
                raise UserError(f"data.{key}={value} is not a multiple of {task.group}, and {task} samples this many "
                                "problems together")  # fmt: skip
        # twice as many: training problems stay at least as diverse as held-out ones, and resampling stays fast
        if task.distinct < 2 * (validation + test):
            raise UserError(
                f"data.validation={validation} and data.test={test} are too many: only {task.distinct:,} distinct "
                f"problems of {task} exist, and disjoint sets need at least {2 * (validation + test):,}; choose "
                "smaller sets, or a task with more problems"
            )

    def prepare(self) -> None:
        train, validation, test = self.sizes
        nothing = torch.empty(0, dtype=torch.int64)
        self.test = self._draw(test, nothing, generator("test", self.seed))
        taken = self.task.keys(self.test).unique()
        self.validation = self._draw(validation, taken, generator("validation", self.seed))
        self._held_out = torch.cat([taken, self.task.keys(self.validation)]).unique()
        self.train: Batch | None = None
        if train is not None:
            self.train = self._draw(train, self._held_out, generator("train", self.seed), self.task.group)

    def train_batch(self, k: int) -> Batch:
        if self.train is not None:
            return shuffled_batch(self.train, k, self.batch_size, self.run_seed, self.task.group)
        source = generator("online", self.seed, self.run_seed, k)
        return self._draw(self.batch_size, self._held_out, source, self.task.group).long()

    def _draw(self, count: int, taken: Tensor, source: torch.Generator, group: int = 1) -> Batch:
        return draw_outside(self.task, count, taken, source, group)


@public("files")
class FileData(TaskData):
    """Sets read from files in the task's text format.

    Args:
        train_file: training problems.
        test_file: test problems.
        validation_file: validation problems, or None to hold out the last `validation` lines of the training file.
        validation: number of lines to hold out, without a `validation_file`.
        overlap: training problems that are also in another set: "error" raises, "drop" removes them.
        batch_size: problems per training batch.
        eval_batch_size: problems per evaluation batch.

    Raises:
        UserError: a file cannot be used, or sets share problems.
    """

    def __init__(
        self,
        task: Task,
        run_seed: int,
        train_file: str,
        test_file: str,
        validation_file: str | None = None,
        validation: AtLeast1 = 1000,
        overlap: Literal["error", "drop"] = "error",
        batch_size: AtLeast1 = 128,
        eval_batch_size: AtLeast1 = 1000,
    ) -> None:
        super().__init__(task, batch_size, eval_batch_size, run_seed)
        task.require_files()
        for key, name in (("train_file", train_file), ("test_file", test_file)):
            if name is None:
                raise UserError(f"data.{key} has no value: give a file in the task's text format")
        self.files = {"train_file": train_file, "test_file": test_file, "validation_file": validation_file}
        self.held_lines, self.overlap = validation, overlap

    def prepare(self) -> None:
        read = {key: self.task.read(Path(name)) for key, name in self.files.items() if name}
        train, test, validation = read["train_file"], read["test_file"], read.get("validation_file")
        if validation is None:
            cut = len(train.answers) - self.held_lines
            if cut < 1:
                lines = len(train.answers)
                raise UserError(
                    f"data.validation={self.held_lines} leaves nothing to train on: train_file has {lines} lines"
                )
            train, validation = train.rows(slice(cut)), train.rows(slice(cut, None))
        test_keys, validation_keys = self.task.keys(test), self.task.keys(validation)
        if shared := int(torch.isin(validation_keys, test_keys).sum()):
            raise UserError(f"{shared} validation graphs are also in the test set: give disjoint files")
        clash = torch.isin(self.task.keys(train), torch.cat([test_keys, validation_keys]))
        if clash.all():
            raise UserError("every training graph is also in the validation or test set: give disjoint files")
        if self.overlap == "error" and clash.any():
            raise UserError(
                f"{int(clash.sum())} of {len(clash)} training graphs are also in the validation or test set: "
                "give disjoint files, or leave those out of training with data.overlap=drop"
            )
        self.train, self.validation, self.test = train.rows(~clash), validation, test

    def train_batch(self, k: int) -> Batch:
        return shuffled_batch(self.train, k, self.batch_size, self.run_seed)


def draw_outside(task: Task, count: int, taken: Tensor, source: torch.Generator, group: int = 1) -> Batch:
    """Sample `count` problems whose canonical keys are not in `taken` (sorted, unique), resampling those that are.

    Args:
        group: see `Task.sample`. Problems of a group share a key and are resampled together.
    """
    problems = task.sample(count, source, group)
    if not len(taken):
        return problems
    rows = torch.arange(count)
    while len(rows := rows[_among(task.keys(problems.rows(rows)), taken)]):
        again = task.sample(len(rows), source, group)
        for old, new in zip(problems, again, strict=True):
            old[rows] = new
    return problems


def _among(keys: Tensor, taken: Tensor) -> Tensor:
    place = torch.searchsorted(taken, keys).clamp_(max=len(taken) - 1)
    return taken[place] == keys


def shuffled_batch(problems: Batch, k: int, size: int, seed: int, group: int = 1) -> Batch:
    """Batch k of an endless sequence of epochs, each with its own permutation; a batch may span two epochs.

    Args:
        group: number of consecutive problems that stay together, in order; divides `size` and the number of problems.
    """
    count, chosen = len(problems.answers) // group, []
    first, end = k * size // group, (k + 1) * size // group
    while first < end:
        epoch, offset = divmod(first, count)
        chosen.append(_permutation(count, seed, epoch)[offset : offset + end - first])
        first += len(chosen[-1])
    rows = torch.cat(chosen).unsqueeze(1) * group + torch.arange(group)
    return problems.rows(rows.flatten()).long()


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator("order", seed, epoch))


def require_memory(each: int, **counts: int) -> None:
    """Refuse problem counts whose tokens, or logits, would not fit into the machine's memory.

    Args:
        each: minimum bytes per problem.
        counts: number of problems, by data setting.

    Raises:
        UserError: names the setting and the memory it needs.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return  # unknown on this system
    for key, count in counts.items():
        if count * each > memory:
            taken, there = (f"{size / 2**30:,.0f} GiB" for size in (count * each, memory))
            raise UserError(f"data.{key}={count} is too large: it takes at least {taken}, and this machine has {there}")


class _Stream(IterableDataset[Batch]):
    """Batches first, first + 1, ..., endlessly."""

    def __init__(self, batch: Callable[[int], Batch], first: int) -> None:
        self.batch, self.first = batch, first

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, itertools.count(self.first))


def fixed_loader(problems: Batch | None, size: int) -> DataLoader[Batch]:
    """The problems in order, `size` at a time."""
    assert problems is not None, "setup() comes first"
    return _loader([problems.rows(slice(i, i + size)).long() for i in range(0, len(problems.answers), size)])


def _loader(batches: IterableDataset[Batch] | list[Batch]) -> DataLoader[Batch]:
    return DataLoader(batches, batch_size=None, pin_memory=torch.cuda.is_available())  # type: ignore[arg-type]
