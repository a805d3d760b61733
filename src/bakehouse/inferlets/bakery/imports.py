"""What a module imports, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_CATCH = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


@dataclass(frozen=True, slots=True)
class Import:
    """One import of the module *name*, dotted and absolute; it begins with dots where they lead out of all packages.

    *names* are what is taken from it, each a submodule or something inside. A guarded one stands in a ``try`` that
    goes on without it.
    """

    name: str
    line: int
    guarded: bool = False
    names: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """*name*, and *name* with each of *names*."""
        return (self.name, *(f"{self.name}.{name}" for name in self.names if name != "*"))


def imports_of(tree: ast.Module, module: str, *, is_package: bool) -> list[Import]:
    """Every import in *tree*, in functions too, but for those that only a type checker sees."""
    package = module if is_package else module.rpartition(".")[0]
    return list(_walk(tree, package, guarded=False))


def _walk(node: ast.AST, package: str, *, guarded: bool) -> Iterator[Import]:
    match node:
        case ast.Import():
            for alias in node.names:
                yield Import(alias.name, node.lineno, guarded)
        case ast.ImportFrom():
            yield from _from(node, package, guarded)
        case ast.Call():
            yield from _called(node, guarded)
            yield from _below(node, package, guarded)
        case ast.Try() | ast.TryStar():
            caught = guarded or any(_goes_on(handler) for handler in node.handlers)
            for statement in node.body:
                yield from _walk(statement, package, guarded=caught)
            for part in (*node.handlers, *node.orelse, *node.finalbody):
                yield from _walk(part, package, guarded=guarded)
        case ast.If() if _is_type_checking(node.test):
            for statement in node.orelse:
                yield from _walk(statement, package, guarded=guarded)
        case _:
            yield from _below(node, package, guarded)


def _below(node: ast.AST, package: str, guarded: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, package, guarded=guarded)


def _from(node: ast.ImportFrom, package: str, guarded: bool) -> Iterator[Import]:
    names = tuple(alias.name for alias in node.names)
    if not node.level:
        yield Import(node.module or "", node.lineno, guarded, names)
        return
    # One dot is the package itself, each further one its parent.
    above = package.split(".") if package else []
    if node.level > len(above):
        yield Import("." * node.level + (node.module or ""), node.lineno, guarded, names)
        return
    base = above[: len(above) - node.level + 1]
    name = ".".join([*base, *([node.module] if node.module else [])])
    if name:
        yield Import(name, node.lineno, guarded, names)


def _called(node: ast.Call, guarded: bool) -> Iterator[Import]:
    """``importlib.import_module("x")`` and ``__import__("x")``."""
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if function in {"import_module", "__import__"} and len(node.args) == 1:
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str) and not name.value.startswith("."):
            yield Import(name.value, node.lineno, guarded)


def _goes_on(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or getattr(kind, "id", "") in _CATCH for kind in kinds)


def _is_type_checking(test: ast.expr) -> bool:
    return (test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")) == "TYPE_CHECKING"
