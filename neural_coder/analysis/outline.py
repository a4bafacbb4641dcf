"""What a file defines, imports and refers to, by name: all that a cheap look needs, without holding on to the tree."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from neural_coder.analysis import catalogue
from neural_coder.analysis.syntax import FunctionNode, Parsed, ScopeNode, dotted, statements
from neural_coder.analysis.usage import TELLING

IMMEDIATE = re.compile(
    r"\.(manual_)?backward\(|\.step\(|\bautograd\.grad\(|(Loader2?|create_loader|Iterator)\(|"
    r"\.cuda\b(?!\.)|[\"']cuda|[\"']gpu|pin_memory\s*=\s*True|\.pin_memory\(|\bcuda\.amp|GradScaler|"
    r"\bcuda\.(?!is_available|device_count|manual_seed|is_initialized|is_bf16_supported|empty_cache)[a-z]|"
    r"\.to\(\d|device\s*=\s*\d"
)
"""Text that makes a file worth the interpretation wherever it stands in the code: training, loaders, GPUs."""


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
    tables: dict[str, bool] = field(default_factory=dict)
    """Variables of the file's top level; True: nothing can be put in but what the file shows there."""


@dataclass(slots=True, eq=False)
class Piece:
    """What the code of one top-level definition (or of the other statements) refers to.

    Code that works inside of modules (their `forward` and the like) is left out: nothing there is a site.
    """

    references: set[str] = field(default_factory=set)
    """Dotted names that start with an imported name or a class of the file."""
    called: set[str] = field(default_factory=set)
    """Dotted names that are called with arguments, or whose methods for inference are."""
    tables: set[str] = field(default_factory=set)
    """Tables and namespaces out of which something is called: `MODELS[name](...)`, `getattr(networks, name)(...)`."""
    parameter_types: dict[str, set[str]] = field(default_factory=dict)
    """Parameters with the names in their annotations."""
    parameters: set[str] = field(default_factory=set)
    results: set[str] = field(default_factory=set)
    """Names and attributes that are bound to what a call gives."""
    stored: set[str] = field(default_factory=set)
    """Names that are assigned to something as they are."""
    telling: set[str] = field(default_factory=set)
    """What methods are called on that only modules have."""
    attribute_types: set[str] = field(default_factory=set)
    """Names in the annotations of attributes and variables."""
    bases: set[str] = field(default_factory=set)
    """Of classes that are no modules."""
    runs_itself: bool = False
    """A method of a module runs that very module."""


@dataclass(slots=True, eq=False)
class Outline:
    """One file."""

    names: Names
    pieces: dict[str, list[Piece]]
    """By the name of the top-level definition or variable; `""` for the other statements."""
    immediate: bool
    """The text alone asks for the interpretation."""


def names_of(parsed: Parsed) -> Names:
    """Note what a file binds; expressions are not entered."""
    found = Names()
    for node in statements(parsed.tree):
        if isinstance(node, ast.Import):
            _note_import(node, found)
        elif isinstance(node, ast.ImportFrom):
            _note_import_from(node, found)
        elif isinstance(node, ast.ClassDef):
            forward = any(isinstance(item, FunctionNode) and item.name == "forward" for item in node.body)
            bases = tuple(dotted(base) for base in node.bases)
            found.classes.setdefault(node.name, []).append(ClassOutline(node.name, bases, forward))
        elif isinstance(node, FunctionNode):
            found.functions.add(node.name)
    for statement in parsed.tree.body:
        for target in _targets(statement):
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


def _targets(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    target = getattr(statement, "target", None)
    return [target.id] if isinstance(target, ast.Name) else []


def outline_of(parsed: Parsed, names: Names, is_module: Callable[[ClassOutline], bool]) -> Outline:
    """Note what the code of a file refers to.

    Args:
        parsed: The file.
        names: What it binds.
        is_module: Whether a class of the file is a PyTorch module.
    """
    pieces: dict[str, list[Piece]] = {}
    for statement in parsed.tree.body:
        piece = _Reader(names, is_module).read([statement])
        keys = [statement.name] if isinstance(statement, FunctionNode | ast.ClassDef) else _targets(statement)
        for key in keys or [""]:
            pieces.setdefault(key, []).append(piece)
    return Outline(names, pieces, bool(IMMEDIATE.search(_code(parsed))))


def _code(parsed: Parsed) -> str:
    """A file's text without its docstrings, whose examples tell nothing about the file."""
    if not IMMEDIATE.search(parsed.source.text):
        return ""
    kept: list[str] = []
    start = 0
    for node in sorted(_docstrings(parsed.tree), key=lambda item: item.lineno):
        kept += parsed.lines[start : node.lineno - 1]
        start = node.end_lineno or node.lineno
    return "\n".join([*kept, *parsed.lines[start:]])


def _docstrings(tree: ast.Module) -> Iterable[ast.Expr]:
    for node in statements(tree):
        if isinstance(node, ast.Module | ScopeNode) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first


_LEAVES = frozenset({ast.Constant, ast.Pass, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal})
_TYPE_CHECKS = frozenset({"isinstance", "issubclass"})


class _Reader:
    """Reads a piece of code into a `Piece`."""

    def __init__(self, names: Names, is_module: Callable[[ClassOutline], bool]):
        self._names = names
        self._is_module = is_module
        self._piece = Piece()

    def read(self, nodes: Iterable[ast.AST]) -> Piece:
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            kind = node.__class__
            if kind in _LEAVES:
                continue
            entered = _ENTER.get(kind)
            if entered is None:
                waiting += _children(node)
            else:
                entered(self, node, waiting)
        return self._piece

    def _enter_name(self, node: ast.AST, waiting: list[ast.AST]) -> None:
        name = dotted(node)
        if name:
            root = name.partition(".")[0]
            if root in self._names.imports or root in self._names.classes:
                self._piece.references.add(sys.intern(name))
        else:
            waiting.append(node.value)  # type: ignore[attr-defined]

    def _enter_call(self, node: ast.Call, waiting: list[ast.AST]) -> None:
        callee = node.func
        given: list[ast.AST] = [*node.args, *(keyword.value for keyword in node.keywords)]
        name = dotted(callee)
        if name in _TYPE_CHECKS:
            waiting += given[:1]
            return
        waiting += given
        waiting.append(callee)
        if name and given:
            self._piece.called.add(sys.intern(name))
        if isinstance(callee, ast.Attribute):
            if callee.attr in TELLING:
                self._piece.telling.add(dotted(callee.value))
            if callee.attr in catalogue.INFERENCE_METHODS:
                self._piece.called.add(dotted(callee.value))
        elif not name:
            self._note_table(callee)

    def _note_table(self, callee: ast.expr) -> None:
        if isinstance(callee, ast.Subscript):
            self._piece.tables.add(dotted(callee.value))
        elif isinstance(callee, ast.Call) and dotted(callee.func) == "getattr" and len(callee.args) > 1:
            if not isinstance(callee.args[1], ast.Constant):
                self._piece.tables.add(dotted(callee.args[0]))

    def _enter_assign(self, node: ast.Assign, waiting: list[ast.AST]) -> None:
        if isinstance(node.value, ast.Name):
            self._piece.stored.add(node.value.id)
        elif isinstance(node.value, ast.Call):
            for target in node.targets:
                parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
                self._piece.results.update(dotted(part) for part in parts)
        waiting += [node.value, *node.targets]

    def _enter_annotated(self, node: ast.AnnAssign, waiting: list[ast.AST]) -> None:
        self._piece.attribute_types |= _type_names(node.annotation)
        if node.value is not None:
            waiting.append(node.value)
            if isinstance(node.value, ast.Call):
                self._piece.results.add(dotted(node.target))

    def _enter_parameter(self, node: ast.arg, waiting: list[ast.AST]) -> None:
        self._piece.parameters.add(node.arg)
        if node.annotation is not None:
            self._piece.parameter_types.setdefault(node.arg, set()).update(_type_names(node.annotation))

    def _enter_function(self, node: FunctionNode, waiting: list[ast.AST]) -> None:
        waiting += [node.args, *node.body, *node.decorator_list]

    def _enter_handler(self, node: ast.ExceptHandler, waiting: list[ast.AST]) -> None:
        waiting += node.body

    def _enter_class(self, node: ast.ClassDef, waiting: list[ast.AST]) -> None:
        if not any(self._is_module(item) for item in self._names.classes[node.name]):
            self._piece.bases.update(dotted(base) for base in node.bases)
            waiting += [*node.decorator_list, *node.body]
            return
        for item in node.body:
            if isinstance(item, ast.ClassDef):
                waiting.append(item)
            elif isinstance(item, FunctionNode):
                self._enter_method(item, node.name, waiting)

    def _enter_method(self, node: FunctionNode, owner: str, waiting: list[ast.AST]) -> None:
        """A method of a module: most of them work inside of it."""
        decorators = {dotted(decorator) for decorator in node.decorator_list}
        if node.name in catalogue.STEP_METHODS or decorators & {"classmethod", "staticmethod"}:
            waiting.append(node)
            first = node.args.args[0].arg if node.args.args else ""
            if "classmethod" in decorators and _calls(node, {first}):
                self._piece.references.add(owner)
        elif _calls(node, _own_calls(node) - {f"self.{name}" for name in self._names.functions}):
            self._piece.runs_itself = True


_ENTER: dict[type[ast.AST], Callable[..., None]] = {
    ast.Name: _Reader._enter_name,
    ast.Attribute: _Reader._enter_name,
    ast.Call: _Reader._enter_call,
    ast.Assign: _Reader._enter_assign,
    ast.AnnAssign: _Reader._enter_annotated,
    ast.arg: _Reader._enter_parameter,
    ast.FunctionDef: _Reader._enter_function,
    ast.AsyncFunctionDef: _Reader._enter_function,
    ast.ExceptHandler: _Reader._enter_handler,
    ast.ClassDef: _Reader._enter_class,
}


def _type_names(annotation: ast.expr) -> set[str]:
    if isinstance(annotation, ast.Constant):
        return set(re.findall(r"[A-Za-z_][\w.]*", annotation.value)) if isinstance(annotation.value, str) else set()
    return {dotted(part) for part in ast.walk(annotation) if isinstance(part, ast.Name | ast.Attribute)} - {""}


def _own_calls(method: FunctionNode) -> set[str]:
    """How a method of a module can run that module itself."""
    if method.name in {"forward", "__call__", "__init__"} or not method.args.args:
        return set()
    own = method.args.args[0].arg
    return {own, *(f"{own}.{name}" for name in ("forward", "__call__", *catalogue.INFERENCE_METHODS))}


def _calls(function: FunctionNode, names: set[str]) -> bool:
    """Whether one of the dotted names is called in a function; `super().forward(...)` is a call of the module itself."""
    if not names:
        return False
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            callee = node.func
            if dotted(callee) in names:
                return True
            if isinstance(callee, ast.Attribute) and callee.attr in {"forward", "__call__"}:
                return isinstance(callee.value, ast.Call) and dotted(callee.value.func) == "super"
    return False


def _children(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if value.__class__ is list:
            found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found
