from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import LINE, SMALL, drawn, identity, rows, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from nextfail.errors import UserError
from nextfail.seeding import generator
from nextfail.tasks import Batch, PathStar
from nextfail.tasks.data import DrawnData, FileData, TaskData, draw_outside, shuffled_batch

FEW = PathStar(2, 3, 6)  # 360 graphs: what is held out would be met again and again


def made(graph: PathStar = SMALL, **settings: Any) -> DrawnData:
    defaults = {"train": 40, "validation": 10, "test": 20, "seed": 0, "batch_size": 16, "eval_batch_size": 8}
    data = DrawnData(graph, **{**defaults, "run_seed": 0, **settings})
    data.setup()
    return data


def identities(batch: Batch | None) -> set[Any]:
    assert batch is not None
    return {identity(prompt) for prompt in batch.prompts.tolist()}


def streamed(data: TaskData, count: int) -> list[Batch]:
    return list(islice(data.train_dataloader(), count))


# drawn sets


@pytest.mark.parametrize("train", [400, None])
def test_drawn_sets_share_no_graph(train: int | None) -> None:
    data = made(FEW, train=train, validation=60, test=100)
    training = set.union(*(identities(batch) for batch in streamed(data, 40)))
    validation, test = identities(data.validation), identities(data.test)
    assert not training & validation
    assert not training & test
    assert not validation & test
    assert len(training) > 100  # the rest of the graphs are met


@given(seeds, st.integers(0, 360))
@settings(max_examples=20)
def test_redrawing_avoids_exactly_what_is_taken(seed: int, number: int) -> None:
    keys = FEW.keys(drawn(FEW, 5_000, 1)).unique()
    taken = keys[torch.randperm(len(keys), generator=generator("tests", seed))][: min(number, 300)].sort().values
    batch = draw_outside(FEW, 50, taken, generator("tests", seed))
    assert len(batch.answers) == 50
    assert not torch.isin(FEW.keys(batch), taken).any()
    _, start, goal = FEW.vocab.split(batch.prompts)  # paths were redrawn with their prompts
    assert torch.equal(batch.answers[:, 0], start)
    assert torch.equal(batch.answers[:, -1], goal)


def test_sets_have_the_sizes_asked_for() -> None:
    data = made()
    assert data.train is not None
    assert data.validation is not None
    assert data.test is not None
    assert [len(part.answers) for part in (data.train, data.validation, data.test)] == [40, 10, 20]
    assert data.train.prompts.dtype == torch.uint8


def test_sets_depend_on_the_data_seed_alone() -> None:
    one, same, other = made(run_seed=0), made(run_seed=5, batch_size=3), made(seed=1)
    for part in ("train", "validation", "test"):
        assert rows(getattr(one, part)) == rows(getattr(same, part))
        assert rows(getattr(one, part)) != rows(getattr(other, part))


def test_held_out_sets_do_not_depend_on_the_training_set() -> None:
    one, endless = made(train=40), made(train=None)
    assert rows(one.test) == rows(endless.test)
    assert rows(one.validation) == rows(endless.validation)


def test_too_few_graphs_are_counted() -> None:
    message = r"data\.validation=81 and data\.test=100 are too many: only 360 distinct problems of G\(2,3\)"
    with pytest.raises(UserError, match=message + r".*need at least 362"):
        made(FEW, validation=81, test=100)
    made(FEW, validation=80, test=100)


@pytest.mark.parametrize("key", ["train", "validation", "test", "batch_size", "eval_batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_sizes_below_one_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"data\.{key}={value} is not a whole number of at least 1"):
        made(**{key: value})


# training batches


@pytest.mark.parametrize("train", [40, None])
def test_batch_is_a_function_of_settings_seed_and_number(train: int | None) -> None:
    data, again = made(train=train), made(train=train)
    torch.manual_seed(3)
    backwards = [again.train_batch(k) for k in (7, 3, 0)][::-1]
    assert [rows(batch) for batch in backwards] == [rows(data.train_batch(k)) for k in (0, 3, 7)]
    assert rows(data.train_batch(0)) != rows(data.train_batch(1))
    assert rows(data.train_batch(0)) != rows(made(train=train, run_seed=1).train_batch(0))
    assert rows(data.train_batch(0)) != rows(made(train=train, seed=1).train_batch(0))
    assert data.train_batch(0).prompts.dtype == torch.int64


@pytest.mark.parametrize("train", [40, None])
def test_stream_begun_at_k_goes_on_like_one_begun_at_zero(train: int | None) -> None:
    whole = [rows(batch) for batch in streamed(made(train=train), 9)]
    resumed = made(train=train)
    resumed.trainer = SimpleNamespace(global_step=5, accumulate_grad_batches=1)  # type: ignore[assignment]
    assert [rows(batch) for batch in streamed(resumed, 4)] == whole[5:]
    assert len({tuple(batch) for batch in whole}) == 9


@given(st.integers(1, 12), st.integers(1, 30), seeds)
def test_every_epoch_is_a_permutation_and_batches_span_epochs(count: int, size: int, seed: int) -> None:
    problems = drawn(PathStar(2, 5, 50), count)
    number = -(-3 * count // size)  # batches that hold three epochs
    order = [row for k in range(number) for row in rows(shuffled_batch(problems, k, size, seed))]
    assert len(order) == number * size  # no batch is short
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == sorted(rows(problems))


def test_epochs_are_shuffled_differently() -> None:
    problems = drawn(PathStar(2, 5, 50), 30)
    first, second = (rows(shuffled_batch(problems, k, 30, 0)) for k in (0, 1))
    assert rows(problems) != first != second


def test_evaluation_sets_come_whole_and_in_order() -> None:
    data = made()
    for loader, problems in ((data.val_dataloader(), data.validation), (data.test_dataloader(), data.test)):
        batches = list(loader)
        assert [row for batch in batches for row in rows(batch)] == rows(problems)
        assert max(len(batch.answers) for batch in batches) == 8
        assert batches[0].prompts.dtype == torch.int64


# files


def test_sets_of_files_are_theirs(files: "Files") -> None:
    data = files.data(validation_file=files.write("validation", 5, 3))
    assert rows(data.train) == rows(SMALL.sample(30, generator("file", 1)))
    assert rows(data.validation) == rows(SMALL.sample(5, generator("file", 3)))
    assert rows(data.test) == rows(SMALL.sample(10, generator("file", 2)))
    assert sorted(rows(data.train_batch(0)) + rows(data.train_batch(1))) == sorted(rows(data.train))


def test_last_training_lines_are_held_out(files: "Files") -> None:
    data = files.data(validation=4)
    lines = rows(SMALL.sample(30, generator("file", 1)))
    assert (rows(data.train), rows(data.validation)) == (lines[:26], lines[26:])


@pytest.mark.parametrize("held", [30, 31])
def test_holding_out_all_is_refused(files: "Files", held: int) -> None:
    with pytest.raises(UserError, match=rf"data\.validation={held} leaves nothing to train on: .* has 30 lines"):
        files.data(validation=held)
    assert len(files.data(validation=29).train.answers) == 1


def test_unknown_overlap_is_refused(files: "Files") -> None:
    with pytest.raises(UserError, match=r"data\.overlap='keep' is unknown: choose error or drop"):
        files.data(overlap="keep")


def test_overlap_with_the_test_set_is_an_error_or_dropped(files: "Files") -> None:
    train = Path(files.train).read_text().splitlines()
    twin = "1,4|7,3|7,1|3,9/7,9=7,3,9"  # the graph of LINE, in another order and to the other goal
    files.test = files.lines("test", [LINE])
    files.train = files.lines("train", [twin, *train])
    with pytest.raises(UserError, match=r"1 of 28 training graphs are also in .* data\.overlap=drop"):
        files.data()
    data = files.data(overlap="drop")
    assert len(data.train.answers) == 27
    assert not identities(data.train) & (identities(data.test) | identities(data.validation))


def test_overlap_with_the_validation_set_counts_too(files: "Files") -> None:
    lines = Path(files.train).read_text().splitlines()
    files.train = files.lines("train", [lines[-1], *lines])
    with pytest.raises(UserError, match=r"1 of 28 training graphs"):
        files.data()
    assert len(files.data(overlap="drop").train.answers) == 27


@pytest.mark.parametrize("overlap", ["error", "drop"])
def test_validation_graphs_in_the_test_set_are_refused(files: "Files", overlap: str) -> None:
    with pytest.raises(UserError, match="1 validation graphs are also in the test set"):
        files.data(overlap=overlap, validation_file=files.lines("v", Path(files.test).read_text().splitlines()[:1]))


@pytest.mark.parametrize("overlap", ["error", "drop"])
def test_training_on_test_graphs_alone_is_refused(files: "Files", overlap: str) -> None:
    files.train = files.test
    with pytest.raises(UserError, match="every training graph is also in the validation or test set"):
        files.data(overlap=overlap, validation_file=files.write("validation", 5, 3))


def test_bad_line_is_told_with_its_file(files: "Files") -> None:
    files.test = files.lines("test", [LINE, "nonsense"])
    with pytest.raises(UserError, match=r"test, line 2: cannot be read: 'nonsense'"):
        files.data()


@pytest.mark.parametrize("key", ["train_file", "test_file"])
def test_file_that_is_not_named_is_refused(files: "Files", key: str) -> None:
    with pytest.raises(UserError, match=rf"data\.{key}"):
        files.data(**{key: None})


class Files:
    """Thirty training problems and ten to test on, all different graphs, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train, self.test = self.write("train", 30, 1), self.write("test", 10, 2)

    def write(self, name: str, count: int, seed: int) -> str:
        return self.lines(name, list(SMALL.lines(SMALL.sample(count, generator("file", seed)))))

    def lines(self, name: str, lines: list[str]) -> str:
        (self.folder / name).write_text("\n".join(lines) + "\n")
        return str(self.folder / name)

    def data(self, **settings: Any) -> FileData:
        defaults = {"train_file": self.train, "test_file": self.test, "validation_file": None, "validation": 3}
        sizes = {"overlap": "error", "batch_size": 15, "eval_batch_size": 8, "run_seed": 0}
        data = FileData(SMALL, **{**defaults, **sizes, **settings})
        data.setup()
        return data


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("key", ["train", "validation", "test", "batch_size", "eval_batch_size"])
def test_what_cannot_fit_into_memory_is_refused(key: str) -> None:
    settings = {"train": 64, "validation": 4, "test": 4, "batch_size": 4, "eval_batch_size": 4, key: 10**13}
    with pytest.raises(UserError, match=rf"data\.{key}=10000000000000 is too large: it takes at least [\d,]+ GiB"):
        DrawnData(PathStar(5, 5, 50), run_seed=0, **settings)


@pytest.mark.parametrize(("key", "value"), [("goals", 2), ("edges", "by_arm"), ("direction", "random")])
def test_settings_without_effect_on_files_are_refused(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"task.{key}={value} has no effect on problems from files"):
        FileData(replace(SMALL, **{key: value}), 0, "train.txt", "test.txt")
