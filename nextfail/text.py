"""Sanitize text from run folders, which may be untrusted, for each medium. Templates escape HTML themselves."""

import re
import unicodedata

_BIDI = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MARKDOWN = re.compile(r"[\\`*\[\]<>|$~&#]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def terminal(text: object) -> str:
    """For a terminal, a log or a figure: keep newlines and tabs, and escape everything else that is not printable.

    That is control characters (C0, DEL and C1), which start escape sequences; bidirectional marks; unassigned code
    points; and lone surrogates, which cannot be encoded.
    """
    return "".join(c if c in "\n\t" or not _hidden(c) else c.encode("unicode_escape").decode() for c in str(text))


def line(text: object) -> str:
    """The same on one line."""
    return terminal(" ".join(str(text).split()))


def markdown(text: object) -> str:
    """For a sentence or table cell in Markdown: one line without markup, HTML, links or formulas."""
    return _MARKDOWN.sub(r"\\\g<0>", line(text))


def csv_cell(value: object) -> object:
    """For a CSV cell: numbers unchanged, and text that no spreadsheet interprets as a formula."""
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
