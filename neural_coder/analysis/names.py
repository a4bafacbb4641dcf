"""What a file binds, by name: its imports, classes, functions and variables."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import NamedTuple

from neural_coder.analysis.syntax import FunctionNode, Parsed, base_name, dotted, statements


class Imported(NamedTuple):
    """What an import statement binds a name to."""

    module: str
    name: str
    """Empty for the module itself."""
    level: int


@dataclass(frozen=True, slots=True)
class ClassOutline:
    """A class by its names."""

    name: str
    bases: tuple[str, ...]
    """Dotted names; empty texts for expressions."""
    has_forward: bool


@dataclass(slots=True, eq=False)
class Names:
    """What a file binds, at any depth. A name that is bound several times keeps all that it may be."""

    imports: dict[str, list[Imported]] = field(default_factory=dict)
    stars: list[Imported] = field(default_factory=list)
    classes: dict[str, list[ClassOutline]] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    """Also methods."""
    assigned: set[str] = field(default_factory=set)
    """Names that are assigned somewhere, at any depth, or that are parameters; only noted where names may also come
    from `import *`."""
    tables: dict[str, bool] = field(default_factory=dict)
    """Variables of the file's top level; True: nothing can be put in but what the file shows there."""


def names_of(parsed: Parsed) -> Names:
    """Note what a file binds; expressions are not entered."""
    found = Names()
    for node in statements(parsed.tree):
        kind = node.__class__
        if kind is ast.Import:
            _note_import(node, found)  # type: ignore[arg-type]
        elif kind is ast.ImportFrom:
            _note_import_from(node, found)  # type: ignore[arg-type]
        elif kind is ast.FunctionDef or kind is ast.AsyncFunctionDef:
            found.functions.add(node.name)  # type: ignore[attr-defined]
        elif isinstance(node, ast.ClassDef):
            forward = any(isinstance(item, FunctionNode) and item.name == "forward" for item in node.body)
            bases = tuple(base_name(base) for base in node.bases)
            found.classes.setdefault(node.name, []).append(ClassOutline(node.name, bases, forward))
    if found.stars:
        found.assigned.update(name for node in statements(parsed.tree) for name in _assigned(node))
    for statement in parsed.tree.body:
        for target in targets(statement):
            closed = _is_closed(getattr(statement, "value", None), found)
            found.tables[target] = closed and found.tables.get(target, True)
    return found


def _is_closed(value: ast.expr | None, names: Names) -> bool:
    """Whether nothing can be in a table but what its own statement shows: a full dict, or an object of the project."""
    if isinstance(value, ast.Call):
        root = dotted(value.func).partition(".")[0]
        return root in names.classes or any(imported.level for imported in names.imports.get(root, ()))
    return isinstance(value, ast.Dict) and bool(value.keys)


def _note_import(node: ast.Import, found: Names) -> None:
    for alias in node.names:
        name = alias.name if alias.asname else alias.name.partition(".")[0]
        found.imports.setdefault(alias.asname or name, []).append(Imported(name, "", 0))


def _note_import_from(node: ast.ImportFrom, found: Names) -> None:
    module = node.module or ""
    for alias in node.names:
        imported = Imported(module, alias.name, node.level)
        if alias.name == "*":
            found.stars.append(imported)
        else:
            found.imports.setdefault(alias.asname or alias.name, []).append(imported)


def _assigned(node: ast.AST) -> set[str]:
    """Names that a statement (or handler) binds by itself, parameters among them."""
    if isinstance(node, FunctionNode):
        return {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
    bound = [*getattr(node, "targets", ()), getattr(node, "target", None)]
    bound += [item.optional_vars for item in getattr(node, "items", ())]
    names = {
        part.id for target in bound if target is not None for part in ast.walk(target) if isinstance(part, ast.Name)
    }
    return names | {node.name} if isinstance(node, ast.ExceptHandler) and node.name else names


def targets(statement: ast.stmt) -> list[str]:
    """Names that a statement assigns to as a whole."""
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    target = getattr(statement, "target", None)
    return [target.id] if isinstance(target, ast.Name) else []
