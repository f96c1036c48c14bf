"""Check that runs of two commits are bit-identical: check out both, train on this machine, and compare.

python -m benchmarks.same_bits OLD NEW --steps 200
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

OBJECTIVES = ("teacher_forcing", "reverse", "teacherless", "multi_token", "token_order", "next_latent",
              "future_summary", "any_order", "belief_state", "token_masking", "scratchpad",
              "first_hop_only")  # fmt: skip
WITH_MAMBA = ("teacher_forcing", "reverse", "teacherless", "multi_token", "next_latent")
METRICS = ("exact_match", "hard_token_accuracy", "cheat_accuracy", "token_accuracy", "forced_token_accuracy",
           "outcome", "flops", "parameters")  # fmt: skip


def main() -> None:
    """Entry point; exit code 0 only if all runs are identical."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    runs = [("transformer", each) for each in OBJECTIVES] + [("mamba", each) for each in WITH_MAMBA]
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        trees = [check_out(Path(folder, name), commit) for name, commit in vars(arguments).items() if name != "steps"]
        for model, objective in runs:
            one, other = (train(tree, model, objective, arguments.steps) for tree in trees)
            wrong = differences(one, other)
            differ += bool(wrong)
            print(f"{model:12} {objective:16} {', '.join(wrong) or 'the same'}", flush=True)
    print(f"{len(runs)} runs of {arguments.steps} steps, {differ} differ")
    sys.exit(differ > 0)


def check_out(tree: Path, commit: str) -> Path:
    """Extract the files of a commit into a folder."""
    tree.mkdir()
    archive = subprocess.run(["git", "archive", commit], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], check=True, input=archive)
    return tree


def train(tree: Path, model: str, objective: str, steps: int) -> Path:
    """Train a short run with the code of a commit; returns its folder."""
    folder = tree / "runs" / f"{model}_{objective}"
    settings = (f"model={model}", f"objective={objective}", f"trainer.max_steps={steps}", "trainer.val_every=100",
                "data=online", "data.batch_size=32", "data.test=500", f"hydra.run.dir={folder}")  # fmt: skip
    command = [sys.executable, "-m", "nextfail.cli.train", *settings]
    subprocess.run(command, check=True, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True)
    return folder


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two runs: weights, rows of metrics.csv, metrics of the result."""
    weights = [torch.load(each / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for each in (one, other)]
    pairs = zip(*(each.values() for each in weights), strict=False)  # by order, since a commit may rename them
    same = len(weights[0]) == len(weights[1]) and all(torch.equal(*pair) for pair in pairs)
    found = [] if same else ["weights"]
    if (one / "metrics.csv").read_text() != (other / "metrics.csv").read_text():
        found.append("metrics.csv")
    results = [json.loads((each / "result.json").read_text()) for each in (one, other)]
    return found + [key for key in METRICS if results[0][key] != results[1][key]]


if __name__ == "__main__":
    main()
