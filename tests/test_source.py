"""What a dotted name defines, read without importing it, is what importing it gives."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nextfail import source
from nextfail.config import Type, parse
from nextfail.paths import CONF

OWN = source.own()

DEFAULTS: dict[str, tuple[int, dict[str, Any]]] = {
    "adamw": (1, {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}),
    "any_order": (2, {"decode": "left_to_right", "mean": "example"}),
    "belief_state": (1, {"shared_embedding": False, "head": "mlp"}),
    "constant": (1, {"warmup": 100}),
    "cosine": (1, {"warmup": 100, "final": 0.1}),
    "drawn": (1, {"train": 200_000, "validation": 1000, "test": 2000, "seed": 0, "batch_size": 128,
                  "eval_batch_size": 1000}),
    "files": (1, {"validation_file": None, "validation": 1000, "overlap": "error", "batch_size": 128,
                  "eval_batch_size": 1000}),
    "first_hop_only": (1, {}),
    "future_summary": (2, {"weight": 0.1}),
    "hybrid": (1, {"depth": None, "positions": "none", "norm": "rms", "mlp": "swiglu", "qk_norm": False, "d_state": 16,
                   "head_dim": 32, "d_conv": 4, "expand": 2, "scan": "auto", "conv": None, "conv_at": "both",
                   "init_std": 0.02}),
    "mamba": (1, {"d_state": 16, "d_conv": 4, "expand": 2, "init_std": 0.02, "scan": "auto", "conv": None}),
    "mamba2": (1, {"d_state": 64, "head_dim": 32, "d_conv": 4, "expand": 2, "init_std": 0.02, "scan": "auto",
                   "conv": None}),
    "multi_token": (2, {"k": 4, "removed": 0}),
    "muon": (1, {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "momentum": 0.95, "weight_decay": 0.1}),
    "next_latent": (1, {"horizon": 4, "latent_weight": 1.0, "kl_weight": 1.0, "prompt": False}),
    "path_star": (1, {"query": "after", "edges": "shuffled", "direction": "away", "edges_as": "triples", "goals": 1,
                      "copies": 1}),
    "pretrained": (1, {"revision": "main"}),
    "reverse": (1, {}),
    "scratchpad": (1, {}),
    "star_mixed": (2, {"goal": "leaf", "edges_as": "triples"}),
    "teacher_forcing": (1, {}),
    "teacherless": (1, {}),
    "token_masking": (1, {"m": 0.5, "spans": False, "random": 0.0}),
    "token_order": (1, {}),
    "transformer": (1, {"init_std": 0.02, "conv": None, "conv_at": "both", "positions": "learned", "norm": "layer",
                        "mlp": "gelu", "qk_norm": False}),
    "tree": (1, {"edges_as": "triples"}),
    "wsd": (1, {"warmup": 100, "decay": 1000, "final": 0.0}),
}  # fmt: skip
"""A default is left out of the identity of a run, so that another one makes every recorded run mean something else."""


def test_a_default_changes_only_with_a_new_revision() -> None:
    """If this fails, raise the revision of the class beside its new default, and write both down here."""
    assert {name: (made.revision, made.defaults) for name, made in OWN.items()} == DEFAULTS


@pytest.mark.parametrize("name", OWN)
def test_reading_gives_what_importing_gives(name: str) -> None:
    made = OWN[name]
    module, _, attribute = made.path.rpartition(".")
    imported = getattr(import_module(module), attribute)
    assert (
        getattr(import_module(made.path.rpartition(".")[0]), made.path.rpartition(".")[2]) is imported
        and imported.revision == made.revision
    )
    assert source.find(made.path) == made
    ours = isinstance(imported, type) and imported.__init__.__module__.startswith("nextfail.")
    parameters = inspect.signature(imported).parameters if ours or not isinstance(imported, type) else {}
    assert made.parameters is not None and list(made.parameters) == list(parameters)
    for key, parameter in made.parameters.items():
        default = parameters[key].default
        assert (
            parameter.default is source.REQUIRED if default is inspect.Parameter.empty else parameter.default == default
        )


GROUPS = ("task", "data", "model", "objective", "optimizer", "scheduler")
OPTIONS = sorted(file for group in GROUPS for file in CONF.glob(f"{group}/*.yaml"))


@pytest.mark.parametrize("file", OPTIONS, ids=lambda file: f"{file.parent.name}={file.stem}")
def test_an_option_of_the_same_name_has_the_defaults_of_its_class(file: Path) -> None:
    content = OmegaConf.load(file)
    if "_target_" in content and file.stem not in ("online", "published", "debug"):
        made = source.find(content._target_)
        assert made is not None and made.name in OWN
        for key, default in made.defaults.items():
            assert OmegaConf.to_container(content).get(key, default) == (list(default) if key == "betas" else default)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys; from nextfail import source; source.own(); print({'torch', 'lightning'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit/__init__.py").write_text(
        "raise SystemExit('it was imported')\nfrom .parts import Part as Renamed\n"
    )
    (tmp_path / "kit/parts.py").write_text(
        "from dataclasses import dataclass\nfrom nextfail.objectives import Reverse\n"
        "from nextfail.source import public\n"
        "class Part(Reverse):\n    def __init__(self, k: int, name: str | None = 'x', *, share=0.5): ...\n"
        "    class Inner:\n        def __init__(self, a=[1]): ...\n"
        "class Child(Part): ...\n"
        "@dataclass(frozen=True)\nclass Sizes:\n    depth: int\n    width: int = 3\n"
        "class Open:\n    def __init__(self, **more): ...\n"
        "@public('reverse')\nclass Impostor: ...\n"
        "if True:\n    def build(module, lr: float = 1e-3): ...\n"
    )
    return tmp_path


def test_definitions_are_followed_without_running_anything(modules: Path) -> None:
    part = source.find("kit.Renamed")
    assert part is not None and part == source.find("kit.parts.Part")
    assert part.path == "kit.parts.Part" and part.file == modules / "kit/parts.py"
    assert part.name is None and part.bases == {"reverse": 1} and part.defaults == {"name": "x", "share": 0.5}
    assert part.parameters is not None and part.parameters["k"].default is source.REQUIRED
    assert part.parameters["name"].type == parse("str | None") and part.parameters["share"].type == Type()
    child, inner, sizes, build = (
        source.find(f"kit.parts.{name}") for name in ("Child", "Part.Inner", "Sizes", "build")
    )
    assert child and child.parameters == part.parameters and set(child.bases) == {"reverse", "kit.parts.Part"}
    assert inner and inner.defaults == {"a": [1]}
    assert (
        sizes and sizes.parameters and sizes.parameters["depth"].type == parse("int") and sizes.defaults == {"width": 3}
    )
    assert build and build.defaults == {"lr": 1e-3}
    opened, impostor = (source.find(f"kit.parts.{name}") for name in ("Open", "Impostor"))
    assert opened and opened.parameters is None
    assert impostor and impostor.name is None  # only nextfail's own are public
    assert "kit" not in sys.modules


@pytest.mark.parametrize(
    "name", ["kit", "kit.nothing", "kit.parts.Nothing", "nowhere.at.All", "os.mkdir", "x", "", "a..b"]
)
def test_what_cannot_be_found_is_none(modules: Path, name: str) -> None:
    assert source.find(name) is None


def test_digest_is_of_the_file_that_defines_it(modules: Path) -> None:
    before = source.digest("kit.Renamed")
    assert before == source.digest("kit.parts.Part")
    file = modules / "kit/parts.py"
    file.write_text(file.read_text() + "# changed\n")
    assert source.digest("kit.Renamed") != before
    assert source.digest("kit.made_by_a_function") is not None  # that of its module
    assert source.digest("nowhere.Thing") is None


FOLLOWED = {
    "star": ("from shapes_base import *\n", "Base"),
    "alias": ("import shapes_base\nAlias = shapes_base.Base\n", "Alias"),
    "other name": ("from shapes_base import Base as Other\nThird = Other\n", "Third"),
    "submodule": ("import shapes_base as b\nclass Sub(b.Base): ...\n", "Sub"),
    "redefined": ("class Base: ...\nfrom shapes_base import Base\n", "Base"),
}


@pytest.mark.parametrize("how", FOLLOWED)
def test_code_that_lies_elsewhere_counts(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    content, name = FOLLOWED[how]
    (tmp_path / "shapes.py").write_text(content)
    known = []
    for k in (1, 2):
        (tmp_path / "shapes_base.py").write_text(f"class Base:\n    def __init__(self, k: int = {k}): ...\n")
        made = source.find(f"shapes.{name}")
        assert made is not None and made.defaults == {"k": k}
        known.append((made.file.read_text(), made.bases, source.digest(f"shapes.{name}")))
    assert known[0] != known[1]


UNKNOWN = {
    "two bases": "class A:\n    def __init__(self, w=1): ...\nclass B: ...\nclass Thing(B, A): ...\n",
    "decorated": "import functools\ndef d(f): return f\nclass Thing:\n    @d\n    def __init__(self, a): ...\n",
    "decorated class": "def d(f): return f\n@d\nclass Thing:\n    def __init__(self, a): ...\n",
    "decorated function": "def d(f): return f\n@d\ndef Thing(a): ...\n",
    "conditional": "class Thing:\n    if True:\n        def __init__(self, a): ...\n",
    "defined twice": "class Thing:\n    def __init__(self, a): ...\n    def __init__(self, b): ...\n",
    "dataclass with a base": "from dataclasses import dataclass\n@dataclass\nclass A:\n    a: int\n"
                             "@dataclass\nclass Thing(A):\n    b: int\n",
    "foreign base": "from torch.nn import Module\nclass Thing(Module): ...\n",
}  # fmt: skip


@pytest.mark.parametrize("how", UNKNOWN)
def test_parameters_that_take_more_than_reading_are_not_known(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = f"unknown_{how.replace(' ', '_')}"
    (tmp_path / f"{module}.py").write_text(UNKNOWN[how])
    made = source.find(f"{module}.Thing")
    assert made is not None and made.parameters is None


def test_the_last_definition_counts_and_a_default_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "twice.py").write_text(
        "class Thing:\n    def __init__(self, a): ...\nclass Thing:\n    def __init__(self, k: int = None): ...\n"
        "class Box:\n    @classmethod\n    def make(cls, w): ...\n"
    )
    made, method = source.find("twice.Thing"), source.find("twice.Box.make")
    assert made and made.parameters and made.parameters["k"].type == parse("int | None")
    assert method and method.parameters is None


def test_imports_in_a_circle_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "one_side.py").write_text("from other_side import Thing\n")
    (tmp_path / "other_side.py").write_text("from one_side import Thing\n")
    (tmp_path / "own_base.py").write_text("class A(B): ...\nclass B(A): ...\n")
    (tmp_path / "no_python.py").write_text("class (:\n")
    (tmp_path / "left_side.py").write_text("import right_side\nThing = right_side.Thing\nOwn = Own\n")
    (tmp_path / "right_side.py").write_text(
        "import left_side\nThing = left_side.Thing\nclass Sub(left_side.Thing): ...\n"
    )
    (tmp_path / "zeros.py").write_bytes(b"class Thing: ...\n\0")
    assert source.find("left_side.Thing") is source.find("left_side.Own") is source.find("zeros.Thing") is None
    assert source.find("right_side.Sub") is not None
    assert source.find("one_side.Thing") is None
    assert source.find("own_base.A") is not None
    assert source.find("no_python.Thing") is None
