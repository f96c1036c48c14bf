"""Text from run folders, which may be anybody's, made safe for each medium. HTML is escaped by the template itself."""

import re
import unicodedata

_BIDI = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MARKDOWN = re.compile(r"[\\`*\[\]<>|$~&#]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def terminal(text: object) -> str:
    """For a terminal, a log or a figure: lines and tabs stay, and all else that is not printed is spelled out.

    That is control characters (C0, DEL and C1), which start escape sequences; marks that reverse the direction of
    writing; and halves of characters, which cannot be encoded.
    """
    return "".join(c if c in "\n\t" or not _hidden(c) else c.encode("unicode_escape").decode() for c in str(text))


def line(text: object) -> str:
    """The same on one line."""
    return terminal(" ".join(str(text).split()))


def markdown(text: object) -> str:
    """For a sentence or a cell of a table in Markdown: no markup, no HTML, no links, no formulas, one line."""
    return _MARKDOWN.sub(r"\\\g<0>", line(text))


def csv_cell(value: object) -> object:
    """For a cell of a CSV table: numbers as they are, and text that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = line(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _number(text) else text


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cn", "Cs") or character in _BIDI


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
