"""nextfail-eval: evaluate a trained run.

nextfail-eval runs/default/plain
nextfail-eval 'runs/demo/objective=reverse,seed=0' --task g2_4 --json
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from nextfail.cli.common import named_task, parser_of
from nextfail.errors import UserError, guarded
from nextfail.runs.folder import RunFolder
from nextfail.runs.naming import one_line
from nextfail.terminal import console, say


def main() -> None:
    """Entry point."""
    parser = parser_of("nextfail-eval", __doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--file", type=Path, metavar="PATH", help="evaluate on a file in the task's text format")
    parser.add_argument("--task", metavar="NAME", help="evaluate on another size of the run's task, such as g2_4")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of that task")
    parser.add_argument("--checkpoint", default="last", metavar="last|best|PATH", help="weights to evaluate "
                        "(best was chosen among noisy scores, which biases it upwards)")  # fmt: skip
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="also sample N answers to each problem")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of the samples (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the samples (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--trust", action="store_true", help="import classes that the run folder names and that are "
                        "not nextfail's own: this runs their code")  # fmt: skip
    arguments = parser.parse_args()
    guarded(parser.prog, lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print."""
    folder = RunFolder(arguments.run)
    own = folder.identity().settings["task"]  # report errors before torch is imported
    sizes = None
    if arguments.task:
        sizes, asked = (named_task(arguments.task, arguments.set, whole) for whole in (False, True))
        sizes = {key: value for key, value in sizes.items() if key != "_target_"}
        if asked.get("_target_") != own.get("_target_"):
            raise UserError(f"--task {arguments.task} is a {asked.get('_target_')}, but this run's task is a "
                            f"{own.get('_target_')}: choose another size of it")  # fmt: skip
    elif arguments.set:
        raise UserError("--set needs --task")
    if arguments.file and not arguments.file.is_file():
        raise UserError(f"there is no file {arguments.file}")

    if arguments.trust and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a user's own modules, as nextfail-train finds them
    from nextfail.training.evaluate import evaluate

    named = set(sizes or {}) - {text.removeprefix("task.").partition("=")[0] for text in arguments.set}
    keys = ("checkpoint", "file", "trust", "samples", "temperature", "seed")
    given = {key: getattr(arguments, key) for key in keys}
    result = evaluate(folder, sizes=sizes, ignorable=named, **given)
    if arguments.json:
        say(json.dumps(result, indent=1))
    else:
        say(one_line(result))
        say(f"{result['problems']}, {Path(result['checkpoint']).name} at step {result['steps']:,}")
        console().print(table(result))


def table(result: dict[str, Any]) -> Table:
    """The metrics with their 95 % intervals."""
    drawn = Table("", "value", "95 % interval", "n")
    for key, value in result.items():
        overall = key in ("exact_match", "sampled_exact_match", "best_of_samples") or (
            key.endswith("_accuracy") and not key.endswith("token_accuracy")
        )
        if overall or key == "hard_token_accuracy":
            _row(drawn, key.replace("_", " "), value)
    for key in ("token_accuracy", "forced_token_accuracy"):
        for position, value in enumerate(result[key] or []):
            _row(drawn, f"{key.replace('_', ' ')} {position}", value)
    drawn.add_row("chance", f"{result['chance']:.3f}", "", "")
    return drawn


def _row(drawn: Table, name: str, value: dict[str, float] | None) -> None:
    if value is None:
        drawn.add_row(name, "-", "not defined for this objective", "")
    else:
        drawn.add_row(name, f"{value['value']:.3f}", f"{value['low']:.3f} to {value['high']:.3f}", f"{value['n']:,}")


if __name__ == "__main__":
    main()
