"""Data sets for training: drawn ones (fixed or endless) and text files, disjoint by canonical graph.

Batch k of a run is a pure function of the data settings, the run's seed and k, which is what makes resuming exact.
"""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from nextfail.errors import UserError
from nextfail.seeding import generator
from nextfail.source import public
from nextfail.tasks.path_star import textfile
from nextfail.tasks.path_star.graph import Batch, PathStar
from nextfail.tasks.path_star.layout import PUBLISHED, Layout


class PathStarData(L.LightningDataModule, ABC):
    """Train batches for ever, and fixed validation and test sets.

    Args:
        graph: the size of every problem.
        batch_size: problems in a training batch.
        eval_batch_size: problems evaluated at a time.
        run_seed: the run's seed, which orders or draws the training batches.
    """

    def __init__(self, graph: PathStar, batch_size: int, eval_batch_size: int, run_seed: int) -> None:
        super().__init__()
        require_positive(batch_size=batch_size, eval_batch_size=eval_batch_size)
        tokens = graph.prompt_length + graph.path_length
        logits = graph.path_length * graph.vocab.size
        require_memory(8 * tokens + 4 * logits, batch_size=batch_size, eval_batch_size=eval_batch_size)
        self.graph, self.batch_size, self.eval_batch_size, self.run_seed = graph, batch_size, eval_batch_size, run_seed
        self.layout = PUBLISHED
        self.validation: Batch | None = None
        self.test: Batch | None = None

    def setup(self, stage: str | None = None) -> None:
        if self.test is None:
            self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Draw or read the sets: set `validation` and `test`, and what `train_batch` needs."""

    @abstractmethod
    def train_batch(self, k: int) -> Batch:
        """Training batch k, from 0 on."""

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        first = trainer.global_step if trainer else 0  # a resumed run goes on where it was cut
        return _loader(_Stream(self.train_batch, first))

    def val_dataloader(self) -> DataLoader[Batch]:
        return fixed_loader(self.validation, self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return fixed_loader(self.test, self.eval_batch_size)


@public("drawn")
class DrawnData(PathStarData):
    """Sets drawn from `seed`: the same for every run with the same graph, whatever the run's own seed.

    Args:
        train: problems in the training set, or None for an endless fresh stream.
        validation: problems in the validation set.
        test: problems in the test set.
        seed: what the sets are drawn from.
        query, edges, direction: how problems are written down; see `Layout`.
        edges_as: an edge is three tokens, as published ("triples"), or one ("tokens"); see `path_star.vocab`.
        goals: different goals of one graph, everything else the same, that stand together in training; from 1, which
            is independent problems, to the degree. Validation and test problems are always independent.

    Raises:
        UserError: too few distinct graphs exist for disjoint sets, or `goals` does not divide what it should.
    """

    def __init__(
        self,
        graph: PathStar,
        run_seed: int,
        train: int | None = 200_000,
        validation: int = 1000,
        test: int = 2000,
        seed: int = 0,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        query: str = "after",
        edges: str = "shuffled",
        direction: str = "away",
        goals: int = 1,
        edges_as: str = "triples",
    ) -> None:
        super().__init__(graph.written(edges_as), batch_size, eval_batch_size, run_seed)
        given = {} if train is None else {"train": train}
        require_positive(validation=validation, test=test, goals=goals, **given)
        self.layout = Layout(query, edges, direction)
        self.sizes, self.seed, self.goals = (train, validation, test), seed, goals
        require_memory(graph.prompt_length + graph.path_length, validation=validation, test=test, **given)
        if goals > graph.degree:
            raise UserError(f"data.goals={goals} is too large: {graph} has {graph.degree} different goals")
        for key, value in {"batch_size": batch_size, **given}.items():
            if value % goals:
                raise UserError(f"data.{key}={value} is not a multiple of data.goals={goals}")
        # twice as many keeps training graphs at least as various as what is held out, and redrawing them quick
        if graph.distinct < 2 * (validation + test):
            raise UserError(
                f"graph.num_nodes={graph.num_nodes} is too small for data.validation={validation}, data.test={test}: "
                f"only {graph.distinct:,} distinct {graph} graphs exist, and disjoint sets "
                f"need at least {2 * (validation + test):,}; use more nodes or smaller sets"
            )

    def prepare(self) -> None:
        train, validation, test = self.sizes
        nothing = torch.empty(0, dtype=torch.int64)
        self.test = self._draw(test, nothing, generator("test", self.seed))
        taken = self.graph.keys(self.test.prompts).unique()
        self.validation = self._draw(validation, taken, generator("validation", self.seed))
        self._held_out = torch.cat([taken, self.graph.keys(self.validation.prompts)]).unique()
        self.train: Batch | None = None
        if train is not None:
            self.train = self._draw(train, self._held_out, generator("train", self.seed), self.goals)

    def train_batch(self, k: int) -> Batch:
        if self.train is not None:
            return shuffled_batch(self.train, k, self.batch_size, self.run_seed, self.goals)
        source = generator("online", self.seed, self.run_seed, k)
        return self._draw(self.batch_size, self._held_out, source, self.goals).long()

    def _draw(self, count: int, taken: Tensor, source: torch.Generator, goals: int = 1) -> Batch:
        return draw_outside(self.graph, count, taken, source, self.layout, goals)


@public("files")
class FileData(PathStarData):
    """Sets read from files in the published text format.

    Args:
        train_file: training problems.
        test_file: test problems.
        validation_file: validation problems, or None to hold out the last `validation` lines of the training file.
        validation: how many lines to hold out.
        overlap: what to do with training problems whose graph is also in another set: "error", or "drop" them.
        edges_as: as of `DrawnData`; the files are the same.

    Raises:
        UserError: a file cannot be used, or sets share graphs.
    """

    def __init__(
        self,
        graph: PathStar,
        run_seed: int,
        train_file: str,
        test_file: str,
        validation_file: str | None = None,
        validation: int = 1000,
        overlap: str = "error",
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        edges_as: str = "triples",
    ) -> None:
        super().__init__(graph.written(edges_as), batch_size, eval_batch_size, run_seed)
        require_positive(validation=validation)
        for key, name in (("train_file", train_file), ("test_file", test_file)):
            if name is None:
                raise UserError(f"data.{key} has no value: give a file in the published text format")
        if overlap not in ("error", "drop"):
            raise UserError(f"data.overlap={overlap!r} is unknown: choose error or drop")
        self.files = {"train_file": train_file, "test_file": test_file, "validation_file": validation_file}
        self.held_lines, self.overlap = validation, overlap

    def prepare(self) -> None:
        read = {key: textfile.load(Path(name), self.graph) for key, name in self.files.items() if name}
        train, test, validation = read["train_file"], read["test_file"], read.get("validation_file")
        if validation is None:
            cut = len(train.paths) - self.held_lines
            if cut < 1:
                lines = len(train.paths)
                raise UserError(
                    f"data.validation={self.held_lines} leaves nothing to train on: train_file has {lines} lines"
                )
            train, validation = train.rows(slice(cut)), train.rows(slice(cut, None))
        test_keys, validation_keys = self.graph.keys(test.prompts), self.graph.keys(validation.prompts)
        if shared := int(torch.isin(validation_keys, test_keys).sum()):
            raise UserError(f"{shared} validation graphs are also in the test set: give disjoint files")
        clash = torch.isin(self.graph.keys(train.prompts), torch.cat([test_keys, validation_keys]))
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


def draw_outside(
    graph: PathStar, count: int, taken: Tensor, source: torch.Generator, layout: Layout = PUBLISHED, goals: int = 1
) -> Batch:
    """`count` problems whose canonical keys are not among `taken` (sorted, unique): those that are, are redrawn.

    Args:
        layout, goals: see `PathStar.sample`. Problems that share a graph share its key, and are redrawn together.
    """
    problems = graph.sample(count, source, layout, goals)
    if not len(taken):
        return problems
    rows = torch.arange(count)
    while len(rows := rows[_among(graph.keys(problems.prompts[rows]), taken)]):
        again = graph.sample(len(rows), source, layout, goals)
        problems.prompts[rows], problems.paths[rows] = again.prompts, again.paths
    return problems


def _among(keys: Tensor, taken: Tensor) -> Tensor:
    place = torch.searchsorted(taken, keys).clamp_(max=len(taken) - 1)
    return taken[place] == keys


def shuffled_batch(problems: Batch, k: int, size: int, seed: int, together: int = 1) -> Batch:
    """Batch k of an endless sequence of epochs, each a permutation of its own; a batch may span two epochs.

    Args:
        together: so many problems in a row stay together, in their order; divides `size` and the number of problems.
    """
    count, chosen = len(problems.paths) // together, []
    first, end = k * size // together, (k + 1) * size // together
    while first < end:
        epoch, offset = divmod(first, count)
        chosen.append(_permutation(count, seed, epoch)[offset : offset + end - first])
        first += len(chosen[-1])
    rows = torch.cat(chosen).unsqueeze(1) * together + torch.arange(together)
    return problems.rows(rows.flatten()).long()


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator("order", seed, epoch))


def require_positive(**values: int) -> None:
    """Refuse a data setting that is not a whole number of at least 1."""
    for key, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"data.{key}={value!r} is not a whole number of at least 1")


def require_memory(each: int, **counts: int) -> None:
    """Refuse so many problems that not even their tokens, or their logits, would fit into this machine.

    Args:
        each: bytes that a problem takes at the least.
        counts: problems, by data setting.

    Raises:
        UserError: names the setting, and how much it would take.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return  # not known on this system
    for key, count in counts.items():
        if count * each > memory:
            taken, there = (f"{size / 2**30:,.0f} GiB" for size in (count * each, memory))
            raise UserError(
                f"data.{key}={count} is too large: it takes {taken} at the least, and this machine has {there}"
            )


class _Stream(IterableDataset[Batch]):
    """Batches first, first + 1, ... without end."""

    def __init__(self, batch: Callable[[int], Batch], first: int) -> None:
        self.batch, self.first = batch, first

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, itertools.count(self.first))


def fixed_loader(problems: Batch | None, size: int) -> DataLoader[Batch]:
    """The problems in order, `size` at a time."""
    assert problems is not None, "setup() comes first"
    return _loader([problems.rows(slice(i, i + size)).long() for i in range(0, len(problems.paths), size)])


def _loader(batches: IterableDataset[Batch] | list[Batch]) -> DataLoader[Batch]:
    return DataLoader(batches, batch_size=None, pin_memory=torch.cuda.is_available())  # type: ignore[arg-type]
