"""Find what a dotted name such as `nextfail.objectives.reverse.Reverse` defines, from source, without importing it.

A command whose runs are all done must not import torch, which takes seconds. So the name, revision and parameters of a
class are read from its syntax tree.
"""

import ast
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, wraps
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from nextfail.config import KINDS, Type, parse
from nextfail.errors import UserError
from nextfail.syntax import DEFINITIONS, LONGEST_CHAIN, Found, locate, module_file, named, tree

T = TypeVar("T", bound=Callable[..., Any])

REQUIRED = object()
"""Marks a parameter without a default."""

UNREADABLE = object()
"""Marks a default that is not a literal."""

_PACKAGE = __name__.partition(".")[0]


def public(name: str, revision: int = 1) -> Callable[[T], T]:
    """Decorator that gives a class or function of nextfail a stable public name and a revision.

    Both are part of the identity of every run that uses it, instead of its module path, so that moving it is safe.

    Args:
        name: unique within the package; never changed.
        revision: increased whenever what it computes changes, including parameter defaults, so that results of old
            code do not count as results of new code.
    """

    def mark(made: T) -> T:
        marked = checked(made)
        marked.public_name, marked.revision = name, revision  # type: ignore[attr-defined]
        return marked

    return mark


def checked(made: T) -> T:
    """Make a class or function of nextfail validate its arguments by its annotations; errors name the config key."""
    call = made.__init__ if isinstance(made, type) else made  # type: ignore[misc]
    bound, key = signature(call), section(made.__module__, next(iter(signature(made).parameters), ""))

    @wraps(call)
    def check_first(*args: Any, **kwargs: Any) -> Any:
        try:
            given = bound.bind(*args, **kwargs).arguments
        except TypeError:
            return call(*args, **kwargs)  # raises the error
        for name, parameter in _checks(made.__module__, made.__qualname__).items():
            if name in given and (refusal := parameter.type.refusal(f"{key}.{name}", given[name])):
                raise UserError(refusal)
        return call(*args, **kwargs)

    if not isinstance(made, type):
        return check_first  # type: ignore[return-value]
    made.__init__ = check_first  # type: ignore[misc]
    return made


@cache
def _checks(module: str, name: str) -> dict[str, "Parameter"]:
    found = find(f"{module}.{name}")
    return (found and found.parameters) or {}


def section(module: str, first: str) -> str:
    """The configuration section that instantiates what a module of nextfail defines.

    Args:
        first: name of its first parameter.
    """
    part = module.split(".")[1]
    if part == "training":
        return "scheduler" if first == "optimizer" else "optimizer"
    return "data" if module == f"{_PACKAGE}.tasks.data" else part.removesuffix("s")


@dataclass(frozen=True)
class Parameter:
    """One argument of a class or function.

    Args:
        default: REQUIRED, UNREADABLE or a literal.
        type: type stated by its annotation.
    """

    default: Any
    type: Type


@dataclass(frozen=True)
class Definition:
    """A class or function as defined in its source.

    Args:
        path: dotted path of the definition, which may differ from the name that was looked up.
        name, revision: see `public`; None for everything that is not nextfail's own.
        bases: base classes: revision by public name, or for a user's own, hash of the source file by path.
        file: source file.
        parameters: parameters by name; None if the source does not determine them, as with **kwargs.
    """

    path: str
    name: str | None
    revision: int | None
    bases: dict[str, int | str]
    file: Path
    parameters: dict[str, Parameter] | None

    @property
    def defaults(self) -> dict[str, Any]:
        """Defaults of the parameters that have a literal one."""
        known = self.parameters or {}
        return {key: p.default for key, p in known.items() if p.default not in (REQUIRED, UNREADABLE)}


def find(dotted: str) -> Definition | None:
    """What a dotted name defines, following re-exports; None if its source cannot be found."""
    return _find_own(dotted) if _ours(dotted) else _found_now(dotted)


def _found_now(dotted: str) -> Definition | None:
    return _define(found) if (found := locate(dotted)) else None


_find_own = cache(_found_now)  # nextfail's source does not change while it runs


def digest(dotted: str) -> str | None:
    """Hash of the source file that defines a dotted name, or else of its module; None if neither is found."""
    found = find(dotted)
    file = found.file if found else module_file(dotted.rpartition(".")[0])
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else None


@cache
def own() -> dict[str, Definition]:
    """All definitions of nextfail with a public name, by that name."""
    here = Path(__file__).parent
    found: dict[str, Definition] = {}
    for file in sorted(here.rglob("*.py")):
        if "@public(" in file.read_text(encoding="utf-8"):
            module = ".".join([_PACKAGE, *file.relative_to(here).with_suffix("").parts])
            for node in tree(file).body:
                if isinstance(node, DEFINITIONS) and (mark := _mark(made := Found(module, file, node))):
                    found[mark[0]] = _define(made)
    return found


def _define(found: Found, left: int = LONGEST_CHAIN) -> Definition:
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


def _arguments(found: Found, node: ast.ClassDef, above: list[Definition]) -> dict[str, Parameter] | None:
    """Parameters of a class's constructor; None if the source does not determine them."""
    init = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__new__")]
    conditional = any(isinstance(each, ast.If | ast.Try | ast.With) for each in node.body)
    if len(init) > 1 or conditional or _decorated(node):
        return None
    if init:
        return None if _decorated(init[0]) else _parameters(init[0], method=True)
    if (fields := _fields(node)) is not None:
        return (
            None
            if any(isinstance(base.node, ast.ClassDef) and _fields(base.node) for base in _bases(found))
            else fields
        )
    if len(node.bases) > 1 and not _ours(found.module):
        return None  # the MRO decides which constructor is used
    if above:
        return above[0].parameters
    return {} if _ours(found.module) else None


def _decorated(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """Whether a decorator other than known ones may replace the definition."""
    names = {ast.unparse(each).partition("(")[0] for each in node.decorator_list}
    return bool(names - {"dataclass", "dataclasses.dataclass", public.__name__})


def _installed(file: Path) -> bool:
    """Whether a file belongs to Python or an installed package, rather than to the user."""
    return "site-packages" in file.parts or Path(ast.__file__).parent in file.parents


def _bases(found: Found) -> Iterator[Found]:
    """The base classes that can be found; for a class of nextfail, only those within nextfail."""
    assert isinstance(found.node, ast.ClassDef)
    for base in found.node.bases:
        above = named(found.module, found.file, base)
        if above is not None and above.node is not found.node and _follows(found, above.module):
            yield above


def _follows(found: Found, module: str) -> bool:
    return not _ours(found.module) or _ours(module)


def _ours(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE


def _mark(found: Found) -> tuple[str, int] | None:
    """Arguments of the `public` decorator, which is ignored outside nextfail."""
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
    return {each.arg: _parameter(default, each.annotation) for each, default in pairs[method:]}


def _parameter(default: ast.expr | None, annotation: ast.expr | None) -> Parameter:
    made = Parameter(_literal(default), parse(ast.unparse(annotation)) if annotation else Type())
    if made.default is None and made.type.kinds:  # `k: int = None` accepts None despite its annotation
        return replace(made, type=Type(tuple(dict.fromkeys((*made.type.kinds, KINDS["None"])))))
    return made


def _fields(node: ast.ClassDef) -> dict[str, Parameter] | None:
    """The fields of a dataclass; None if the class is not a dataclass."""
    if not any(ast.unparse(each).partition("(")[0] == "dataclass" for each in node.decorator_list):
        return None
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and "ClassVar" not in ast.unparse(each)]
    return {ast.unparse(each.target): _parameter(each.value, each.annotation) for each in fields}


def _literal(default: ast.expr | None) -> Any:
    if default is None:
        return REQUIRED
    try:
        return ast.literal_eval(default)
    except ValueError:
        return UNREADABLE
