"""Run folders as nextfail-train leaves them, written without training anything."""

import json
import time
from pathlib import Path
from typing import Any

from nextfail.files import Inside
from nextfail.runs.folder import record
from nextfail.runs.identity import Identity, digest
from nextfail.runs.table import Table
from nextfail.tasks.path_star.facts import title

AS_PUBLISHED = {
    "_target_": "nextfail.tasks.path_star.task.PathStar",
    "query": "after",
    "edges": "shuffled",
    "direction": "away",
    "edges_as": "triples",
    "goals": 1,
    "copies": 1,
}
LOOKS_LIKE = {
    "precision": "32-true",
    "threads": 1,
    "optimizer": {"lr": 0.001},
    "scheduler": {"warmup": 10},
    "budget": {"max_steps": 20, "val_every": 10, "stop_at": None, "gradient_clip": 1.0},
}
EDGES = [[7, 1], [1, 4], [7, 3], [3, 9]]  # G(2,3): arms 7 1 4 and 7 3 9
OTHER_EDGES = [[5, 2], [2, 8], [5, 6], [6, 0]]


def share(value: float, n: int = 1000) -> dict[str, float]:
    return {"value": value, "low": round(max(value - 0.03, 0), 6), "high": round(min(value + 0.03, 1), 6), "n": n}


def example(generated: list[int], edges: list[list[int]] = EDGES) -> dict[str, Any]:
    path = [edges[0][0], edges[0][1], edges[1][1]]
    return {"edges": edges, "start": path[0], "goal": path[-1], "path": path, "generated": generated}


def make_run(
    folder: Path,
    *,
    objective: str = "teacher_forcing",
    model: str = "transformer",
    seed: int = 0,
    exact: float | None = 0.5,
    hard: float = 0.5,
    cheat: float | None = 1.0,
    outcome: str = "clever_hans",
    degree: int = 2,
    depth: int = 4,
    batch_size: int = 100,
    forced: float | None = 0.5,
    trained: float | None = 0.5,
    length: int = 3,
    num_nodes: int = 50,
    written: dict[str, Any] | None = None,
    tokens: dict[int, list[float]] | None = None,
    examples: list[dict[str, Any]] | None = None,
    status: dict[str, Any] | None = None,
    **more: Any,
) -> Path:
    """Write a run of G(degree,length), `written` otherwise than as published; it is not done if `exact` is None.

    `more` goes into the identity.
    """
    folder.mkdir(parents=True)
    sizes = {"degree": degree, "path_length": length, "num_nodes": num_nodes}
    task = {**AS_PUBLISHED, **sizes, **(written or {})}
    identity = {"task": task, "data": {"batch_size": batch_size, "seed": 0}, "model": {"depth": depth},
                "objective": {"_target_": f"package.{objective}"}, "seed": seed, **LOOKS_LIKE, **more}  # fmt: skip
    classes: dict[str, Any] = {key: {"name": spec["_target_"], "sha256": None} for key, spec in identity.items()
                               if isinstance(spec, dict) and "_target_" in spec}  # fmt: skip
    classes["task"] = {"name": "path_star", "revision": 1}
    run = record(Identity(identity, classes), {"choices": {"model": model, "objective": objective}})
    write(folder / "run.json", run)
    write(folder / "status.json", {"state": "done", "time": time.time(), "step": 20, "max_steps": 20, **(status or {})})
    table = Table(Inside(folder), "metrics.csv", 0)
    for step, row in (tokens or {10: [1.0, 0.2, 0.3], 20: [1.0, 0.5, 0.5]}).items():
        cells = {f"token_accuracy_{i}": str(value) for i, value in enumerate(row)}
        table.add({"step": str(step), "split": "train", "loss": "1.5"})
        if trained is not None:
            table.add({"step": str(step), "split": "train_set", "forced_token_accuracy_1": str(trained)})
        table.add({"step": str(step), "split": "validation", **cells, **({"cheat_accuracy": "1"} if cheat else {})})
    if exact is not None:
        write(folder / "examples.json", [example([7, 3, 9])] if examples is None else examples)
        settings = {key: value for key, value in task.items() if key != "_target_"}
        write(folder / "result.json", {
            "schema": 3, "identity": run["hash"], "model": model, "objective": objective, "seed": seed,
            "task": {"name": title(sizes), "settings": settings, "hard_position": 1},
            "judged_by": "hard_token_accuracy" if objective == "first_hop_only" else "exact_match",
            "exact_match": share(exact), "hard_token_accuracy": share(hard), "chance": 1 / degree,
            "cheat_accuracy": None if cheat is None else share(cheat), "outcome": outcome, "parameters": 1234,
            "forced_token_accuracy": None if forced is None else [share(1.0), share(forced), share(1.0)],
            "steps": 20, "samples_seen": 20 * batch_size, "flops": 10**9, "seconds": 4.0, "samples_per_second": 500.0,
        })  # fmt: skip
    return folder


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; those set to `...` are removed."""
    content = json.loads(path.read_text()) | values
    write(path, {key: value for key, value in content.items() if value is not ...})


def rewrite(path: Path, **values: Any) -> None:
    """The same with a run.json, as somebody would who knows of its checksum."""
    change(path, **values, checksum=...)
    change(path, checksum=digest(json.loads(path.read_text())))


def cut_short(path: Path) -> None:
    """Leave half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def curve(folder: Path, exact: dict[int, float]) -> None:
    """Replace metrics.csv: exact match on the validation set by step."""
    (folder / "metrics.csv").unlink()
    table = Table(Inside(folder), "metrics.csv", 0)
    for step, value in exact.items():
        table.add({"step": str(step), "split": "train", "loss": "1.5"})
        table.add({"step": str(step), "split": "validation", "exact_match": str(value), "token_accuracy_0": "1"})
