"""What all tests share: one thread, and examples that are the same in every run."""

import pytest
import torch
from helpers import LINE, SMALL, hand_batch
from hypothesis import settings

from nextfail.tasks import Batch, PathStar

torch.set_num_threads(1)
settings.register_profile("quick", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("quick")


@pytest.fixture
def small() -> PathStar:
    """G(2,3) with labels 0..9."""
    return SMALL


@pytest.fixture
def by_hand() -> Batch:
    """The one problem of helpers.LINE."""
    return hand_batch(LINE)
