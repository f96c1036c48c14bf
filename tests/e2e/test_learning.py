"""A model really learns: the reversed path of G(2,5), with the settings of the demo."""

import json
from pathlib import Path

from commands import call


def test_reverse_solves_the_graph_of_the_demo(tmp_path: Path) -> None:
    learned = ("experiment=demo", "objective=reverse", "hydra.mode=RUN", "trainer.max_steps=500")
    call("train", *learned, "hydra.run.dir=run", cwd=tmp_path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["exact_match"]["value"] >= 0.95 and result["outcome"] == "solved"
