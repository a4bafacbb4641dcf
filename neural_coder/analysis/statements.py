"""Runs statements abstractly: branches are both taken, loops run twice, names keep what they may stand for."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from neural_coder.analysis.calling import Calling
from neural_coder.analysis.frames import Frame, Names, joined
from neural_coder.analysis.syntax import FunctionNode, dotted
from neural_coder.analysis.values import (
    UNKNOWN,
    Class,
    ClassInfo,
    Constant,
    FileModule,
    Function,
    Import,
    Instance,
    Object,
    Outside,
    Value,
    item_of,
    join,
    of,
    with_flows,
)

log = logging.getLogger(__name__)

MAX_NESTING = 220
_ENDS = frozenset({"exit", "quit", "sys.exit", "os._exit", "os.abort"})


class Statements(Calling):
    """The part of the interpreter that runs statements."""

    def run_block(self, block: list[ast.stmt], frame: Frame) -> bool:
        """Run statements; True when control never comes out at their end."""
        for statement in block:  # noqa: SIM110 (a generator for each block takes longer)
            if self.run_statement(statement, frame):
                return True
        return False

    def run_statement(self, node: ast.stmt, frame: Frame) -> bool:
        """Run one statement; True when control does not go on behind it."""
        kind = type(node)
        if kind not in self.runners:
            self.runners[kind] = getattr(self, f"_run_{kind.__name__}", None)
        runner = self.runners[kind]
        if runner is None:
            return False
        self.steps += 1
        frame.statement = node
        frame.read_objects = set()
        self.stack.append((frame.info.node if frame.info else frame.parsed.tree, node))
        self.nesting += 1
        try:
            return self.nesting < MAX_NESTING and bool(runner(node, frame))
        except RecursionError:
            log.debug("%s:%d not followed: it is nested too deeply", frame.parsed.path, node.lineno)
            return False
        finally:
            self.nesting -= 1
            self.stack.pop()

    # --- plain statements -------------------------------------------------------------------------------------------

    def _run_Expr(self, node: ast.Expr, frame: Frame) -> bool:
        self.evaluate(node.value, frame)
        return isinstance(node.value, ast.Call) and dotted(node.value.func) in _ENDS

    def _run_Assign(self, node: ast.Assign, frame: Frame) -> None:
        value = self.evaluate(node.value, frame)
        for target in node.targets:
            self.assign(target, value, frame, node, node.value)

    def _run_AnnAssign(self, node: ast.AnnAssign, frame: Frame) -> None:
        if node.value is not None:
            value = self.evaluate(node.value, frame)
            if isinstance(node.value, ast.Call):
                value = self.annotated(value, node.annotation, node.value, frame)
            self.assign(node.target, value, frame, node, node.value)
        elif isinstance(node.target, ast.Name):
            value = self.from_annotation(node.annotation, frame, node.target.id, node)
            if value is not UNKNOWN:
                frame.names.setdefault(node.target.id, value)

    def _run_AugAssign(self, node: ast.AugAssign, frame: Frame) -> None:
        target = self.evaluate(node.target, frame)
        # What its own calls gave in the last round of a loop is changed inside of a block that is put around it.
        own = set(ast.walk(node.value))
        self.note_change_in_place(frozenset(flow for flow in target.flows if flow.call not in own))
        self.note_update(target)
        value = join((target, self.evaluate(node.value, frame)))
        self.assign(node.target, value, frame, node, None)

    def _run_Return(self, node: ast.Return, frame: Frame) -> bool:
        frame.results.append(self.evaluate(node.value, frame) if node.value is not None else of(Constant(None)))
        return True

    def _run_Raise(self, node: ast.Raise, frame: Frame) -> bool:
        if node.exc is not None:
            self.evaluate(node.exc, frame)
        return True

    def _run_Delete(self, node: ast.Delete, frame: Frame) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                frame.names.pop(target.id, None)

    def _run_Assert(self, node: ast.Assert, frame: Frame) -> None:
        self.evaluate(node.test, frame)

    def _run_Global(self, node: ast.Global, frame: Frame) -> None:
        if frame.parent is not None:
            frame.outer.update(dict.fromkeys(node.names, frame.module))

    def _run_Nonlocal(self, node: ast.Nonlocal, frame: Frame) -> None:
        for name in node.names:
            holder = frame.parent
            while holder is not None and name not in holder.names:
                holder = holder.parent
            if holder is not None:
                frame.outer[name] = holder

    def _run_Break(self, node: ast.Break | ast.Continue, frame: Frame) -> bool:
        if frame.breaks:
            frame.breaks[-1].append(dict(frame.names))
        return True

    _run_Continue = _run_Break

    # --- branches and loops -----------------------------------------------------------------------------------------

    def _branches(self, frame: Frame, runs: Sequence[Callable[[], bool]]) -> bool:
        """Run alternatives from one state and join those that come out at their end."""
        start = frame.names
        ends: list[Names] = []
        for run in runs:
            frame.names = dict(start)
            if not run():
                ends.append(frame.names)
        frame.names = joined(*ends) if ends else start
        return not ends

    def _run_If(self, node: ast.If, frame: Frame) -> bool:
        self.evaluate(node.test, frame)
        if dotted(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            # Its imports are often circular; they are for annotations, which can wait until the file has run.
            frame.deferred.extend(node.body)
            return self.run_block(node.orelse, frame)
        if _is_main_guard(node.test):
            if frame.parsed.key in self.reported:
                return self.run_block(node.body, frame)
            return self.run_block(node.orelse, frame)
        return self._branches(
            frame, [lambda: self.run_block(node.body, frame), lambda: self.run_block(node.orelse, frame)]
        )

    def _run_For(self, node: ast.For | ast.AsyncFor, frame: Frame) -> None:
        kept, self.loaders_read = self.loaders_read, set()
        iterable = self.evaluate(node.iter, frame)
        loaders = self.built_for_loop(node, iterable, frame) | self.loaders_read
        self.loaders_read = kept
        item = self._iterate(iterable, frame)

        def body() -> None:
            self.assign(node.target, item, frame, node, None)
            self.run_block(node.body, frame)

        frame.loaders.append(loaders)
        try:
            self._loop(frame, body)
        finally:
            frame.loaders.pop()
        self.run_block(node.orelse, frame)

    _run_AsyncFor = _run_For

    def _run_While(self, node: ast.While, frame: Frame) -> None:
        def body() -> None:
            self.evaluate(node.test, frame)
            self.run_block(node.body, frame)

        self._loop(frame, body)
        self.run_block(node.orelse, frame)

    def _loop(self, frame: Frame, body: Callable[[], None]) -> None:
        """Run a loop's body until what it changes is known, at most twice."""
        frame.breaks.append([])
        loaders = frame.loaders[-1:]
        for _ in range(2):
            before = dict(frame.names)
            frame.loaders[-1:] = loaders  # without those that the pass before has read by `next`
            body()
            frame.names = joined(before, frame.names, *frame.breaks[-1])
            if frame.names == before or self.exhausted:
                break
        frame.breaks.pop()

    def _iterate(self, value: Value, frame: Frame) -> Value:
        """What one item of an iterable is; loops over project objects call their `__iter__` or `__next__`."""
        found = [self.iterate(value)]
        for thing in value.things:
            if isinstance(thing, Instance):
                for name in ("__iter__", "__next__", "__getitem__"):
                    method = self.member_of(thing, name)
                    if method is not None:
                        given = self.call_value(method, [UNKNOWN] * (name == "__getitem__"), {}, None, frame)
                        found.append(item_of(given) if name == "__iter__" else given)
        return join(found)

    def _run_With(self, node: ast.With | ast.AsyncWith, frame: Frame) -> bool:
        kept = self.grad, self.autocast
        for item in node.items:
            value = self.evaluate(item.context_expr, frame)
            self._enter(value, item.context_expr)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, value, frame, node, None)
        try:
            return self.run_block(node.body, frame)
        finally:
            self.grad, self.autocast = kept

    _run_AsyncWith = _run_With

    def _enter(self, value: Value, expression: ast.expr) -> None:
        """Take note of what a context manager does to gradients and precision."""
        for thing in value.things:
            if isinstance(thing, Object) and thing.kind in {"no_grad", "inference_mode", "autocast", "enable_grad"}:
                self.facts.contexts[expression] = thing.kind
                if thing.kind == "autocast":
                    self.autocast = True
                else:
                    self.grad = thing.kind == "enable_grad"

    def _run_Try(self, node: ast.Try, frame: Frame) -> bool:
        """Run a `try`: a handler may start from any state that the body went through."""
        start = dict(frame.names)
        ended = self.run_block(node.body, frame)
        after = frame.names
        middle = joined(start, after)
        ends: list[Names] = []
        if not ended and not self.run_block(node.orelse, frame):
            ends.append(frame.names)
        for handler in node.handlers:
            frame.names = dict(middle)
            if handler.name:
                frame.names[handler.name] = UNKNOWN
            if not self.run_block(handler.body, frame):
                ends.append(frame.names)
        frame.names = joined(*ends) if ends else middle
        return self.run_block(node.finalbody, frame) or not ends

    _run_TryStar = _run_Try

    def _run_Match(self, node: ast.Match, frame: Frame) -> bool:
        subject = self.evaluate(node.subject, frame)

        def case(item: ast.match_case) -> Callable[[], bool]:
            def run() -> bool:
                for part in ast.walk(item.pattern):
                    name = getattr(part, "name", None) or getattr(part, "rest", None)
                    if isinstance(name, str):
                        frame.names[name] = with_flows(UNKNOWN, subject.flows)
                if item.guard is not None:
                    self.evaluate(item.guard, frame)
                return self.run_block(item.body, frame)

            return run

        return self._branches(frame, [*(case(item) for item in node.cases), lambda: False])

    # --- definitions and imports ------------------------------------------------------------------------------------

    def _run_FunctionDef(self, node: FunctionNode, frame: Frame) -> None:
        frame.names[node.name] = self.define(node, frame)

    _run_AsyncFunctionDef = _run_FunctionDef

    def _run_ClassDef(self, node: ast.ClassDef, frame: Frame) -> None:
        decorators = [self.evaluate(decorator, frame) for decorator in node.decorator_list]
        bases = [self._base(base, frame) for base in node.bases]
        info = self.classes.get(node)
        if info is None:
            info = self.classes[node] = ClassInfo(frame.parsed, node)
        info.bases[:] = bases
        parent = frame if frame.class_info is None else frame.parent
        body = Frame(parsed=frame.parsed, parent=parent, info=frame.info, class_info=info, self_thing=frame.self_thing)
        frame.names[node.name] = of(Class(info))
        self.run_block(node.body, body)
        info.members.update(body.names)
        for decorator in decorators:
            if any(isinstance(thing, Function) for thing in decorator.things):
                self.call_value(decorator, [of(Class(info))], {}, None, frame)

    def _base(self, node: ast.expr, frame: Frame) -> Value:
        """A base class; `Net[int]` is `Net`, but `TABLE["net"]` is what the table holds."""
        if isinstance(node, ast.Subscript):
            value = self._base(node.value, frame)
            if any(isinstance(thing, Class | Outside) for thing in value.things):
                return value
        return self.evaluate(node, frame)

    def _run_Import(self, node: ast.Import, frame: Frame) -> None:
        for alias in node.names:
            if alias.asname:
                frame.names[alias.asname] = self.module(alias.name, 0, frame)
            else:
                top = alias.name.partition(".")[0]
                frame.names[top] = self.module(top, 0, frame)
                self._load_parents(alias.name, frame)

    def _load_parents(self, name: str, frame: Frame) -> None:
        """`import a.b` makes `b` an attribute of `a`; only project packages need telling."""
        parts = name.split(".")
        for index in range(1, len(parts)):
            child = self.module(".".join(parts[: index + 1]), 0, frame)
            for thing in self.module(".".join(parts[:index]), 0, frame).things:
                if isinstance(thing, FileModule) and thing.path.suffix == ".py":
                    self.module_frame(thing.path).names.setdefault(parts[index], child)

    def module(self, name: str, level: int, frame: Frame) -> Value:
        """What importing a module gives."""
        path = self.project.find_module(name, frame.parsed.path, self.script_folder, level)
        if path is not None:
            if frame.statement is not None:
                self.facts.imports.setdefault(frame.statement, path)
            return of(FileModule(path))
        return UNKNOWN if level else of(Outside(name))

    def _run_ImportFrom(self, node: ast.ImportFrom, frame: Frame) -> None:
        module = self.module(node.module or "", node.level, frame)
        for alias in node.names:
            if alias.name == "*":
                self._import_all(module, frame)
                continue
            value = self._imported(module, node, alias.name, frame)
            known = frame.names.get(alias.asname or alias.name)
            # `try: from a import f / except ImportError: from b import f`: the branches join by themselves.
            frame.names[alias.asname or alias.name] = value if value.things or known is None else known

    def _imported(self, module: Value, node: ast.ImportFrom, name: str, frame: Frame) -> Value:
        for thing in module.things:
            if not isinstance(thing, FileModule):
                return self.attribute(module, name, frame)
            if thing.path == frame.parsed.key or thing.path.suffix != ".py":
                full = f"{node.module}.{name}" if node.module else name
                return self.module(full, node.level, frame) if self._is_submodule(thing.path, name) else UNKNOWN
            if self.eager:
                self.module_frame(thing.path)
            return (
                self.resolve(of(Import(thing.path, name)))
                if thing.path in self.modules
                else of(Import(thing.path, name))
            )
        return UNKNOWN

    def _is_submodule(self, path: Path, name: str) -> bool:
        folder = path if path.suffix != ".py" else path.parent
        return self.project.exists(folder / f"{name}.py") or self.project.has_folder(folder / name)

    def _import_all(self, module: Value, frame: Frame) -> None:
        for thing in module.things:
            if isinstance(thing, FileModule) and thing.path.suffix == ".py":
                if not self.eager and thing.path not in self.modules:
                    frame.module.star_files.append(thing.path)
                    continue
                imported = self.module_frame(thing.path)
                names = {name: value for name, value in imported.names.items() if not name.startswith("_")}
                frame.names.update(names)
                frame.module.star_imports.extend(imported.star_imports)
                frame.module.star_files.extend(imported.star_files)
            elif isinstance(thing, Outside):
                frame.module.star_imports.append(thing.name)


def _is_main_guard(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and len(test.comparators) == 1
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value == "__main__"
        and isinstance(test.ops[0], ast.Eq)
    )
