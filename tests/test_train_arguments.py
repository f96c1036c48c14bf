"""How nextfail-train reads its arguments before Hydra does."""

import pytest

from nextfail.cli.train import flags_first, interrupted, refuse_empty
from nextfail.errors import UserError


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("seed=0,1 -m", "-m seed=0,1"),
        ("-m a=1 -m --multirun", "-m --multirun a=1"),
        ("a=1 --cfg job --resolve b=2", "--cfg job --resolve a=1 b=2"),
        ("a=1 --config-dir conf -cn x b=2 --package model", "--config-dir conf -cn x --package model a=1 b=2"),
        ("~a +b=1 ++c=-3", "~a +b=1 ++c=-3"),
        ("--cfg", "--cfg"),
    ],
)
def test_flags_may_stand_anywhere(typed: str, read: str) -> None:
    assert flags_first(typed.split()) == read.split()


@pytest.mark.parametrize(
    "text", ["optimizer=null", "optimizer=", "+optimizer=null", "~optimizer", "~model/size", "recipe="]
)
def test_a_group_without_an_option_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a group cannot be empty"):
        refuse_empty(["seed=0", text])


def test_what_is_no_group_is_left_to_hydra() -> None:
    refuse_empty(["--package", "model", "seed=null", "~seed", "~logger", "callbacks=none", "=x", "", "/=null", "name="])


def test_ctrl_c_in_the_middle_of_composing_is_no_mistake_of_the_user() -> None:
    error: BaseException = ValueError("a mistake")
    assert not interrupted(error) and not interrupted(None)
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise TypeError("'NoneType' object has no attribute 'flags'")  # noqa: B904, as OmegaConf does
    except TypeError as inner:
        try:
            raise ValueError("cannot compose") from inner
        except ValueError as outer:
            error = outer
    assert interrupted(error)
