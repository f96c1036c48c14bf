"""How nextfail-train reads its arguments before Hydra does."""

import pytest

from nextfail.cli.train import flags_first, refuse_empty
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
