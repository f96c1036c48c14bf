"""Every objective through the command's own path: trained, resumed from its folder, evaluated elsewhere."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import refused
from inside import train_here

from nextfail.objectives import ALL
from nextfail.paths import CONF
from nextfail.reports.record import read_run
from nextfail.runs.folder import LAST, RunFolder
from nextfail.seeding import generator
from nextfail.tasks import PathStar
from nextfail.training.callbacks import Heartbeat
from nextfail.training.checkpoints import read_checkpoint
from nextfail.training.evaluate import evaluate, own_problems
from nextfail.training.load import own_class, remake_module, remake_task

OPTIONS = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))
OBJECTIVES = [name for name in OPTIONS if not name.endswith("_published")]
SMALL = (
    "task=g2_5",
    "model.depth=1",
    "model.width=16",
    "model.heads=2",
    "trainer.val_every=2",
    "data.train=64",
    "data.validation=8",
    "data.test=8",
    "data.batch_size=4",
)


def test_there_is_a_configuration_for_each() -> None:
    assert len(OBJECTIVES) == len(ALL) == 12
    targets = {
        (CONF / "objective" / f"{name}.yaml").read_text().split("_target_: ")[1].split()[0] for name in OBJECTIVES
    }
    assert targets == {f"{kind.__module__}.{kind.__qualname__}" for kind in ALL}
    assert all(map(own_class, OBJECTIVES))


def counted(init: Callable[..., None], starts: list[int]) -> Callable[..., None]:
    """A Heartbeat's __init__ that also notes at which step its run begins."""

    def noting(self: Heartbeat, folder: RunFolder, batch_size: int, resume_step: int) -> None:
        starts.append(resume_step)
        init(self, folder, batch_size, resume_step)

    return noting


@pytest.mark.parametrize("more", [(), ("task.edges_as=tokens", "model.conv=4")], ids=["published", "joined"])
@pytest.mark.parametrize("objective", OPTIONS)
def test_trains_goes_on_and_is_evaluated(
    objective: str, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = 2 if objective == "multi_token_published" else 1  # whose head replaces a block
    asked = (*SMALL, f"model.depth={depth}", f"objective={objective}", *more)
    whole = train_here(tmp_path / "whole", *asked, "trainer.max_steps=4")
    assert whole["steps"] == 4
    assert whole["flops"] > 0
    folder = RunFolder(tmp_path / "whole")
    found = evaluate(folder, checkpoint="last", sizes=None, file=None, trust=False)
    for key in ("exact_match", "hard_token_accuracy", "cheat_accuracy", "forced_token_accuracy", "outcome"):
        assert found[key] == whole[key], key
    shorter = evaluate(
        folder, checkpoint="last", sizes={"degree": 2, "path_length": 3, "num_nodes": 50}, file=None, trust=False
    )
    assert len(shorter["token_accuracy"]) == 3

    # cut after two of four steps: it goes on from there, to the same bits
    cut = tmp_path / "cut"
    train_here(cut, *asked, "trainer.max_steps=4")
    (cut / "result.json").unlink()
    (cut / "checkpoints" / LAST).unlink()
    (cut / "train.log").unlink(missing_ok=True)
    starts: list[int] = []
    monkeypatch.setattr(Heartbeat, "__init__", counted(Heartbeat.__init__, starts))
    again = train_here(cut, *asked, "trainer.max_steps=4")
    assert starts == [2]
    run_hash = folder.run()["hash"]
    states = [
        read_checkpoint(path / "checkpoints" / LAST, run_hash)["state_dict"] for path in (tmp_path / "whole", cut)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert again["exact_match"] == whole["exact_match"]


def test_heads_are_in_the_checkpoint_and_in_the_count(tmp_path: Path) -> None:
    plain = train_here(tmp_path / "plain", *SMALL, "trainer.max_steps=2")
    heads = train_here(tmp_path / "heads", *SMALL, "trainer.max_steps=2", "objective=multi_token", "objective.k=2")
    block = 16 * 64 * 2 + 16 * 16 * 4 + (64 + 16) + (3 * 16 + 16) + 4 * 16  # a block of width 16
    assert heads["parameters"] - plain["parameters"] == 2 * block
    folder = RunFolder(tmp_path / "heads")
    module = remake_module(folder)
    state = read_checkpoint(folder.checkpoints / LAST, folder.run()["hash"])["state_dict"]
    untrained = [parameter.clone() for parameter in module.objective.heads.parameters()]
    module.load_state_dict(state)  # strict: nothing is missing
    assert not any(torch.equal(*pair) for pair in zip(untrained, module.objective.heads.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("objective", ["next_latent", "future_summary", "belief_state", "any_order"])
def test_losses_are_finite_in_half_precision(objective: str, precision: str, tmp_path: Path) -> None:
    result = train_here(
        tmp_path, *SMALL, f"objective={objective}", "trainer.max_steps=2", f"trainer.precision={precision}"
    )
    assert result["outcome"] != "diverged"


def test_any_order_on_mamba_is_refused_before_any_work(tmp_path: Path) -> None:
    message = refused("train", "model=mamba", "objective=any_order", "hydra.run.dir=run", cwd=tmp_path)
    assert "AnyOrder needs a backbone with bidirectional, which Mamba does not have" in message
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    "knobs",
    [
        ("task.query=before", "task.edges=parents_first"),
        ("task.edges=by_arm", "task.direction=random"),
        ("task.goals=2", "task.direction=random", "task.query=before"),
    ],
    ids=str,
)
def test_knobs_of_the_task_reach_the_run(knobs: tuple[str, ...], tmp_path: Path) -> None:
    result = train_here(tmp_path / "run", *SMALL, *knobs, "trainer.max_steps=2", "objective=first_hop_only")
    folder = RunFolder(tmp_path / "run")
    asked = folder.run()["task"]
    assert all(str(asked[key]) == value for key, value in (knob.removeprefix("task.").split("=") for knob in knobs))
    assert (
        evaluate(folder, checkpoint="last", sizes=None, file=None, trust=False)["exact_match"] == result["exact_match"]
    )
    assert len(read_run(folder.path).examples()) == 8  # in whatever direction the prompt has their edges
    own = remake_task(folder)
    file = tmp_path / "one.txt"
    file.write_text("7,1|1,4|4,8|8,2|7,3|3,9|9,5|5,6/7,6=7,3,9,5,6\n")
    elsewhere = own.resized({"degree": 2, "path_length": 3, "num_nodes": 50})
    for task, problems in ((own, own.read(file)), (elsewhere, own_problems(folder, elsewhere, trust=False))):
        assert isinstance(task, PathStar)
        slash = 2 if asked["query"] == "before" else -4
        assert (problems.prompts[:, slash] == task.vocab.slash).all()
        edges, starts, goals = task.vocab.split(problems.prompts)
        assert torch.equal(goals, problems.answers[:, -1])
        turned = (edges[..., 1] == starts[:, None]).any()  # an edge that leads to the start
        assert bool(turned) is (task is elsewhere and asked["direction"] == "random")
    assert own.read(file).answers.tolist() == [[7, 3, 9, 5, 6]]


def test_a_knob_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert "task.edges='sorted' is unknown" in refused("train", "task.edges=sorted", "hydra.run.dir=run", cwd=tmp_path)
    assert "data.batch_size=5 is not a multiple of 2, and G(2,5) samples this many problems together" in refused(
        "train", "task.goals=2", "data.batch_size=5", "hydra.run.dir=run", cwd=tmp_path
    )


def test_an_edge_a_token_from_training_to_files_and_pictures(tmp_path: Path) -> None:
    asked = (*(each for each in SMALL if "heads" not in each), "model=mamba", "task.edges_as=tokens")
    result = train_here(tmp_path / "run", *asked, "trainer.max_steps=2")
    folder, file = RunFolder(tmp_path / "run"), tmp_path / "one.txt"
    file.write_text("7,1|1,4|4,8|8,2|7,3|3,9|9,5|5,6/7,6=7,3,9,5,6\n")
    whole = evaluate(folder, checkpoint="last", sizes=None, file=None, trust=False)
    assert whole["exact_match"] == result["exact_match"]
    one = evaluate(folder, checkpoint="last", sizes=None, file=file, trust=False)
    assert one["exact_match"]["n"] == 1 and len(one["token_accuracy"]) == 5
    sizes = {"degree": 2, "path_length": 3, "num_nodes": 50}
    assert len(evaluate(folder, checkpoint="last", sizes=sizes, file=None, trust=False)["token_accuracy"]) == 3
    example = read_run(folder.path).examples()[0]
    assert len(example.edges) == 8 and all(0 <= node < 50 for edge in example.edges for node in edge)


def test_a_run_from_files_with_an_edge_a_token_is_evaluated_at_another_size(tmp_path: Path) -> None:
    for name, seed in (("train", 0), ("test", 1)):
        task = PathStar(2, 5, 50)
        (tmp_path / name).write_text("\n".join(task.lines(task.sample(40, generator("files", seed)))))
    files = ("data=files", f"data.train_file={tmp_path}/train", f"data.test_file={tmp_path}/test", "data.validation=8")
    small = [each for each in SMALL if not each.startswith("data.")]
    train_here(tmp_path / "run", *small, *files, "task.edges_as=tokens", "data.batch_size=4", "trainer.max_steps=2")
    sizes = {"degree": 2, "path_length": 3, "num_nodes": 50}
    found = evaluate(RunFolder(tmp_path / "run"), checkpoint="last", sizes=sizes, file=None, trust=False)
    assert len(found["token_accuracy"]) == 3
    drawn = own_problems(RunFolder(tmp_path / "run"), PathStar(2, 3, 50, edges_as="tokens"), trust=False)
    assert drawn.prompts.shape[1] == 7
