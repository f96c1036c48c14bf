"""nextfail-eval --samples, and the same from Python."""

from pathlib import Path

from commands import call, refused
from inside import train_here

import nextfail


def test_samples_of_a_finished_run(tmp_path: Path) -> None:
    train_here(tmp_path / "run", "trainer=debug", "data=debug", "model.depth=1", "model.width=16")
    found = nextfail.evaluate(nextfail.load(tmp_path / "run"), samples=2, temperature=0.5, seed=3)
    assert found["samples"] == 2 and found["sampled_exact_match"]["n"] == found["exact_match"]["n"]
    assert "samples" not in nextfail.evaluate(nextfail.load(tmp_path / "run"))
    said = call("eval", "run", "--samples", "2", cwd=tmp_path).stdout
    assert "sampled exact match" in said and "best of samples" in said
    for given, message in {
        ("--samples", "-1"): "samples=-1 is not a whole number of at least 0",
        ("--samples", "1", "--temperature", "0"): "temperature=0.0 is not a number above 0",
        ("--samples", "1", "--temperature", "nan"): "temperature=nan is not a number above 0",
    }.items():
        assert message in refused("eval", "run", *given, cwd=tmp_path)
