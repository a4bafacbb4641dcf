"""What the code of a file refers to, by name: all that a cheap look needs, without holding on to the tree."""

from __future__ import annotations

import ast
import builtins
import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields

from neural_coder.analysis.catalogue import Catalogue
from neural_coder.analysis.names import ClassOutline, Names, targets
from neural_coder.analysis.syntax import FunctionNode, Parsed, ScopeNode, base_name, children, dotted, statements
from neural_coder.analysis.usage import TELLING

IMMEDIATE = re.compile(
    r"(?<![\w.])exec\(|\.(manual_)?backward\(|\.step\(|\bautograd\.grad\(|(Loader2?|create_loader|Iterator)\(|"
    r"\.cuda\b(?!\.)|[\"']cuda|[\"']gpu|pin_memory\s*=\s*True|\.pin_memory\(|\bcuda\.amp|GradScaler|"
    r"\bcuda\.(?!is_available|device_count|manual_seed|is_initialized|is_bf16_supported|empty_cache)[a-z]"
)
"""Text that makes a file worth the interpretation wherever it stands in the code: training, loaders, GPUs."""
_IN_IMMEDIATE = (
    "exec(",
    "backward(",
    ".step(",
    "autograd.grad(",
    "Loader",
    "_loader(",
    "Iterator(",
    "GradScaler",
    "cuda",
    "gpu",
    "pin_memory",
)
"""What any match of that holds: looking for plain text is much faster."""
_DEVICE_NUMBER = (re.compile(r"to\(\d"), re.compile(r"device\s*=\s*\d"))
"""The same for GPUs that are named by their number; two patterns, as each alone begins with plain text to look for."""
_OWN_CALL = re.compile(r"self\.(\w+)\(")
_RUN = frozenset({"forward", "__call__"})
_NAMES = re.compile(r"[A-Za-z_][\w.]*")


_EMPTY: frozenset[str] = frozenset()
"""Stands for all sets of pieces in which there is nothing."""


@dataclass(slots=True, eq=False)
class Piece:
    """What the code of one statement of the top level, a function or class mostly, refers to.

    Code that works inside of modules (their `forward` and the like) is left out: nothing there is a site.
    """

    names: frozenset[str]
    """What the statement binds."""
    first_line: int
    last_line: int
    immediate: bool = False
    """The text alone asks for the interpretation."""
    has_calls: bool = False
    references: set[str] = field(default_factory=set)
    """Dotted names that start with an imported name or a class of the file."""
    called: set[str] = field(default_factory=set)
    """Dotted names that are called with arguments, or whose methods for inference are."""
    helpers: set[str] = field(default_factory=set)
    """Functions of the same file that are called."""
    tables: set[str] = field(default_factory=set)
    """Tables out of which something is called: `MODELS[name](...)`."""
    namespaces: set[str] = field(default_factory=set)
    """Objects whose attributes are called by computed names: `getattr(networks, name)(...)`."""
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

    def trim(self) -> None:
        """Let go of sets that stayed empty: a big library has 50,000 pieces, each with nearly all of its sets empty."""
        for each in fields(self):
            if getattr(self, each.name) == _EMPTY:
                setattr(self, each.name, _EMPTY)

    @property
    def bound(self) -> set[str]:
        """Names and attributes of which only their use can tell what they are."""
        return self.parameters | self.results


@dataclass(slots=True, eq=False)
class Outline:
    """What a cheap look keeps of a file. It serves every project in which the file has this text."""

    names: Names
    pieces: list[Piece] | None = None
    """None: not asked for yet."""
    modules: dict[ClassOutline, bool] = field(default_factory=dict)
    """Which of its classes were modules when the pieces were read; that depends on other files, too."""


def pieces_of(
    parsed: Parsed, names: Names, catalogue: Catalogue, is_module: Callable[[ClassOutline], bool]
) -> list[Piece]:
    """Note what the code of a file refers to, for each statement of its top level.

    Args:
        parsed: The file.
        names: What it binds.
        catalogue: What is known about libraries.
        is_module: Whether a class of the file is a PyTorch module.
    """
    running = functools.cache(lambda: _running_lines(parsed.source.text, catalogue))
    pieces = [_Reader(names, catalogue, is_module, statement, running).read() for statement in parsed.tree.body]
    immediate = _immediate_lines(parsed)
    for piece in pieces if immediate else ():
        piece.immediate = any(piece.first_line <= line <= piece.last_line for line in immediate)
    return pieces


def _running_lines(text: str, catalogue: Catalogue) -> list[int]:
    """Lines on which a method of a module may run that module: `self(x)`, `self.generate(x)`, `super().forward(x)`."""
    starts = [match.start() for match in _OWN_CALL.finditer(text) if match[1] in catalogue.methods or match[1] in _RUN]
    for part in ("self(", ").forward(", ").__call__("):
        starts += _places(part, text)
    return _lines_of(starts, text)


def _immediate_lines(parsed: Parsed) -> list[int]:
    """Lines whose text alone asks for the interpretation. Docstrings do not count: their examples tell nothing."""
    text = parsed.source.text
    suspects = {match.start() for part in _DEVICE_NUMBER for match in part.finditer(text)}
    for part in _IN_IMMEDIATE:
        suspects.update(_places(part, text))
    if not suspects:
        return []
    numbers = _lines_of(suspects, text)
    told = [number for number in numbers if _is_immediate(parsed.lines[number - 1])]
    if not told:
        return []
    skipped = {line for node in _docstrings(parsed.tree) for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    return [number for number in told if number not in skipped]


def _is_immediate(line: str) -> bool:
    return IMMEDIATE.search(line) is not None or any(part.search(line) for part in _DEVICE_NUMBER)


def _places(part: str, text: str) -> Iterator[int]:
    """Where a plain text is found in another."""
    place = text.find(part)
    while place >= 0:
        yield place
        place = text.find(part, place + 1)


def _lines_of(places: Iterable[int], text: str) -> list[int]:
    """The lines that places in a text are on, in order, as Python's tokenizer counts them."""
    lines: list[int] = []
    line, before = 1, 0
    for place in sorted(places):
        passed = text[before:place]
        line += passed.count("\n") + passed.count("\r") - passed.count("\r\n")
        before = place
        if not lines or lines[-1] != line:
            lines.append(line)
    return lines


def _docstrings(tree: ast.Module) -> Iterable[ast.Expr]:
    for node in statements(tree):
        if isinstance(node, ast.Module | ScopeNode) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first


_LEAVES = frozenset({ast.Constant, ast.Pass, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal})
_BUILTINS = frozenset(dir(builtins))
_TYPE_CHECKS = frozenset({"isinstance", "issubclass"})


class _Reader:
    """Reads a piece of code into a `Piece`."""

    def __init__(
        self,
        names: Names,
        catalogue: Catalogue,
        is_module: Callable[[ClassOutline], bool],
        statement: ast.stmt,
        running_lines: Callable[[], list[int]],
    ):
        self._names = names
        self._catalogue = catalogue
        self._running_lines = running_lines
        self._is_module = is_module
        self._statement = statement
        self._comprehended: set[str] = set()
        decorators = [item.lineno for item in getattr(statement, "decorator_list", ())]
        first = min([statement.lineno, *decorators])
        bound = [statement.name] if isinstance(statement, ScopeNode) else targets(statement)
        self._piece = Piece(frozenset(bound), first, statement.end_lineno or statement.lineno)

    def read(self) -> Piece:
        waiting: list[ast.AST] = [self._statement]
        while waiting:
            node = waiting.pop()
            kind = node.__class__
            if kind in _LEAVES:
                continue
            entered = _ENTER.get(kind)
            if entered is None:
                waiting += children(node)
            else:
                entered(self, node, waiting)
        if self._names.stars:
            own = (
                (self._piece.parameters | self._comprehended) - self._names.imports.keys() - self._names.classes.keys()
            )
            self._piece.references = {name for name in self._piece.references if name.partition(".")[0] not in own}
        self._piece.trim()
        return self._piece

    def _enter_name(self, node: ast.Name, waiting: list[ast.AST]) -> None:
        if self._may_refer(node.id):
            self._piece.references.add(node.id)

    def _may_refer(self, name: str) -> bool:
        """Whether a name may be that of something that is imported, or of a class of the file."""
        names = self._names
        if name in names.imports or name in names.classes:
            return True
        own = name in names.functions or name in names.assigned or name in _BUILTINS or name.startswith("__")
        return bool(names.stars) and not own

    def _enter_attribute(self, node: ast.Attribute, waiting: list[ast.AST]) -> None:
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name):
            waiting.append(root)
        elif self._may_refer(root.id):
            self._piece.references.add(sys.intern(dotted(node)))

    def _enter_call(self, node: ast.Call, waiting: list[ast.AST]) -> None:
        self._piece.has_calls = True
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
        if name in self._names.functions:
            self._piece.helpers.add(sys.intern(name))
        if isinstance(callee, ast.Attribute):
            if callee.attr in TELLING:
                self._piece.telling.add(dotted(callee.value))
            if callee.attr in self._catalogue.methods:
                self._piece.called.add(dotted(callee.value))
        elif not name:
            self._note_table(callee)

    def _note_table(self, callee: ast.expr) -> None:
        if isinstance(callee, ast.Subscript):
            name = dotted(callee.value)
            kept = self._piece.namespaces if name.endswith(".__dict__") else self._piece.tables
            kept.add(name.removesuffix(".__dict__"))
        elif isinstance(callee, ast.Call) and dotted(callee.func) == "getattr" and len(callee.args) > 1:
            self._piece.namespaces.add(dotted(callee.args[0]))

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

    def _enter_comprehension(self, node: ast.comprehension, waiting: list[ast.AST]) -> None:
        self._comprehended.update(part.id for part in ast.walk(node.target) if isinstance(part, ast.Name))
        waiting += [node.iter, *node.ifs]

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
            self._piece.bases.update(base_name(base) for base in node.bases)
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
        is_step = self._catalogue.is_step_method(node.name) or node.name in self._catalogue.training_methods
        if is_step or decorators & {"classmethod", "staticmethod"}:
            waiting.append(node)
            # What a trainer calls around the forward may call any part of the module, under any name.
            self._piece.runs_itself |= is_step and any(isinstance(part, ast.Call) for part in ast.walk(node))
            first = node.args.args[0].arg if node.args.args else ""
            if "classmethod" in decorators and _calls(node, {first}):
                self._piece.references.add(owner)
        elif self._may_run_itself(node):
            own = self._own_calls(node) - {f"self.{name}" for name in self._names.functions}
            self._piece.runs_itself |= _calls(node, own)

    def _may_run_itself(self, node: FunctionNode) -> bool:
        if not node.args.args or node.args.args[0].arg != "self":
            return True
        return any(node.lineno <= line <= (node.end_lineno or 0) for line in self._running_lines())

    def _own_calls(self, method: FunctionNode) -> set[str]:
        """How a method of a module can run that module itself."""
        if method.name in {"forward", "__call__", "__init__"} or not method.args.args:
            return set()
        own = method.args.args[0].arg
        return {own, *(f"{own}.{name}" for name in ("forward", "__call__", *self._catalogue.methods))}


_ENTER: dict[type[ast.AST], Callable[..., None]] = {
    ast.Name: _Reader._enter_name,
    ast.Attribute: _Reader._enter_attribute,
    ast.Call: _Reader._enter_call,
    ast.Assign: _Reader._enter_assign,
    ast.AnnAssign: _Reader._enter_annotated,
    ast.arg: _Reader._enter_parameter,
    ast.comprehension: _Reader._enter_comprehension,
    ast.FunctionDef: _Reader._enter_function,
    ast.AsyncFunctionDef: _Reader._enter_function,
    ast.ExceptHandler: _Reader._enter_handler,
    ast.ClassDef: _Reader._enter_class,
}


def _type_names(annotation: ast.expr) -> set[str]:
    if isinstance(annotation, ast.Constant):
        return set(_NAMES.findall(annotation.value)) if isinstance(annotation.value, str) else set()
    whole = dotted(annotation)
    if whole:
        return {whole}
    return {dotted(part) for part in ast.walk(annotation) if isinstance(part, ast.Name | ast.Attribute)} - {""}


def _calls(function: FunctionNode, names: set[str]) -> bool:
    """Whether one of the dotted names, or `super().forward`, is called in a function."""
    if not names:
        return False
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            callee = node.func
            if dotted(callee) in names:
                return True
            if not isinstance(callee, ast.Attribute) or callee.attr not in _RUN:
                continue
            if isinstance(callee.value, ast.Call) and dotted(callee.value.func) == "super":
                return True
    return False
