"""docs/configuration.md is what the schema says."""

import inspect

import pytest

from nextfail import reference, source
from nextfail.config import KINDS, parse


def test_the_page_is_up_to_date() -> None:
    assert reference.PAGE.read_text() == reference.page(), "python -m nextfail.reference writes it"


def test_every_key_has_a_type_and_a_meaning() -> None:
    rows = [line for line in reference.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    for row in rows:
        key, takes, *_, meaning = (cell.strip() for cell in row.strip("|").split(" | "))
        assert meaning, f"{key} has no meaning in the docstring of its class"
        assert takes != "anything" or key == "`model.layers`"


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("AtLeast1 | None", (1, None, 10**9), (0, True, 1.0, "1")),
        ("Positive", (1e-9, 3), (0, float("nan"), float("inf"), False, "1")),
        ("Share", (0, 1, 0.5), (-0.1, 1.1)),
        ("Betas", ([0.9, 0.99], (0, 0)), ([0.9], [0.9, 1], 0.9, ["a", "b"])),
        ("Literal['a', 'b'] | None", ("a", None), ("c", 3, True)),
        ("'AtLeast2'", (2,), (1,)),
        ("list[str]", ([], 3, None), ()),
    ],
)
def test_types(annotation: str, good: tuple[object, ...], bad: tuple[object, ...]) -> None:
    for value in good:
        assert parse(annotation).refusal("key", value) is None
    for value in bad:
        refusal = parse(annotation).refusal("key", value)
        assert refusal is not None and refusal.startswith("key=")


def test_a_class_refuses_what_its_signature_does_from_python_as_well() -> None:
    from nextfail.errors import UserError
    from nextfail.models import Transformer
    from nextfail.training.optim import cosine

    assert list(inspect.signature(Transformer).parameters)[:3] == ["depth", "width", "heads"]
    with pytest.raises(UserError, match=r"model\.norm='batch' is unknown: choose layer or rms"):
        Transformer(2, 16, 2, 9, 9, norm="batch")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"scheduler\.final=-1 is not a number of at least 0"):
        cosine(None, 5, final=-1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        Transformer(2, 16, 2, 9, 9, colour="red")  # type: ignore[call-arg]


def test_names_of_types_are_those_of_the_annotations() -> None:
    from nextfail import config

    named = {name for name in KINDS if name not in ("int", "float", "str", "bool", "None", "dict", "list")}
    assert all(hasattr(config, name) for name in named)
    for name, kind in KINDS.items():
        if name in named:
            assert getattr(config, name).__metadata__ == (kind.words,)
    assert source.own()["adamw"].parameters
