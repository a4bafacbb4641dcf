"""Runs files abstractly: each as a script would run, then what nothing in the project calls."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path

from neural_coder.analysis.facts import Facts
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.glance import Glance
from neural_coder.analysis.project import Project
from neural_coder.analysis.statements import Statements
from neural_coder.analysis.syntax import FunctionNode, Parsed
from neural_coder.analysis.usage import is_training_method
from neural_coder.analysis.values import Function, Thing, all_flows
from neural_coder.parsing import deep_recursion

_SKIPPED_IN_MODULES = frozenset({"forward", "__init__", "__repr__", "extra_repr", "reset_parameters", "init_weights"})


class Interpreter(Statements):
    """One interpretation of a script and the files that are reported with it."""


@contextlib.contextmanager
def interpreted(project: Project, glance: Glance, script: Path, files: tuple[Path, ...]) -> Iterator[Facts]:
    """Interpret files of a project.

    Args:
        project: The project.
        glance: What a cheap look tells about its files.
        script: The file that starts the program.
        files: The files whose sites are wanted.

    Yields:
        Everything that was noted, also about other files that were met. What it says about values holds no longer than
        the `with` block.
    """
    machine = Interpreter(project, glance, script, frozenset(path.resolve() for path in files))
    try:
        with deep_recursion():
            frames = [machine.module_frame(path) for path in files]
            for frame in frames:
                _run_the_rest(machine, frame.parsed)
        machine.facts.files = {path: frame.parsed for path, frame in machine.modules.items()}
        yield machine.facts
    finally:
        machine.take_apart()


def _run_the_rest(machine: Interpreter, parsed: Parsed) -> None:
    """Run the functions and methods of a file that nothing has called, until none is left."""
    worth = None if machine.eager else machine.glance.lines_worth_running(parsed.path)
    seen: set[ast.AST] = set()
    while True:
        waiting = [
            node
            for node, info in machine.functions.items()
            if info.parsed is parsed
            and node not in machine.called
            and node not in seen
            and (worth is None or any(first <= node.lineno <= last for first, last in worth))
        ]
        if not waiting:
            return
        # Constructors first: the other methods need what they put on `self`.
        waiting.sort(key=lambda node: (getattr(node, "name", "") != "__init__", node.lineno))
        for node in waiting:
            if node not in machine.called:
                seen.add(node)
                _run_alone(machine, node)
            seen.add(node)


def _run_alone(machine: Interpreter, node: FunctionNode | ast.Lambda) -> None:
    name = getattr(node, "name", "")
    info = machine.functions[node]
    bound: Thing | None = None
    if info.owner is not None and info.kind in {"method", "property"}:
        evidence = machine.module_evidence(info.owner)
        skipped = name in _SKIPPED_IN_MODULES and name != "__init__" and not is_training_method(node, machine.catalogue)
        if evidence is not None and skipped:
            return
        bound = machine.self_of(info.owner)
    kept = machine.grad, machine.autocast, machine.stack, machine.model_calls
    machine.grad, machine.autocast, machine.stack, machine.model_calls = True, False, [], []
    frame = Frame(parsed=info.parsed, parent=info.closure)
    given = machine.run_function(Function(info, bound), [], {}, None, frame)
    if machine.catalogue.gives_loss(name):
        for flow in all_flows(given):
            machine.mark_training(flow)
    machine.grad, machine.autocast, machine.stack, machine.model_calls = kept
