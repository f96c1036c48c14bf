"""A model really learns: the reversed path of a small graph within a minute or two."""

import json
from pathlib import Path

from commands import call


def test_reverse_solves_a_small_graph(tmp_path: Path) -> None:
    learned = ("task=g2_4", "objective=reverse", "data=online", "trainer.max_steps=700", "trainer.stop_at=0.97")
    call("train", *learned, "hydra.run.dir=run", cwd=tmp_path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["exact_match"]["value"] >= 0.95 and result["outcome"] == "solved"
