"""Reads the reference documents: their Python blocks, and what each leaves open."""

from __future__ import annotations

import ast
import builtins
import os
import re
import symtable
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def folder() -> Path:
    """Where the documents are: beside the checkout, or where ``BAKEHOUSE_REFERENCE`` says."""
    return Path(os.environ.get("BAKEHOUSE_REFERENCE") or ROOT.parent / "shared" / "reference")


@dataclass(frozen=True)
class Block:
    """One block. ``name`` is the document's number and the heading above it, such as ``2 Basic Streaming``."""

    name: str
    source: str
    line: int

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    def open_names(self) -> set[str]:
        """Names that the block uses and never defines."""
        table = symtable.symtable(self.source, self.name, "exec")
        defined = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
        used = {
            symbol.get_name() for scope in _scopes(table) for symbol in scope.get_symbols() if _is_global(scope, symbol)
        }
        return used - defined - set(dir(builtins))

    def strings(self) -> set[str]:
        """All string literals of the block."""
        return {
            node.value for node in ast.walk(self.tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }

    def code(self, literals: Mapping[str, str]) -> CodeType:
        """The block compiled, with whole string literals replaced as *literals* says; all else is untouched."""
        tree = _Replace(literals).visit(self.tree)
        return compile(ast.fix_missing_locations(tree), f"<{self.name}>", "exec")


class _Replace(ast.NodeTransformer):
    def __init__(self, literals: Mapping[str, str]) -> None:
        self._literals = literals

    def visit_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, str) and node.value in self._literals:
            return ast.copy_location(ast.Constant(self._literals[node.value]), node)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> Any:
        """The text of an f-string is no literal of its own; what stands in its braces may hold some."""
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part)
        return node


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _scopes(child)


def _is_global(scope: symtable.SymbolTable, symbol: symtable.Symbol) -> bool:
    return symbol.is_referenced() and (scope.get_type() == "module" or symbol.is_global())


def blocks(path: Path, language: str = "python") -> list[Block]:
    """The blocks of the document at *path* in *language*; several below one heading are numbered."""
    found: list[Block] = []
    heading, lines, start = "", [], 0
    inside: str | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"```(\w*)\s*$", line)
        if inside is None and fence:
            inside, lines, start = fence[1], [], number + 1
        elif inside is not None and fence:
            if inside == language:
                found.append(Block(_name(path, heading, found), "\n".join(lines) + "\n", start))
            inside = None
        elif inside is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    return found


def _name(path: Path, heading: str, found: list[Block]) -> str:
    name = f"{path.name.split('-')[0]} {heading}"
    again = sum(block.name.split(" #")[0] == name for block in found)
    return f"{name} #{again + 1}" if again else name
