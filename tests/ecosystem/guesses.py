"""Facts made up from how a file looks, to exercise every transform on files that hold no model at all.

A guess is drawn once from a file: the calls of some names are inference calls, the assignments of others build models,
and so on. It goes by names alone, so it finds the same places again in the patched file.
"""

from __future__ import annotations

import ast
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from neural_coder.analysis import catalogue
from neural_coder.analysis.calls import why_not_wrappable
from neural_coder.analysis.facts import Facts
from neural_coder.analysis.syntax import Parsed, dotted, has_suspension, walk_scope
from neural_coder.records import (
    Analysis,
    Call,
    DataLoader,
    DeviceUse,
    Evidence,
    Model,
    Optimizer,
    TrainingCall,
    TrainingStep,
)
from neural_coder.source import Source

SITES = 6
"""About how many places of each kind a guess picks in a file."""
EVIDENCE = Evidence(known_by="name", confidence=0.5, note="made up")
INSERTED = frozenset({"accelerate", "autocast", "compile", "GradScaler", "inference_mode", "no_grad", "optimize", "to"})
"""Callees that transforms put in; a guess never picks them, or the patched file would hold more sites."""
WRAPPERS = frozenset({"autocast", "inference_mode", "no_grad"})
LAYERS = (None, frozenset({"Conv2d", "Linear"}), frozenset({"LSTM"}))
METHODS = ("cuda_method", "pin_memory", "cuda_call")


def tail(node: ast.AST) -> str:
    """The last name of a callee: `c` of `a.b.c(...)`; empty for anything else than a call of a name."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", "") or getattr(node.func, "id", "")


def number(*words: str) -> int:
    """A number that is the same on every machine for the same words."""
    return zlib.crc32("\0".join(words).encode(errors="backslashreplace"))


@dataclass(frozen=True, slots=True)
class Guess:
    """Which names stand for what in one file."""

    models: frozenset[str]
    calls: frozenset[str]
    steps: frozenset[str]
    loaders: frozenset[str]
    optimizers: frozenset[str]
    contexts: frozenset[str]
    devices: frozenset[str]
    strings: frozenset[str]

    @classmethod
    def of(cls, source: Source, salt: str = "") -> Guess:
        """Draw a guess from a file.

        Raises:
            UserError: The file has a syntax error.
        """
        found = Nodes(Parsed(source))
        calls = Counter(name for node in found.calls if (name := tail(node)) and name not in INSERTED)
        built = Counter(tail(node.value) for node in found.bindings if node.value is not None)
        contexts = Counter(tail(node) for node in found.contexts)
        methods = Counter(tail(node) for node in found.calls if isinstance(node.func, ast.Attribute))
        texts = Counter(node.value for node in found.strings)

        def draw(kind: str, names: Counter[str]) -> frozenset[str]:
            return _draw(f"{salt}:{kind}", names)

        return cls(
            models=draw("models", built),
            calls=draw("calls", calls),
            steps=draw("steps", calls),
            loaders=draw("loaders", calls),
            optimizers=draw("optimizers", calls),
            contexts=draw("contexts", contexts),
            devices=draw("devices", methods),
            strings=draw("strings", texts),
        )

    def facts(self, source: Source) -> Analysis:
        """What the guess says about the file, or about a patched version of it.

        Raises:
            UserError: The file has a syntax error.
        """
        return _Finder(self, Nodes(Parsed(source))).analysis()


def _draw(salt: str, names: Counter[str]) -> frozenset[str]:
    """Some names that together occur about as often as places are wanted."""
    chosen: set[str] = set()
    places = 0
    for name in sorted(names.keys() - INSERTED - {""}, key=lambda name: (number(salt, name), name)):
        if places + names[name] <= SITES or not chosen:
            chosen.add(name)
            places += names[name]
    return frozenset(chosen)


class Nodes:
    """The nodes of a file that a guess may pick; those inside f-strings have no place before Python 3.12."""

    def __init__(self, parsed: Parsed) -> None:
        self.parsed = parsed
        hidden = {
            id(part) for node in ast.walk(parsed.tree) if isinstance(node, ast.JoinedStr) for part in _below(node)
        }
        nodes = [node for node in ast.walk(parsed.tree) if id(node) not in hidden]
        self.calls = [node for node in nodes if isinstance(node, ast.Call)]
        self.bindings = [node for node in nodes if isinstance(node, ast.Assign | ast.AnnAssign)]
        self.contexts = [node for node in nodes if self._is_context(node)]
        self.strings = [node for node in nodes if self._is_plain_string(node)]

    def _is_context(self, node: ast.AST) -> bool:
        parent = self.parsed.parents.get(node)
        if isinstance(parent, ast.withitem):
            return node is parent.context_expr
        return node in getattr(parent, "decorator_list", ())

    def _is_plain_string(self, node: ast.AST) -> bool:
        """A string that is an expression of its own: no docstring, no pattern, not part of an f-string."""
        outside = (ast.Expr, ast.MatchValue, ast.MatchMapping, ast.JoinedStr)
        is_string = isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != "cpu"
        return is_string and not isinstance(self.parsed.parents.get(node), outside)


def _below(node: ast.AST) -> Iterator[ast.AST]:
    return (part for part in ast.walk(node) if part is not node)


class _Finder:
    """Turns a guess into the records of one text."""

    def __init__(self, guess: Guess, nodes: Nodes) -> None:
        self.guess = guess
        self.nodes = nodes
        self.parsed = nodes.parsed
        self.compiled = {
            dotted(node.func.value)
            for node in nodes.calls
            if isinstance(node.func, ast.Attribute) and node.func.attr == "compile"
        }
        self.ready: set[ast.stmt] = set()
        """Statements that build a model, or behind which one is ready: what runs a model stands elsewhere."""

    def analysis(self) -> Analysis:
        models = tuple(self._models())
        inference = tuple(self._inference())
        return Analysis(
            path=self.parsed.path,
            models=models,
            inference=inference,
            steps=tuple(self._steps()),
            dataloaders=tuple(self._loaders()),
            optimizers=tuple(self._optimizers()),
            devices=self._outermost(),
        )

    # --- models -----------------------------------------------------------------------------------------------------

    def _models(self) -> Iterator[Model]:
        for node in self.nodes.bindings:
            if tail(node.value or node) not in self.guess.models:
                continue
            names = [dotted(target) for target in _targets(node)]
            ready = self._ready(node, names[0] if names else "")
            self.ready.update((node, ready))
            for name in names[:1]:
                draw = number("model", name)
                yield Model(
                    name=name,
                    line=node.lineno,
                    statement=self.parsed.span(node),
                    scope=self.parsed.scope(node),
                    qualified_name="",
                    library="project",
                    kind="pipeline" if draw % 5 == 0 else "module",
                    ready=self.parsed.span(ready),
                    layers=LAYERS[draw % 3],
                    trained=draw % 7 == 0,
                    inferred=True,
                    traits=frozenset({"compile"} if name in self.compiled else ()),
                    evidence=EVIDENCE,
                )

    def _ready(self, node: ast.stmt, name: str) -> ast.stmt:
        """The statement that binds the model, or one of the next two in its block that keep it bound."""
        block = self._flat(node)
        index = block.index(node)
        behind = block[index : index + 1 + number("ready", name) % 3]
        for position, statement in enumerate(behind):
            if any(name in _deleted(part) for part in (statement, *walk_scope(statement))):
                return behind[max(position - 1, 0)]
        return behind[-1]

    def _flat(self, statement: ast.stmt) -> list[ast.stmt]:
        """The block of a statement as it was before a patch: no blocks or statements of ours."""
        outer = statement
        while self._is_ours(parent := self.parsed.parents[outer]):
            assert isinstance(parent, ast.stmt)
            outer = parent
        return list(self._flattened(self.parsed.block(outer)[0]))

    def _flattened(self, block: list[ast.stmt]) -> Iterator[ast.stmt]:
        for statement in block:
            if isinstance(statement, ast.With) and self._is_ours(statement):
                yield from self._flattened(statement.body)
            elif not is_inserted(statement):
                yield statement

    def _is_ours(self, node: ast.AST) -> bool:
        """Whether a block is, or may become, one that transforms put around statements."""
        names = WRAPPERS | self.guess.contexts
        return isinstance(node, ast.With) and all(
            tail(item.context_expr) in names and item.optional_vars is None for item in node.items
        )

    # --- calls ------------------------------------------------------------------------------------------------------

    def _inference(self) -> Iterator[Call]:
        for node in self.nodes.calls:
            if tail(node) in self.guess.calls and self.parsed.statement(node) not in self.ready:
                yield self._call(node)

    def _call(self, node: ast.Call) -> Call:
        statement = self.parsed.statement(node)
        obstacle = why_not_wrappable(Facts(catalogue.builtin()), self.parsed, node, statement)
        around = self._context(node)
        mode = "enabled" if around is None else "inference_mode" if tail(around) == "inference_mode" else "no_grad"
        return Call(
            kind="inference",
            callee=self.parsed.text(node.func),
            line=node.lineno,
            call=self.parsed.span(node),
            statement=self.parsed.span(statement),
            scope=self.parsed.scope(node),
            model=None,
            wrappable=not obstacle,
            why_not_wrappable=obstacle,
            grad_mode=mode,
            grad_mode_at=self.parsed.span(around) if around is not None else None,
            changed_in_place=around is None and number("in place", tail(node)) % 4 == 0,
            evidence=EVIDENCE,
        )

    def _context(self, node: ast.AST) -> ast.expr | None:
        """The nearest context manager or decorator around a node that the guess takes for `torch.no_grad()`."""
        child = node
        for parent in self.parsed.ancestors(node):
            found: list[ast.expr] = []
            if isinstance(parent, ast.With | ast.AsyncWith) and child in parent.body:
                found = [item.context_expr for item in parent.items]
            elif isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef) and child in parent.body:
                found = list(parent.decorator_list)
            for expression in reversed(found):
                if tail(expression) == "inference_mode" or self._is_switch(expression):
                    return expression
            child = parent
        return None

    # --- training ---------------------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[TrainingStep]:
        for node in self.nodes.calls:
            if tail(node) not in self.guess.steps:
                continue
            call = self._call(node)
            run = self._run(self.parsed.statement(node), tail(node)) if call.wrappable else []
            if not run:
                continue
            backward = TrainingCall(
                kind="backward", callee=call.callee, line=call.line, call=call.call, scope=call.scope, evidence=EVIDENCE
            )
            yield TrainingStep(
                forwards=(call,),
                backward=backward,
                optimizer_step=None,
                scope=call.scope,
                forward_and_loss=self.parsed.span_of_run(run[0], run[-1]),
            )

    def _run(self, first: ast.stmt, name: str) -> list[ast.stmt]:
        """The statement of a forward and up to two more, as far as a `with` block may be put around them."""
        block = self._flat(first)
        index = block.index(first) if first in block else len(block)
        run: list[ast.stmt] = []
        for statement in block[index : index + 1 + number("run", name) % 3]:
            returns = any(isinstance(part, ast.Return) for part in (statement, *walk_scope(statement)))
            if returns or has_suspension(statement) or statement in self.ready:
                break
            run.append(statement)
        return self._lifted(run)

    def _lifted(self, run: list[ast.stmt]) -> list[ast.stmt]:
        """Blocks of ours in the place of what they hold, so that all stand in one block."""
        while len({id(self.parsed.block(statement)[0]) for statement in run}) > 1:
            deepest = max(run, key=lambda statement: len(list(self.parsed.ancestors(statement))))
            parent = self.parsed.parents[deepest]
            assert isinstance(parent, ast.stmt)
            held = [statement for statement in run if self.parsed.parents[statement] is parent]
            run = [statement for statement in run if statement not in held[1:]]
            run[run.index(held[0])] = parent
        return run

    # --- arguments and expressions ----------------------------------------------------------------------------------

    def _loaders(self) -> Iterator[DataLoader]:
        for node in self.nodes.calls:
            if tail(node) in self.guess.loaders:
                yield DataLoader(
                    name="loader",
                    line=node.lineno,
                    statement=self.parsed.span(self.parsed.statement(node)),
                    call=self.parsed.span(node),
                    scope=self.parsed.scope(node),
                    qualified_name="torch.utils.data.DataLoader",
                    arguments=self.parsed.arguments(node),
                    used_for=frozenset({"inference"}),
                    evidence=EVIDENCE,
                )

    def _optimizers(self) -> Iterator[Optimizer]:
        for node in self.nodes.calls:
            if tail(node) in self.guess.optimizers:
                yield Optimizer(
                    name="optimizer",
                    line=node.lineno,
                    call=self.parsed.span(node),
                    statement=self.parsed.span(self.parsed.statement(node)),
                    scope=self.parsed.scope(node),
                    qualified_name="torch.optim.SGD",
                    arguments=self.parsed.arguments(node),
                    evidence=EVIDENCE,
                )

    def _outermost(self) -> tuple[DeviceUse, ...]:
        """The uses of devices; one that stands inside an autocast goes with it."""
        autocasts = list(self._autocasts())
        known = [*(use.expression for use in autocasts), *map(self.parsed.span, self._inserted_autocasts())]
        others = (use for use in self._devices() if not any(span.contains(use.expression) for span in known))
        return tuple({use.expression: use for use in [*autocasts, *others]}.values())

    def _inserted_autocasts(self) -> Iterator[ast.expr]:
        return (item for item in self.nodes.contexts if tail(item) == "autocast")

    def _devices(self) -> Iterator[DeviceUse]:
        for text in self.nodes.strings:
            if text.value in self.guess.strings:
                yield self._device("device", text)
        for node in self.nodes.calls:
            if tail(node) in self.guess.devices and isinstance(node.func, ast.Attribute) and not self._holds_site(node):
                kind = METHODS[number("device", node.func.attr) % 3]
                yield self._device(kind, node, None if kind == "cuda_call" else node.func.value)

    def _autocasts(self) -> Iterator[DeviceUse]:
        for item in self.nodes.contexts:
            if self._is_switch(item):
                yield self._device("autocast", item)

    def _is_switch(self, node: ast.AST) -> bool:
        """Whether a context manager or decorator stands for one that transforms replace."""
        return tail(node) in self.guess.contexts and not self._holds_site(node)

    def _holds_site(self, node: ast.AST) -> bool:
        """Whether a call is, or holds, a site of another kind: the patched file would lack that one."""
        guess = self.guess
        sites = guess.models | guess.calls | guess.steps | guess.loaders | guess.optimizers
        return any(tail(part) in sites for part in ast.walk(node))

    def _device(self, kind: object, node: ast.expr, receiver: ast.expr | None = None) -> DeviceUse:
        binds = any(isinstance(part, ast.NamedExpr) for part in ast.walk(node))
        return DeviceUse(
            kind=kind,  # type: ignore[arg-type]
            line=node.lineno,
            expression=self.parsed.span(node),
            text=self.parsed.text(node),
            receiver=self.parsed.span(receiver) if receiver is not None else None,
            is_statement=isinstance(self.parsed.parents.get(node), ast.Expr) and not binds,
            evidence=EVIDENCE,
        )


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    """The targets that are plain or dotted names."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target for target in targets if dotted(target)]


def _deleted(node: ast.AST) -> set[str]:
    return {dotted(target) for target in node.targets} if isinstance(node, ast.Delete) else set()


def is_inserted(statement: ast.stmt) -> bool:
    """Whether a statement is one that a transform puts behind a model or its optimizer."""
    match statement:
        case ast.Assign(value=ast.Call() as call):
            keywords = {keyword.arg for keyword in call.keywords}
            needed = {"accelerate": "engine", "to": "memory_format", "optimize": "optimizer"}.get(tail(call), "")
            return needed in keywords
        case ast.Expr(value=ast.Call() as call):
            return tail(call) == "compile"
    return False
