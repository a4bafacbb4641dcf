"""What an edit asks for may be there already: by the user, or by an earlier patch. Then it is dropped."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from neural_coder.patching.layout import COMPOUND, Layout, fingerprint
from neural_coder.patching.requests import Request
from neural_coder.patching.scopes import Scopes, dotted

_ACCELERATE = frozenset(
    fingerprint(dotted(name)) for name in ("neural_coder.runtime.accelerate", "neural_coder_runtime.accelerate")
)
"""The call, of the runtime as installed and of a copy that `--vendor` has put beside the script."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Presence:
    """Answers whether code is in a file already, however the file spells its imports."""

    def __init__(self, layout: Layout, scopes: Scopes) -> None:
        self._layout = layout
        self._scopes = scopes
        self._written: dict[ast.stmt, str] = {}
        self._accelerated: dict[ast.stmt, frozenset[str]] = {}

    def inserted(self, request: Request, target: ast.stmt) -> bool:
        """Whether the statements to insert stand next to the target already.

        They count where they are the target itself, or in the run of simple statements behind it, or in the run of
        simple statements before it that all mention what they are about (an analysis takes the last of several
        inserted lines for the place where the model is ready).
        """
        assert isinstance(request.tree, ast.Module), "insertions hold statements"
        subject = _subject(request.tree.body[0]) if request.tree.body else ""
        near = list(self._near(target, subject))
        if request.accelerates:
            model = fingerprint(dotted(request.accelerates))
            if any(model in self._accelerates(statement) for statement in near):
                return True
        known = {self._canonical(statement) for statement in near}
        keep = _roots(request)
        return all(self._scopes.canonical(statement, target, keep) in known for statement in request.tree.body)

    def wrapped(self, request: Request, statement: ast.stmt) -> bool:
        """Whether a `with` of the same item is around a statement, in the same function."""
        wanted = self.item(request, statement)
        for node in list(self._layout.around(statement))[1:]:
            if isinstance(node, _FUNCTIONS):
                return False
            if isinstance(node, ast.With):
                items = (self._scopes.canonical(item.context_expr, node) for item in node.items)
                if wanted in items:
                    return True
        return False

    def item(self, request: Request, place: ast.AST) -> str:
        """The item of a wrap, in a form that is the same for equal items."""
        return self._scopes.canonical(request.tree, place, _roots(request))

    def _near(self, target: ast.stmt, subject: str) -> Iterator[ast.stmt]:
        block, index, _ = self._layout.home(target)
        yield target
        for statement in block[index + 1 :]:
            if isinstance(statement, COMPOUND):
                break
            yield statement
        for statement in reversed(block[:index]):
            if isinstance(statement, COMPOUND) or not _mentions(statement, subject):
                break
            yield statement

    def _canonical(self, statement: ast.stmt) -> str:
        """A statement in its canonical form; asked for again for every insertion nearby."""
        if statement not in self._written:
            self._written[statement] = self._scopes.canonical(statement, statement)
        return self._written[statement]

    def _accelerates(self, statement: ast.stmt) -> frozenset[str]:
        """The models that a statement hands to the runtime."""
        if statement not in self._accelerated:
            calls = (node for node in ast.walk(statement) if isinstance(node, ast.Call) and node.args)
            handed = (call for call in calls if self._scopes.canonical(call.func, statement) in _ACCELERATE)
            self._accelerated[statement] = frozenset(fingerprint(call.args[0]) for call in handed)
        return self._accelerated[statement]


def _roots(request: Request) -> frozenset[str]:
    return frozenset(module.partition(".")[0] for module in request.edit.imports)


def _subject(statement: ast.stmt) -> str:
    """What a statement is about: what it assigns, or the object whose method it calls."""
    match statement:
        case ast.Assign(targets=[target, *_]) | ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            return fingerprint(target)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=receiver))):
            return fingerprint(receiver)
    return ""


def _mentions(statement: ast.stmt, subject: str) -> bool:
    return bool(subject) and subject in fingerprint(statement)
