"""What a dotted name such as `nextfail.objectives.reverse.Reverse` defines, read from source without importing it.

A command that finds every run done must not import torch, which takes seconds. So the name, revision and parameters of
a class come from its syntax tree.
"""

import ast
import hashlib
import importlib.machinery
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

REQUIRED = object()
"""The default of a parameter that has none."""

UNREADABLE = object()
"""The default of a parameter that is no literal."""

imported: dict[str, Any] = {}
"""What is public and was imported, by public name."""

_PACKAGE = __name__.partition(".")[0]
_LONGEST_CHAIN = 20  # imports or base classes followed


def public(name: str, revision: int = 1) -> Callable[[T], T]:
    """Register a class or function of nextfail under a name that outlives moves, and with a revision.

    Both are part of the identity of every run that uses it, in place of its module path.

    Args:
        name: unique in the package; never changed.
        revision: raised whenever what it computes changes, the default of a parameter included, so that results of the
            old code are not taken for results of the new.
    """

    def mark(made: T) -> T:
        made.revision = revision  # type: ignore[attr-defined]
        imported[name] = made
        return made

    return mark


@dataclass(frozen=True)
class Parameter:
    """One argument of a class or function.

    Args:
        default: REQUIRED, UNREADABLE or a literal.
        types: names of the types it accepts, such as {"float", "None"}; empty if they are not simple.
    """

    default: Any
    types: frozenset[str]


@dataclass(frozen=True)
class Definition:
    """A class or function as its source defines it.

    Args:
        path: where it is defined, which may differ from the name that was looked up.
        name, revision: see `public`; None for everything that is not nextfail's own.
        bases: of base classes, revisions by public name, and digests of the source of a user's own by path.
        file: its source.
        parameters: by name; None if they cannot be known from the source, as with **kwargs.
    """

    path: str
    name: str | None
    revision: int | None
    bases: dict[str, int | str]
    file: Path
    parameters: dict[str, Parameter] | None

    @property
    def defaults(self) -> dict[str, Any]:
        """Values of the parameters that have a literal default."""
        known = self.parameters or {}
        return {key: p.default for key, p in known.items() if p.default not in (REQUIRED, UNREADABLE)}


def find(dotted: str) -> Definition | None:
    """What a dotted name defines, also through re-exports; None if its source cannot be found or followed."""
    return _find_own(dotted) if _ours(dotted) else _found_now(dotted)


def _found_now(dotted: str) -> Definition | None:
    return _define(found) if (found := _find(dotted)) else None


_find_own = cache(_found_now)  # nextfail does not change while it runs


def digest(dotted: str) -> str | None:
    """Digest of the source file that defines a dotted name, or else of its module; None if neither can be found."""
    found = find(dotted)
    file = found.file if found else _module_file(dotted.rpartition(".")[0])
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else None


@cache
def own() -> dict[str, Definition]:
    """Everything public in nextfail, by public name."""
    here = Path(__file__).parent
    found: dict[str, Definition] = {}
    for file in sorted(here.rglob("*.py")):
        if "@public(" in file.read_text(encoding="utf-8"):
            module = ".".join([_PACKAGE, *file.relative_to(here).with_suffix("").parts])
            for node in _tree(file).body:
                if isinstance(node, _DEFINITIONS) and (mark := _mark(made := _Found(module, file, node))):
                    found[mark[0]] = _define(made)
    return found


@dataclass(frozen=True)
class _Found:
    module: str
    file: Path
    node: ast.ClassDef | ast.FunctionDef
    inner: bool = False  # within a class


_DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


def _find(dotted: str, left: int = _LONGEST_CHAIN) -> _Found | None:
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):  # the longest prefix that is a module
        if _module_file(".".join(parts[:cut])):
            return _in_module(".".join(parts[:cut]), parts[cut:], left)
    return None


def _in_module(module: str, names: list[str], left: int = _LONGEST_CHAIN) -> _Found | None:
    """A definition by its name, or names of nested classes, in a module or where the module imports it from."""
    file = _module_file(module)
    if file is None or not left:
        return None
    for node in reversed(list(_statements(_tree(file)))):  # the last one counts
        if isinstance(node, _DEFINITIONS) and node.name == names[0]:
            for name in names[1:]:
                inner = [each for each in node.body if isinstance(each, _DEFINITIONS) and each.name == name]
                if not inner:
                    return None
                node = inner[-1]
            return _Found(module, file, node, inner=len(names) > 1)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin = _absolute(node, module, file)
                if (alias.asname or alias.name) == names[0]:
                    return _in_module(origin, [alias.name, *names[1:]], left - 1)
                if alias.name == "*" and (found := _in_module(origin, names, left - 1)):
                    return found
        if isinstance(node, ast.Assign) and names[0] in map(ast.unparse, node.targets):
            return _named(module, file, node.value, left - 1)  # another name for something
    return None


def _named(module: str, file: Path, value: ast.expr, left: int = _LONGEST_CHAIN) -> _Found | None:
    """What a name, or an attribute of an imported module, stands for within a module."""
    names = ast.unparse(value).partition("[")[0].split(".")
    if not all(name.isidentifier() for name in names):
        return None
    if len(names) == 1:
        return _in_module(module, names, left)
    for node in _statements(_tree(file)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            home = "" if isinstance(node, ast.Import) else f"{_absolute(node, module, file)}."
            for alias in node.names:
                known = (alias.asname or alias.name).split(".")
                if names[: len(known)] == known:
                    return _find(".".join([f"{home}{alias.name}", *names[len(known) :]]), left)
    return None


def _define(found: _Found, left: int = _LONGEST_CHAIN) -> Definition:
    name, revision = _mark(found) or (None, None)
    node: ast.ClassDef | ast.FunctionDef = found.node
    bases: dict[str, int | str] = {}
    parameters: dict[str, Parameter] | None
    if isinstance(node, ast.FunctionDef):
        parameters = None if found.inner or _decorated(node) else _parameters(node, method=False)
    else:
        above = [_define(base, left - 1) for base in _bases(found)] if left else []
        parameters = _arguments(found, node, above)
        for each in above:
            bases |= each.bases
            if each.name and each.revision:
                bases[each.name] = each.revision
            elif not _ours(each.path) and not _installed(each.file):
                bases[each.path] = hashlib.sha256(each.file.read_bytes()).hexdigest()
    return Definition(f"{found.module}.{node.name}", name, revision, bases, found.file, parameters)


def _arguments(found: _Found, node: ast.ClassDef, above: list[Definition]) -> dict[str, Parameter] | None:
    """Those that a class is made with; None if that takes more than reading."""
    init = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__new__")]
    conditional = any(isinstance(each, ast.If | ast.Try | ast.With) for each in node.body)
    if len(init) > 1 or conditional or _decorated(node):
        return None
    if init:
        return None if _decorated(init[0]) else _parameters(init[0], method=True)
    if (fields := _fields(node)) is not None:
        return None if above else fields
    if len(node.bases) > 1 and not _ours(found.module):
        return None  # which one's counts is decided by all that they are made of
    if above:
        return above[0].parameters
    return {} if _ours(found.module) else None


def _decorated(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """Whether something else than what is read here may take its place."""
    names = {ast.unparse(each).partition("(")[0] for each in node.decorator_list}
    return bool(names - {"dataclass", "dataclasses.dataclass", public.__name__})


def _installed(file: Path) -> bool:
    """Whether a file is one of Python's or of an installed package, rather than the user's own."""
    return "site-packages" in file.parts or Path(ast.__file__).parent in file.parents


def _bases(found: _Found) -> Iterator[_Found]:
    """The base classes that can be followed; from nextfail's own only to its own."""
    assert isinstance(found.node, ast.ClassDef)
    for base in found.node.bases:
        above = _named(found.module, found.file, base)
        if above is not None and above.node is not found.node and _follows(found, above.module):
            yield above


def _follows(found: _Found, module: str) -> bool:
    return not _ours(found.module) or _ours(module)


def _ours(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE


def _mark(found: _Found) -> tuple[str, int] | None:
    """Arguments of the decorator `public`, which has no meaning outside nextfail."""
    for decorator in found.node.decorator_list if _ours(found.module) else ():
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == public.__name__:
            name, *revision = map(ast.literal_eval, [*decorator.args, *(each.value for each in decorator.keywords)])
            return name, *(revision or [1])
    return None


def _parameters(function: ast.FunctionDef, method: bool) -> dict[str, Parameter] | None:
    arguments = function.args
    if arguments.kwarg or arguments.vararg:
        return None
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    made = {each.arg: Parameter(_literal(default), _types(each.annotation)) for each, default in pairs[method:]}
    # `k: int = None` takes None, whatever it says
    return {key: replace(each, types=each.types | {"None"}) if each.types and each.default is None else each
            for key, each in made.items()}  # fmt: skip


def _fields(node: ast.ClassDef) -> dict[str, Parameter] | None:
    """Those of a dataclass; None if it is none."""
    if not any(ast.unparse(each).partition("(")[0] == "dataclass" for each in node.decorator_list):
        return None
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and "ClassVar" not in ast.unparse(each)]
    return {ast.unparse(each.target): Parameter(_literal(each.value), _types(each.annotation)) for each in fields}


def _literal(default: ast.expr | None) -> Any:
    if default is None:
        return REQUIRED
    try:
        return ast.literal_eval(default)
    except ValueError:
        return UNREADABLE


def _types(annotation: ast.expr | None) -> frozenset[str]:
    if annotation is None:
        return frozenset()
    names = {each.strip() for each in ast.unparse(annotation).strip("'\"").split("|")}
    return frozenset(names) if names <= {"int", "float", "str", "bool", "None"} else frozenset()


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements of a module, those under `if` and `try` included."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        yield (node := waiting.pop(0))
        for inner in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try):
                waiting += getattr(node, inner, [])


def _absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The module that `from ... import` names, relative ones resolved."""
    if not node.level:
        return node.module or ""
    package = module.split(".")
    package = package[: len(package) - node.level + (file.name == "__init__.py")]
    return ".".join([*package, *([node.module] if node.module else [])])


def _module_file(name: str) -> Path | None:
    """The source file of a module, found as an import would find it, but without running any package on the way."""
    search: Any = None
    spec = None
    for end in range(1, name.count(".") + 2):
        full = ".".join(name.split(".")[:end])
        spec = _spec(full, search)
        if spec is None:
            return None
        search = spec.submodule_search_locations
        if end <= name.count(".") and search is None:
            return None  # no package
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _spec(name: str, search: Any) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        if spec := finder.find_spec(name, search):
            return spec
    return None


def _tree(file: Path) -> ast.Module:
    stat = file.stat()
    return _parsed(file, stat.st_mtime_ns, stat.st_size)


@cache
def _parsed(file: Path, changed: int, size: int) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])  # importing it will say what is wrong
