"""What all tests share: one thread, and examples that are the same in every run."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import LINE, SMALL, hand_batch
from hypothesis import settings

from nextfail.tasks import Batch, PathStar

torch.set_num_threads(1)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the processes that tests start would each compile nextfail
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as player:
        options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        opened = player.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()
