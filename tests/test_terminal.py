"""A stream whose reader has left is silent, and nothing else changes."""

import os
import sys

import pytest

from nextfail.terminal import Unbroken, mend_pipes


def test_what_is_written_arrives_until_the_reader_leaves() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        unbroken = Unbroken(stream)
        assert unbroken.write("first\n") == 6
        unbroken.flush()
        assert os.read(reading, 100) == b"first\n"
        os.close(reading)
        for _ in range(3):
            assert unbroken.write("lost\n") == 5
            unbroken.flush()
        print("lost, too", file=unbroken)  # type: ignore[arg-type]
        assert unbroken.fileno() == writing and unbroken.encoding == stream.encoding and not unbroken.isatty()


def test_other_errors_are_told() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    stream.close()
    with pytest.raises(ValueError, match="closed file"):
        Unbroken(stream).write("x")


def test_streams_are_mended_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", None)
    mend_pipes()
    mended = sys.stdout
    assert isinstance(mended, Unbroken)
    print("into nothing", file=sys.stderr, flush=True)  # it was closed
    mend_pipes()
    assert sys.stdout is mended
