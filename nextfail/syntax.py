"""Locate the definition of a dotted name as an import would, without running any code."""

import ast
import importlib.machinery
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LONGEST_CHAIN = 20
"""Maximum number of imports, aliases or base classes to follow."""


@dataclass(frozen=True)
class Found:
    """A class or function in the syntax tree of its module."""

    module: str
    file: Path
    node: ast.ClassDef | ast.FunctionDef
    inner: bool = False  # within a class


DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


def locate(dotted: str, left: int = LONGEST_CHAIN) -> Found | None:
    """The definition of a dotted name, following re-exports; None if it cannot be found."""
    parts = dotted.split(".")
    if not all(parts):
        return None  # such as .mine.Mine
    for cut in range(len(parts) - 1, 0, -1):  # the longest prefix that is a module
        if module_file(".".join(parts[:cut])):
            return in_module(".".join(parts[:cut]), parts[cut:], left)
    return None


def in_module(module: str, names: list[str], left: int = LONGEST_CHAIN) -> Found | None:
    """The definition of a name, or of a path of nested names, in a module or where the module imports it from."""
    file = module_file(module)
    if file is None or not left:
        return None
    for node in reversed(list(_statements(tree(file)))):  # the last definition counts
        if isinstance(node, DEFINITIONS) and node.name == names[0]:
            for name in names[1:]:
                inner = [each for each in node.body if isinstance(each, DEFINITIONS) and each.name == name]
                if not inner:
                    return None
                node = inner[-1]
            return Found(module, file, node, inner=len(names) > 1)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin = _absolute(node, module, file)
                if (alias.asname or alias.name) == names[0]:
                    return in_module(origin, [alias.name, *names[1:]], left - 1)
                if alias.name == "*" and (found := in_module(origin, names, left - 1)):
                    return found
        if isinstance(node, ast.Assign) and names[0] in map(ast.unparse, node.targets):
            return named(module, file, node.value, left - 1)  # an alias
    return None


def named(module: str, file: Path, value: ast.expr, left: int = LONGEST_CHAIN) -> Found | None:
    """The definition that a name, or an attribute of an imported module, refers to within a module."""
    names = ast.unparse(value).partition("[")[0].split(".")
    if not all(name.isidentifier() for name in names):
        return None
    if len(names) == 1:
        return in_module(module, names, left)
    for node in _statements(tree(file)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            home = "" if isinstance(node, ast.Import) else f"{_absolute(node, module, file)}."
            for alias in node.names:
                known = (alias.asname or alias.name).split(".")
                if names[: len(known)] == known:
                    return locate(".".join([f"{home}{alias.name}", *names[len(known) :]]), left)
    return None


def _statements(module: ast.Module) -> Iterator[ast.stmt]:
    """Statements of a module, including those under `if` and `try`."""
    waiting: list[ast.stmt] = list(module.body)
    while waiting:
        yield (node := waiting.pop(0))
        for inner in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try):
                waiting += getattr(node, inner, [])


def _absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The absolute module name of a `from ... import`."""
    if not node.level:
        return node.module or ""
    package = module.split(".")
    package = package[: len(package) - node.level + (file.name == "__init__.py")]
    return ".".join([*package, *([node.module] if node.module else [])])


def module_file(name: str) -> Path | None:
    """The source file of a module, found as an import would, without importing its parent packages."""
    search: Any = None
    spec = None
    for end in range(1, name.count(".") + 2):
        full = ".".join(name.split(".")[:end])
        spec = _spec(full, search)
        if spec is None:
            return None
        search = spec.submodule_search_locations
        if end <= name.count(".") and search is None:
            return None  # not a package
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _spec(name: str, search: Any) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        if spec := finder.find_spec(name, search):
            return spec
    return None


def tree(file: Path) -> ast.Module:
    """The syntax tree of a file in its current state; empty if it is not valid Python."""
    stat = file.stat()
    return _parsed(file, stat.st_mtime_ns, stat.st_size)


@cache
def _parsed(file: Path, changed: int, size: int) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])  # importing it will report the error
