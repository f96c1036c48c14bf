"""The content of status.json as people read it."""

from typing import Any

Status = dict[str, Any]
COLUMNS = ("step", "loss", "exact match", "hard token", "graphs/s", "left")


def cells(status: Status) -> list[str]:
    """Step, loss, exact match, hard token, graphs/s and time left (min:s) as text; empty where not known yet."""
    rate, left = status.get("samples_per_second"), status.get("seconds_left")
    numbers = [status.get(key) for key in ("loss", "exact_match", "hard_token_accuracy")]
    return [
        f"{status.get('step', 0):,}/{status.get('max_steps', 0):,}",
        *("" if number is None else f"{number:.3f}" for number in numbers),
        f"{rate:,.0f}" if rate else "",
        f"{int(left) // 60}:{int(left) % 60:02d}" if left is not None else "",
    ]


def describe(status: Status) -> str:
    """The same as one line, without what is not known yet."""
    named = zip(COLUMNS, cells(status), strict=True)
    return ", ".join(f"{name} {value}" for name, value in named if value)
