"""Which settings are the same run: now, after classes have moved and changed, and in folders of earlier versions."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inside import compose
from omegaconf import OmegaConf
from synthetic import share

from nextfail import source
from nextfail.config import parse
from nextfail.errors import UserError
from nextfail.reports.collect import collect
from nextfail.runs.folder import RunFolder, State, record
from nextfail.runs.identity import Identity, digest
from nextfail.sweeps.known import Known
from nextfail.sweeps.resolve import resolve

SCHEMA_1 = Path(__file__).parents[1] / "schema_1"
OLD = ("data.train=64", "data.validation=16", "data.test=100", "model.depth=1", "model.width=8",
       "trainer.max_steps=4", "trainer.val_every=2")  # fmt: skip
ASKED = {
    "teacher_forcing": (),
    "reverse": ("objective=reverse", "seed=1"),
    "mamba": ("model=mamba", "task.query=before", "objective=token_masking", "objective.m=0.3"),
    "muon": ("optimizer=muon", "scheduler=cosine", "objective=next_latent"),
}
"""Overrides, beside OLD, of the recorded runs of schema 1."""


def config_of(*overrides: str) -> dict[str, Any]:
    cfg = compose(*overrides)
    OmegaConf.set_struct(cfg, False)
    return resolve(cfg, Path.cwd(), cfg.pop("hydra"))[0]


def of(*overrides: str) -> Identity:
    return Identity.of(config_of(*overrides))


DEFAULT = of()


def test_what_is_hashed_of_the_default_run_is_little() -> None:
    def own(name: str) -> dict[str, Any]:
        return {"class": {"name": name, "revision": 1}}

    assert DEFAULT.reduced == {
        "task": {**own("path_star"), "degree": 2, "path_length": 5, "num_nodes": 50},
        "data": own("drawn"),
        "model": {**own("transformer"), "depth": 4, "width": 96, "heads": 4},
        "objective": own("teacher_forcing"),
        "optimizer": own("adamw"),
        "scheduler": own("constant"),
        "budget": {},
    }
    assert DEFAULT.hash == "8ff01632e88e8854"  # as recorded in run folders


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.lr=1e-3"], ["optimizer.lr=0.001"], ["optimizer.betas=[0.9,0.999]"], ["trainer.gradient_clip=1"],
        ["seed=0"], ["objective=teacher_forcing"], ["trainer.precision=32"], ["trainer.precision='32'"],
        ["trainer.max_steps=500"], ["data=laptop"], ["~task.query"], ["~optimizer.eps"], ["trainer.accelerator=auto"],
        ["objective._target_=nextfail.objectives.TeacherForcing"], ["logger=csv", "callbacks=none", "name=x"],
        ["+vars.note=3"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_another_spelling_is_the_same_run(overrides: list[str]) -> None:
    assert of(*overrides).hash == DEFAULT.hash


@pytest.mark.parametrize(
    "override",
    ["optimizer.lr=0.002", "seed=1", "trainer.precision=bf16-mixed", "trainer.threads=2", "task.query=before",
     "task.goals=2", "task.num_nodes=51", "trainer.stop_at=0.9", "objective=reverse", "model.init_std=0.1",
     "trainer.max_steps=501", "scheduler.warmup=0", "trainer.gradient_clip=null"],
)  # fmt: skip
def test_another_setting_is_another_run(override: str) -> None:
    assert of(override).hash != DEFAULT.hash


def test_spellings_of_precision_are_one() -> None:
    assert of("trainer.precision=bf16").hash == of("trainer.precision=bf16-mixed").hash
    assert of("trainer.precision=64").settings["precision"] == "64-true"


def test_validation_beyond_the_end_is_one_at_the_end() -> None:
    assert of("trainer.max_steps=50").hash == of("trainer.max_steps=50", "trainer.val_every=50").hash


def test_layout_is_hashed_with_the_task() -> None:
    reduced = of("task.query=before", "task.goals=2").reduced
    assert reduced["task"]["query"] == "before" and reduced["data"] == {**DEFAULT.reduced["data"], "goals": 2}


def changed(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> None:
    """Pretend that a later version defines a class of ours otherwise."""
    made = replace(source.own()[name], **fields)
    own, find = source.own() | {name: made}, source.find
    monkeypatch.setattr(source, "own", lambda: own)
    monkeypatch.setattr(source, "find", lambda dotted: made if dotted == made.path else find(dotted))


def test_a_class_that_moved_is_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, "teacher_forcing", path="nextfail.elsewhere.Renamed")
    config = config_of()
    config["objective"]["_target_"] = "nextfail.elsewhere.Renamed"
    assert Identity.of(config).hash == DEFAULT.hash


def test_a_class_that_was_corrected_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = record(DEFAULT, {})
    changed(monkeypatch, "teacher_forcing", revision=2)
    now = of()
    assert now.hash != DEFAULT.hash
    assert Identity.read(before).differences(now) == {"objective.revision": "objective.revision: 1 there, 2 asked for"}


def test_a_key_that_is_new_loses_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = record(DEFAULT, {})
    parameters = source.own()["transformer"].parameters or {}
    later = parameters | {"conv": source.Parameter(None, parse("int | None"))}
    changed(monkeypatch, "transformer", parameters=later)
    config = config_of()
    config["model"]["conv"] = None
    now = Identity.of(config)
    assert now.hash == DEFAULT.hash and Identity.read(before).differences(now) == {}
    assert Identity.read(before).settings["model"]["conv"] is None
    config["model"]["conv"] = 4
    assert Identity.of(config).hash != DEFAULT.hash


MINE = "from nextfail.objectives import Objective\nclass Mine(Objective):\n    {}\n"


def test_a_class_of_ones_own_is_known_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "identity_mine.py"
    config = config_of()
    config["objective"] = {"_target_": "identity_mine.Mine"}
    file.write_text(MINE.format("pass"))
    first = Identity.of(config)
    assert first.classes["objective"]["name"] == "identity_mine.Mine" and first.hash == Identity.of(config).hash
    file.write_text(MINE.format("extra_tokens = 1"))
    second = Identity.of(config)
    (difference,) = first.differences(second).values()
    assert difference.startswith("objective.sha256: ") and "(source of identity_mine.Mine)" in difference


def test_a_class_inside_another_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "identity_part.py").write_text("class Part: ...\n")
    config = config_of()
    config["model"]["part"] = {"_target_": "identity_part.Part"}
    first = Identity.of(config)
    (tmp_path / "identity_part.py").write_text("class Part: pass\n")
    assert first.classes["model.part"]["name"] == "identity_part.Part" and Identity.of(config).hash != first.hash


def test_base_classes_of_ours_count_with_their_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "identity_sub.py").write_text(
        "from nextfail.objectives.reverse import Reverse\nclass Mine(Reverse): ...\n"
    )
    config = config_of()
    config["objective"] = {"_target_": "identity_sub.Mine"}
    assert Identity.of(config).classes["objective"]["bases"] == {"reverse": 1}


# earlier versions


@pytest.mark.parametrize("name", ASKED)
def test_a_run_of_schema_1_is_the_run_asked_for(name: str) -> None:
    run = json.loads((SCHEMA_1 / name / "run.json").read_text())
    there, asked = Identity.read(run), of(*OLD, *ASKED[name])
    assert there.differences(asked) == {} and there.hash == asked.hash != run["hash"]
    assert Identity.read(record(asked, {})).hash == asked.hash


def test_runs_of_schema_1_are_found_by_what_they_are() -> None:
    known = Known(SCHEMA_1)
    for name in ASKED:
        found = known.same(of(*OLD, *ASKED[name]))
        assert found is not None and found.path.name == name
    assert known.same(of(*OLD, "seed=7")) is None


def test_a_class_of_ones_own_in_schema_1_is_not_taken_for_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.py").write_text(MINE.format("pass").replace("Mine", "Landmark"))
    config = config_of(*OLD)
    config["objective"] = {"_target_": "own.Landmark"}
    (difference,) = RunFolder(SCHEMA_1 / "own").identity().differences(Identity.of(config)).values()
    assert difference.startswith("objective.sha256: None (source of own.Landmark) there, ")


def test_schema_1_is_reported_beside_schema_2() -> None:
    found = collect([SCHEMA_1])
    assert {run.folder.name for group in found.groups for run in group.runs if run.state == "done"} == {
        *ASKED, "files", "own"
    }  # fmt: skip
    assert not [problem for problem in found.problems if problem.state == "unreadable"]


PINNED = {
    "8ff01632e88e8854": (),
    "a0ba2eb417dbf898": ("task.query=before", "task.goals=2"),
    "cd270aa5eacb0526": ("task.edges=by_arm", "task.direction=random", "task.edges_as=tokens", "model.conv=4"),
    "3f17522f96e156b9": ("task=path_star", "task.degree=4", "task.path_length=4", "task.num_nodes=60", "data=online"),
}
"""Hashes that schema 2 gave to runs which are asked for like this now."""


def in_schema_2(identity: Identity, recorded: str) -> dict[str, Any]:
    """The run.json that schema 2 had: the size as `graph`, whose class was implied, and the layout with the data."""
    run = record(identity, {}) | {"schema": 2, "hash": recorded}
    task = run.pop("task")
    run["graph"] = {key: task.pop(key) for key in ("degree", "path_length", "num_nodes")}
    run["data"] |= {key: task[key] for key in ("query", "edges", "direction", "goals", "edges_as")}
    run["classes"]["graph"] = run["classes"].pop("task")
    del run["checksum"]
    return run | {"checksum": digest(run)}


@pytest.mark.parametrize("recorded", PINNED)
def test_a_run_of_schema_2_is_the_run_asked_for(recorded: str, tmp_path: Path) -> None:
    asked = of(*PINNED[recorded])
    done(tmp_path / "run", asked)
    (tmp_path / "run/run.json").write_text(json.dumps(in_schema_2(asked, recorded)))
    there = RunFolder(tmp_path / "run").identity()
    assert there.differences(asked) == {} and there.hash == asked.hash == recorded
    assert there.reduced == asked.reduced and there.kin == asked.kin
    found = Known(tmp_path).same(asked)
    assert found is not None and found.path == tmp_path / "run"


def test_a_changed_run_json_is_refused(tmp_path: Path) -> None:
    run = record(DEFAULT, {"name": "x", "began": {"version": "0.1.0"}})
    for change in ({"seed": 1}, {"name": "y"}, {"classes": {}}, {"hash": "0" * 16}):
        (tmp_path / "run.json").write_text(json.dumps(run | change))
        with pytest.raises(UserError, match="was changed after it was written"):
            RunFolder(tmp_path).run()
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert RunFolder(tmp_path).identity().hash == DEFAULT.hash


@pytest.mark.parametrize("spoil", [{"task": None}, {"budget": []}, {"classes": {"nowhere": {"name": "x"}}},
                                   {"classes": {"model": "x"}}, {"classes": 3}])  # fmt: skip
def test_a_run_json_that_makes_no_sense_is_refused(spoil: dict[str, Any], tmp_path: Path) -> None:
    run = {**deepcopy(record(DEFAULT, {})), **spoil}
    del run["checksum"]
    (tmp_path / "run.json").write_text(json.dumps(run | {"checksum": digest(run)}))
    with pytest.raises(UserError, match=r"run\.json does not have nextfail's format"):
        RunFolder(tmp_path).identity()


# runs that a folder has


def done(folder: Path, identity: Identity) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record(identity, {})))
    result = {"schema": 3, "outcome": "solved", "exact_match": share(1.0), "identity": identity.hash, "steps": 1,
              "samples_seen": 1}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize("name", ["metrics.csv", "timing.csv", "examples.json", "error.txt", "run.json"])
def test_a_folder_with_files_of_others_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"has {name}, and is not a run of nextfail: choose another folder"):
        RunFolder(tmp_path).claim(DEFAULT, {}, "resume")
    assert (tmp_path / name).read_text() == "{}"


def test_a_run_that_was_sent_off_is_no_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "pending"}')
    (tmp_path / "train.log").write_text("")
    assert RunFolder(tmp_path).claim(DEFAULT, {}, "resume") is State.NEW
    (tmp_path / "metrics.csv").write_text("step\n")
    assert RunFolder(tmp_path).claim(DEFAULT, {}, "resume") is State.NEW  # begun, and cut before its first checkpoint


@pytest.mark.parametrize(
    "change", [{"identity": "another"}, {"outcome": 3}, {"outcome": None}, {"exact_match": ...}, {"identity": ...}]
)
def test_a_result_that_is_not_this_runs_is_none(change: dict[str, Any], tmp_path: Path) -> None:
    done(tmp_path / "run", DEFAULT)
    folder = RunFolder(tmp_path / "run")
    assert folder.result() is not None and folder.state(DEFAULT, "resume") is State.DONE
    changed_result = {**json.loads(folder.result_json.read_text()), **change}
    folder.result_json.write_text(json.dumps({k: v for k, v in changed_result.items() if v is not ...}))
    assert folder.result() is None and folder.state(DEFAULT, "resume") is State.CUT


def test_classes_in_lists_and_under_odd_keys_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "identity_listed.py"
    hashes = set()
    for content in ("class Part: ...\n", "class Part: pass\n"):
        file.write_text(content)
        config = config_of()
        config["objective"]["parts"] = [
            {"_target_": "identity_listed.Part"},
            [{"a.b": {"_target_": "identity_listed.Part"}}],
        ]
        identity = Identity.of(config)
        assert set(identity.classes) >= {"objective.parts.0", "objective.parts.1.0.a.b"}
        assert Identity.read(record(identity, {})).flat == identity.flat
        hashes.add(identity.hash)
    assert len(hashes) == 2


def test_shorter_runs_are_the_same_but_for_their_length(tmp_path: Path) -> None:
    for name, overrides in {"a": ["trainer.max_steps=50"], "b": ["trainer.max_steps=200"], "c": [],
                            "d": ["trainer.max_steps=300", "seed=1"]}.items():  # fmt: skip
        done(tmp_path / name, of(*overrides))
    known = Known(tmp_path)
    for steps, expected in {1000: ("c", 500), 499: ("b", 200), 50: None}.items():
        found = known.shorter(of(f"trainer.max_steps={steps}"))
        assert (found and (found.run.path.name, found.steps)) == expected
    assert known.shorter(of("trainer.max_steps=999", "seed=2")) is None


def test_what_a_command_accepts_is_read_again(tmp_path: Path) -> None:
    asked = of(
        "seed=123456789012345678901234567890", "trainer.gradient_clip=1e300", "trainer.max_steps=99999999999999999999"
    )
    extra = {"overrides": ["x" * 20_000, "\udcff"], "files": {"train_file": "\udcff.txt"}}
    (tmp_path / "run.json").write_text(json.dumps(record(asked, extra)))
    assert RunFolder(tmp_path).identity().hash == asked.hash
