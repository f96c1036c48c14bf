"""Text from anybody's run folder in each medium."""

import ast
import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nextfail
from nextfail.runs.table import csv_text
from nextfail.terminal import console, say
from nextfail.text import csv_cell, line, markdown, terminal

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31mred\u202egnp.exe\x7f\udc80"


def test_terminal_shows_what_would_drive_it() -> None:
    assert terminal("a\tb\nc é 漢") == "a\tb\nc é 漢"
    assert terminal(ESCAPE) == r"\x1b]0;owned\x07\x1b[2J\x9b31mred\u202egnp.exe\x7f\udc80"
    assert terminal("done\rfailed") == r"done\rfailed"
    assert line("a\nnextfail: done\r\n b") == "a nextfail: done b"


@given(st.text(st.characters()))
def test_no_control_character_is_ever_left(text: str) -> None:
    shown = terminal(text)
    assert all(c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160) for c in shown)
    shown.encode()
    assert terminal(shown) == shown
    assert "\n" not in line(text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("teacher_forcing, G(2,5) 0.49", "teacher_forcing, G(2,5) 0.49"),
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("a | b\n# heading", r"a \| b \# heading"),
        ("$x^$ `code` *bold* _it_", r"\$x^\$ \`code\` \*bold\* \_it\_"),
        ("![i](http://x) www.x", r"!\[i\](http\://x) www\.x"),
        ("a\\|b &lt;", r"a\\\|b \&lt;"),
    ],
)
def test_markdown(text: str, expected: str) -> None:
    assert markdown(text) == expected


@pytest.mark.parametrize(
    "value, expected",
    [
        ("=1+1", "'=1+1"),
        ("+x", "'+x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        (-0.5, -0.5),
        (None, None),
        ("solved", "solved"),
        ("a\n=1", "a =1"),
    ],
)
def test_csv_cells(value: object, expected: object) -> None:
    assert csv_cell(value) == expected


def test_a_csv_table_reads_back() -> None:
    text = csv_text(["a", "=b"], [{"a": 1.5, "=b": '=cmd|"x", y'}, {"a": None}])
    assert list(csv.reader(io.StringIO(text))) == [["a", "'=b"], ["1.5", '\'=cmd|"x", y'], ["", ""]]


def test_consoles_print_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("a", title=ESCAPE)
    table.add_row(ESCAPE)
    for what in (ESCAPE, Text(ESCAPE), table, "[red]no markup[/red] [/nothing]"):
        console(width=200).print(what)
    say(ESCAPE)
    say(ESCAPE, error=True)
    printed = "".join(capsys.readouterr())
    assert not set("\x1b\x07\x9b\x7f\u202e") & set(printed) and r"\x1b[2J" in printed
    assert "[red]no markup[/red] [/nothing]" in printed


def test_nothing_else_in_the_package_prints() -> None:
    root = Path(nextfail.__file__).parent
    found = []
    for path in sorted([*root.rglob("*.py"), *(root.parent / "hydra_plugins").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
            if called in ("print", "Console") and path.name != "terminal.py":
                found.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")  # type: ignore[attr-defined]
    assert found == []
