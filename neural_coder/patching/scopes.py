"""What a name means at a place of a file: which scope binds it, and whether that is an import and of what.

Python decides per function: a name bound anywhere in a function is local in all of it. So a name counts as an import
only when every binding in the scope that owns it is an import of the same thing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from neural_coder.patching.layout import Layout, fingerprint

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, *_COMPREHENSIONS)
_NAME = re.compile(r"Name\(id='(\w+)'\)")


@dataclass(frozen=True, slots=True)
class Binding:
    """One place that binds a name."""

    name: str
    node: ast.AST
    path: str = ""
    """Dotted name of what an import binds (`torch.nn` for `import torch.nn as nn`); empty for anything else."""
    loads: str = ""
    """The module that the import loads (`torch.nn` for `import torch.nn`, which binds `torch`)."""


@dataclass(slots=True)
class Scope:
    """A module, class, function, lambda or comprehension, and what it binds."""

    node: ast.AST
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    """Names declared `global` or `nonlocal` here."""
    to_module: set[str] = field(default_factory=set)
    """Names declared `global` here."""

    def add(self, binding: Binding) -> None:
        """Note a binding."""
        self.bindings.setdefault(binding.name, []).append(binding)


def dotted(path: str) -> ast.expr:
    """The expression for a dotted name."""
    return ast.parse(path, mode="eval").body


def dotted_name(node: ast.AST) -> str:
    """`a.b.c` for a name or a chain of attributes; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


class Scopes:
    """The scopes of a file."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.module = Scope(layout.tree)
        self._scopes: dict[ast.AST, Scope] = {layout.tree: self.module}
        self._paths: dict[tuple[ast.AST, str], str] = {}
        self.identifiers: set[str] = set()
        """Every name that the file uses anywhere."""
        nodes = list(ast.walk(layout.tree))
        for node in nodes:
            if isinstance(node, _SCOPES):
                self._scopes[node] = Scope(node)
        for node in nodes:
            if isinstance(node, ast.Global | ast.Nonlocal):
                scope = self._owner(node)
                scope.elsewhere.update(node.names)
                scope.to_module.update(node.names if isinstance(node, ast.Global) else ())
        for node in nodes:
            for binding in _bindings(node):
                self.identifiers.add(binding.name)
                self._bind(binding)
            if isinstance(node, ast.Name):
                self.identifiers.add(node.id)

    def _bind(self, binding: Binding) -> None:
        scope = self._owner(binding.node)
        if isinstance(self._layout.parent(binding.node), ast.NamedExpr):
            outer = self.visible(binding.node, inside_class=True)
            scope = next(found for found in outer if not isinstance(found.node, _COMPREHENSIONS))
        if binding.name in scope.to_module:
            self.module.add(binding)
        elif binding.name not in scope.elsewhere:
            scope.add(binding)

    def _owner(self, node: ast.AST) -> Scope:
        return next(self.visible(node, inside_class=True))

    def visible(self, node: ast.AST, *, inside_class: bool = False) -> Iterator[Scope]:
        """The scopes that a name at a place is looked up in, innermost first.

        Args:
            node: The place.
            inside_class: Also yield a class whose body holds the place only within a function.
        """
        child, in_function = node, False
        for outer in list(self._layout.around(node))[1:]:
            scope = self._scopes.get(outer)
            if scope is not None and _evaluated_inside(outer, child):
                if not (isinstance(outer, ast.ClassDef) and in_function and not inside_class):
                    yield scope
                in_function = in_function or isinstance(outer, (*_FUNCTIONS, *_COMPREHENSIONS))
            child = outer
        if isinstance(node, ast.Module):
            yield self.module

    def owner_of(self, name: str, place: ast.AST) -> Scope | None:
        """The scope whose binding a name has at a place; None for builtins and unknown names."""
        for scope in self.visible(place):
            if name in scope.to_module:
                return self.module if name in self.module.bindings else None
            if name in scope.bindings:
                return scope
        return None

    def path(self, name: str, place: ast.AST) -> str:
        """What a name was imported as; empty when it is no import, or not surely the one import."""
        owner = self.owner_of(name, place)
        if owner is None:
            return ""
        # Asked for every name of many statements, and a script may bind one name on each of its lines.
        if (owner.node, name) not in self._paths:
            paths = {binding.path for binding in owner.bindings[name] if not self.placeholder(binding)}
            self._paths[owner.node, name] = paths.pop() if len(paths) == 1 else ""
        return self._paths[owner.node, name]

    def placeholder(self, binding: Binding) -> bool:
        """Whether a binding is the `torch = None` of an import that failed."""
        statement = self._layout.statement_of(binding.node)
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Constant):
            return False
        return statement.value.value is None and isinstance(self._layout.parent(statement), ast.ExceptHandler)

    def canonical(self, node: ast.AST, place: ast.AST, keep: frozenset[str] = frozenset()) -> str:
        """The fingerprint of code whose imported names are written out in full.

        Args:
            node: The code.
            place: Where it stands, or will stand.
            keep: Names that are canonical already.
        """
        names = {found.id for found in ast.walk(node) if isinstance(found, ast.Name)} - keep
        paths = {name: path for name in names if (path := self.path(name, place))}
        result = fingerprint(node)
        for name, path in paths.items():
            if path != name:
                result = result.replace(
                    f"Name(id='{name}')", fingerprint(dotted(path)).replace("Name(id=", "Name(id= ")
                )
        return result.replace("Name(id= ", "Name(id=")

    def precedes(self, binding: Binding, place: ast.AST) -> bool:
        """Whether a binding has surely happened when a place of the same scope, or of a function in it, is reached."""
        statement = self._layout.statement_of(binding.node)
        ways = [self._layout.home(node) for node in self._layout.around(place) if isinstance(node, ast.stmt)]
        while True:
            home = self._layout.home(statement)
            if any(way.block is home.block and way.position > home.position for way in ways):
                return True
            # What a `try` or `with` begins with has happened when one gets behind it.
            if not isinstance(home.parent, ast.Try | ast.With) or home.block is not home.parent.body:
                return False
            statement = home.parent


def _evaluated_inside(outer: ast.AST, child: ast.AST) -> bool:
    """Whether a direct child of a scope's node belongs to the scope (decorators and defaults do not)."""
    if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return isinstance(child, ast.stmt | ast.arguments) and child not in getattr(outer, "decorator_list", ())
    return True


def _bindings(node: ast.AST) -> Iterator[Binding]:
    """The names that a node itself binds in the scope around it."""
    match node:
        case ast.Import():
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield Binding(bound, node, alias.name if alias.asname else bound, alias.name)
        case ast.ImportFrom():
            for alias in node.names:
                path = "" if node.level or not node.module else f"{node.module}.{alias.name}"
                yield Binding(alias.asname or alias.name, node, path, path)
        case ast.Name(ctx=ast.Store() | ast.Del()):
            yield Binding(node.id, node)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield Binding(node.name, node)
        case ast.arg():
            yield Binding(node.arg, node)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield Binding(name, node)
        case ast.MatchMapping(rest=str(name)):
            yield Binding(name, node)
