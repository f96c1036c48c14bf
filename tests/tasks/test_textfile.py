from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import LINE, SMALL, drawn, graphs, rows, seeds, tokenize
from hypothesis import given, settings
from hypothesis import strategies as st

from nextfail.cli import data
from nextfail.errors import UserError
from nextfail.seeding import generator
from nextfail.tasks import Batch, PathStar
from nextfail.tasks.path_star import textfile

PUBLISHED = "32,3|16,12|3,19|32,34|34,6|6,16|19,47|47,28/32,12=32,34,6,16,12"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "problems.txt"


def write(path: Path, count: int, seed: int = 0) -> None:
    """Problems of SMALL, by the command that writes files."""
    data.write("g2_3", ["num_nodes=10"], count, seed, path)


@pytest.fixture
def counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many problems the command has said to have written, each time before the file has its name."""
    seen: list[int] = []

    def update(bar: data.Progress, task: int, *, completed: int) -> None:
        assert not path.exists()
        seen.append(completed)

    monkeypatch.setattr(data.Progress, "update", update)
    return seen


# format


def test_line_of_a_small_graph(by_hand: Batch) -> None:
    assert list(SMALL.lines(by_hand)) == [LINE]


def test_published_line_is_read(path: Path) -> None:
    path.write_text(PUBLISHED + "\n")
    batch = PathStar(2, 5, 50).read(path)
    prompt, answer = tokenize(PUBLISHED, 50)
    assert (batch.prompts.tolist(), batch.answers.tolist()) == ([prompt], [answer])
    assert batch.prompts.dtype == batch.answers.dtype == torch.uint8
    assert batch.mask.tolist() == [[True] * 5]
    edges, starts, goals, paths = textfile.load(path, PathStar(2, 5, 50))
    assert edges[0, :2].tolist() == [[32, 3], [16, 12]]
    assert (edges.shape, starts.tolist(), goals.tolist(), paths.tolist()) == ((1, 8, 2), [32], [12], [answer])


@given(graphs(), seeds)
def test_lines_hold_the_sampled_tokens(graph: PathStar, seed: int) -> None:
    batch = drawn(graph, 3, seed)
    read = [tokenize(line, graph.num_nodes) for line in graph.lines(batch)]
    assert read == list(zip(batch.prompts.tolist(), batch.answers.tolist(), strict=True))


@given(graph=graphs(), seed=seeds)
@settings(max_examples=20)
def test_load_undoes_format(graph: PathStar, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("round") / "problems.txt"
    batch = graph.sample(7, generator("tests", seed))
    path.write_text("".join(line + "\n" for line in graph.lines(batch)))
    again = graph.read(path)
    assert torch.equal(again.prompts, batch.prompts)
    assert torch.equal(again.answers, batch.answers)
    assert again.prompts.dtype == batch.prompts.dtype


@pytest.mark.parametrize("text", [LINE, LINE + "\n\n \n", LINE + "\r\n", f"  {LINE}\t\n"])
def test_line_ends_and_blanks_around_do_not_matter(path: Path, text: str, by_hand: Batch) -> None:
    path.write_bytes(text.encode())
    assert rows(SMALL.read(path)) == rows(by_hand)


# writing


def test_file_holds_what_its_generator_draws(path: Path, counted: list[int]) -> None:
    write(path, 25)
    assert counted == [25]
    assert path.read_text().count("\n") == 25
    assert rows(SMALL.read(path)) == rows(SMALL.sample(25, generator("file", 0)))


def test_progress_counts_the_lines_written(path: Path, counted: list[int]) -> None:
    write(path, 20_001)
    assert counted == [10_000, 20_000, 20_001]
    assert len(SMALL.read(path).answers) == 20_001


def test_seed_decides_the_file(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        write(tmp_path / name, 20, seed)
    one, again, other = ((tmp_path / name).read_bytes() for name in ("one", "again", "other"))
    assert one == again != other


def test_edges_that_may_be_turned_are_not_written(by_hand: Batch) -> None:
    turned = replace(SMALL, direction="random")
    with pytest.raises(
        UserError, match=r"task\.direction=random cannot be written: in the text format, every edge lea"
    ):
        turned.lines(by_hand)


def test_existing_file_is_left_as_it_is(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(UserError, match=r"problems\.txt already exists and was not changed"):
        write(path, 3)
    assert path.read_text() == "precious"
    assert list(path.parent.iterdir()) == [path]


def test_half_written_file_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(bar: data.Progress, task: int, *, completed: int) -> None:
        assert completed == 10_000
        assert not path.exists()
        assert len(list(path.parent.iterdir())) == 1  # what is written so far has another name
        raise KeyboardInterrupt

    monkeypatch.setattr(data.Progress, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(path, 30_000)
    assert list(path.parent.iterdir()) == []


def test_folder_is_made(tmp_path: Path) -> None:
    write(tmp_path / "new" / "deep" / "problems.txt", 1)
    assert (tmp_path / "new" / "deep" / "problems.txt").is_file()


def test_folder_that_is_a_file_is_refused(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(UserError, match="cannot write"):
        write(path / "inside.txt", 1)


# bad files


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", r"line 2: cannot be read: ''; expected something like 7,1\|1,4"),
        ("hello", r"line 2: cannot be read: 'hello'; expected something like"),
        (LINE.replace("|", ";"), r"line 2: cannot be read"),
        (LINE.replace("7,4=", "7="), r"line 2: cannot be read"),
        (LINE.replace("9", "-9"), r"line 2: cannot be read"),
        (LINE + ",", r"line 2: cannot be read"),
        (LINE + "\n" + LINE, None),
        (PUBLISHED, r"line 2: has 8 edges and a path of 5 nodes; G\(2,3\) has 4 and 3"),
        ("7,1|3,9|1,4|7,3/7,4=7,1", r"line 2: has 4 edges and a path of 2 nodes; G\(2,3\) has 4 and 3"),
        ("7,1|3,9|1,4/7,4=7,1,4", r"line 2: has 3 edges and a path of 3 nodes"),
        # an edge less and two hops more make as many numbers
        ("7,1|3,9|1,4/7,4=7,1,4,7,1", r"line 2: has 3 edges and a path of 5 nodes"),
        (LINE.replace("9", "10"), r"line 2: has node 10; task\.num_nodes=10 allows 0\.\.9"),
        (LINE.replace("9", "9" * 30), r"line 2: has node 9{30}; task\.num_nodes=10 allows 0\.\.9"),
        (LINE.replace("9", "9" * 5000), r"line 2: has node 9{10}\.\.\. with 5,000 digits; task\.num_nodes=10 allows"),
        (LINE + "\x0c" + LINE, r"line 2: cannot be read"),  # neither of these ends a line
        (LINE + "\x0b\x1c" + LINE, r"line 2: cannot be read"),
        (LINE + "\r" + LINE, r"line 2: cannot be read"),
        (LINE.replace("9", "00000000009") + "\r\n" + LINE, r"line 2: has node 00000000009"),
        ("7,1|3,9|1,4|7,3/7,9=7,1,4", r"line 2: is not a G\(2,3\) problem: expected 2 disjoint arms of 3 nodes"),
        ("7,1|3,9|1,4|7,3/7,4=7,3,4", r"line 2: is not a G\(2,3\) problem"),
        ("1,7|3,9|1,4|7,3/7,4=7,1,4", r"line 2: is not a G\(2,3\) problem"),
        ("7,1|1,9|1,4|7,3/7,4=7,1,4", r"line 2: is not a G\(2,3\) problem"),
        ("7,1|3,7|1,4|7,3/7,4=7,1,4", r"line 2: is not a G\(2,3\) problem"),
        ("7,1|3,4|1,4|7,3/7,4=7,1,4", r"line 2: is not a G\(2,3\) problem"),
        ("7,1|7,1|1,4|1,4/7,4=7,1,4", r"line 2: is not a G\(2,3\) problem"),
        ("7,1|7,9|1,4|7,3/7,4=7,1,4", r"line 2: is not a G\(2,3\) problem"),
        ("7,1|3,9|1,4|7,3/3,4=7,1,4", r"line 2: is not a G\(2,3\) problem"),
    ],
)
def test_bad_line_is_named(path: Path, line: str, message: str | None) -> None:
    path.write_text(f"{LINE}\n{line}\n{LINE}\n")
    if message is None:
        assert len(SMALL.read(path).answers) == 4
        return
    with pytest.raises(UserError, match=message) as error:
        SMALL.read(path)
    assert str(error.value).startswith(f"{path}, line 2: ")


def plainly_right(numbers: list[int]) -> bool:
    """Is this row of four edges, start, goal and path a problem of SMALL? Read as a person would."""
    edges = list(zip(numbers[0:8:2], numbers[1:8:2], strict=True))
    start, goal, path = numbers[8], numbers[9], numbers[10:]
    onward = {u: [v for w, v in edges if w == u] for u in range(10)}
    arms = [[start, hop, leaf] for hop in onward[start] for leaf in onward[hop]]
    nodes = [start, *(node for arm in arms for node in arm[1:])]
    return len(set(edges)) == 4 and len(arms) == 2 and len(set(nodes)) == 5 and path in arms and path[-1] == goal


@given(seeds, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), max_size=3))
@settings(max_examples=300)
def test_check_agrees_with_a_plain_one(seed: int, changes: list[tuple[int, int]]) -> None:
    batch = drawn(SMALL, 1, seed)
    edges, start, goal = SMALL.vocab.split(batch.prompts)
    row = torch.cat([edges.flatten(), start, goal, batch.answers[0]])
    assert plainly_right(row.tolist())
    for place, label in changes:
        row[place] = label
    found = textfile.is_path_star(SMALL, row[None, :8].view(1, 4, 2), row[8:9], row[9:10], row[None, 10:])
    assert found.item() is plainly_right(row.tolist())


def test_lines_may_end_as_on_windows(path: Path) -> None:
    path.write_bytes(f"{LINE}\r\n {LINE}\t\r\n\r\n".encode())
    assert len(SMALL.read(path).answers) == 2


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_empty_file_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(UserError, match=r"data file .*problems\.txt is empty: expected lines like 7,1\|1,4"):
        SMALL.read(path)


def test_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read data file .*problems\.txt: No such file"):
        SMALL.read(path)


@pytest.mark.parametrize("content", [b"\x80\x02}q\x00", LINE.replace("7", "\u0667").encode()])
def test_other_than_plain_text_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read data file .*problems\.txt: it is not plain text"):
        SMALL.read(path)
