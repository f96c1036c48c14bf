"""What a dotted name such as `nextfail.objectives.reverse.Reverse` defines, read from source without importing it.

A command that finds every run done must not import torch, which takes seconds. So the name, revision and parameters of
a class come from its syntax tree.
"""

import ast
import hashlib
import importlib.machinery
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
        bases: revisions of public base classes, by public name.
        file: its source.
        parameters: by name; None if they cannot be known from the source, as with **kwargs.
    """

    path: str
    name: str | None
    revision: int | None
    bases: dict[str, int]
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


_DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


def _find(dotted: str) -> _Found | None:
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):  # the longest prefix that is a module
        if _module_file(".".join(parts[:cut])):
            return _in_module(".".join(parts[:cut]), parts[cut:])
    return None


def _in_module(module: str, names: list[str], left: int = _LONGEST_CHAIN) -> _Found | None:
    """A definition by its name, or names of nested classes, in a module or where the module imports it from."""
    file = _module_file(module)
    if file is None or not left:
        return None
    for node in _statements(_tree(file)):
        if isinstance(node, _DEFINITIONS) and node.name == names[0]:
            for name in names[1:]:
                inner = [each for each in node.body if isinstance(each, _DEFINITIONS) and each.name == name]
                if not inner:
                    return None
                node = inner[-1]
            return _Found(module, file, node)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == names[0]:
                    return _in_module(_absolute(node, module, file), [alias.name, *names[1:]], left - 1)
    return None


def _define(found: _Found, left: int = _LONGEST_CHAIN) -> Definition:
    name, revision = _mark(found) or (None, None)
    node: ast.ClassDef | ast.FunctionDef = found.node
    bases: dict[str, int] = {}
    parameters: dict[str, Parameter] | None
    if isinstance(node, ast.FunctionDef):
        parameters = _parameters(node, method=False)
    else:
        init = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
        parameters = _parameters(init[-1], method=True) if init else _fields(node)
        if _ours(found.module) and parameters is None and not init:
            parameters = {}  # unless a base class takes some
        for base in _bases(found) if left else ():
            above = _define(base, left - 1)
            bases |= above.bases | ({above.name: above.revision} if above.name and above.revision else {})
            if not init and above.parameters is not None:
                parameters = above.parameters
    return Definition(f"{found.module}.{node.name}", name, revision, bases, found.file, parameters)


def _bases(found: _Found) -> Iterator[_Found]:
    """The base classes that can be followed; from nextfail's own only to its own."""
    assert isinstance(found.node, ast.ClassDef)
    for base in found.node.bases:
        names = ast.unparse(base).partition("[")[0].split(".")
        if len(names) == 1:
            above = _in_module(found.module, names)
        else:
            imports = [node for node in _statements(_tree(found.file)) if isinstance(node, ast.Import)]
            modules = {alias.asname or alias.name: alias.name for node in imports for alias in node.names}
            module = modules.get(".".join(names[:-1]))
            above = _find(f"{module}.{names[-1]}") if module and _follows(found, module) else None
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
    return {each.arg: Parameter(_literal(default), _types(each.annotation)) for each, default in pairs[method:]}


def _fields(node: ast.ClassDef) -> dict[str, Parameter] | None:
    """Those of a dataclass; None if it is none."""
    if not any(ast.unparse(each).partition("(")[0] == "dataclass" for each in node.decorator_list):
        return None
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
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
    except SyntaxError:
        return ast.Module([], [])  # importing it will say what is wrong
