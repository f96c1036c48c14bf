"""Cost of each objective relative to teacher-forcing, on the leaderboard's Transformer."""

from benchmarks.measure import Row, alternate, repeat
from benchmarks.work import Work
from nextfail.paths import CONF
from nextfail.training.rehearsal import flops_per_step

BASELINE = "teacher_forcing"
GRAPH = "g2_5"
STEPS = 4  # per round


def objectives() -> list[Row]:
    """Time of training steps of every objective, and FLOPs per step."""
    names = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))
    usual = ("experiment=leaderboard", f"task={GRAPH}", "data.test=100")
    works = {name: Work(*usual, f"objective={name}") for name in names}
    timings = alternate(7, {name: repeat(STEPS, work.step) for name, work in works.items()})
    flops = {name: flops_per_step(work.module, work.data) for name, work in works.items()}
    size = works[BASELINE].data.batch_size * STEPS
    rows = []
    for name in sorted(names, key=lambda each: timings.ratio(each, BASELINE)):
        peer = f"{BASELINE}; {flops[name] / flops[BASELINE]:.2f} times its FLOPs"
        ratio = timings.ratio(BASELINE, name)  # as in every row, higher is faster
        rows.append(Row(f"step of {name}, G(2,5)", size / timings.median(name), "samples/s", peer, ratio))
    return rows
