"""From edits to requests: equal edits become one, calls into the runtime are merged, contradictions are found."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from neural_coder.edits import Accelerate, AddArgument, Edit, InsertAfter, Replace, Wrap
from neural_coder.errors import InternalError
from neural_coder.patching.layout import fingerprint, parse
from neural_coder.patching.outcome import Authored, Conflict, Refusal
from neural_coder.records import Change, Setting, Span

_LONGEST_LINE = 110
"""Characters, where the file is not laid out by a tool that would decide."""


@dataclass(slots=True)
class Request:
    """An edit and all who want it."""

    edit: InsertAfter | Wrap | Replace | AddArgument
    order: int
    authors: list[tuple[str, str]]
    """Each author with its reason."""
    accelerates: str = ""
    """For a call into the runtime: the model's name."""
    tree: ast.AST = field(default_factory=ast.AST)
    """The edit's code (for an argument: its value), parsed; positions count from `(` in front of an expression."""

    @property
    def author(self) -> str:
        """Who asked first."""
        return self.authors[0][0]

    @property
    def at(self) -> Span:
        """The place of the edit."""
        return self.edit.call if isinstance(self.edit, AddArgument) else self.edit.at

    def changes(self) -> list[Change]:
        """The request as the report shows it, once for each author."""
        return [Change(line=self.at.line, author=author, reason=reason) for author, reason in self.authors]


def expression(code: str, author: str) -> ast.expr:
    """Parse an expression of an edit; positions are one character too far to the right on its first line.

    Raises:
        InternalError: It is not one.
    """
    try:
        module = parse(f"({code}\n)")
    except SyntaxError as error:
        raise InternalError(f"{author}: {code!r} is not a Python expression ({error.msg}).") from error
    statement = module.body[0]
    assert isinstance(statement, ast.Expr), "text in parentheses is an expression"
    return statement.value


def gather(edits: Sequence[Authored]) -> list[Request]:
    """Unite equal edits and merge calls into the runtime.

    Returns:
        The requests, in the order of the text, then of their authors.

    Raises:
        Refusal: Two authors contradict each other.
    """
    accelerates: dict[tuple[Span, str], list[tuple[Authored, Accelerate]]] = {}
    requests: dict[tuple[object, ...], Request] = {}
    for authored in sorted(edits, key=lambda authored: (authored.order, authored.author)):
        edit = authored.edit
        if isinstance(edit, Accelerate):
            accelerates.setdefault((edit.at, edit.name), []).append((authored, edit))
        else:
            request = Request(edit, authored.order, [(authored.author, edit.reason)], tree=_tree(edit, authored.author))
            _unite(requests, request)
    for wanted in accelerates.values():
        _unite(requests, _accelerate(wanted))
    return sorted(requests.values(), key=lambda request: (request.at, request.order, request.author))


def _tree(edit: Edit, author: str) -> ast.AST:
    match edit:
        case InsertAfter(code=code):
            try:
                return parse(code)
            except SyntaxError as error:
                raise InternalError(f"{author}: {code!r} is not Python ({error.msg}).") from error
        case Wrap(item=code) | AddArgument(value=code):
            return expression(code, author)
        case Replace(code=code):
            return expression(code, author) if code.strip() else ast.Module(body=[], type_ignores=[])
    raise InternalError(f"{author}: unknown kind of edit: {edit!r}.")


def _unite(requests: dict[tuple[object, ...], Request], request: Request) -> None:
    edit = request.edit
    code = fingerprint(request.tree)
    key: tuple[object, ...]
    match edit:
        case Replace():
            key = (Replace, edit.at)
        case AddArgument():
            key = (AddArgument, edit.call, edit.keyword)
        case _:
            key = (type(edit), edit.at, code)
    known = requests.setdefault(key, request)
    if known is request:
        return
    if fingerprint(known.tree) != code:
        raise Refusal(_contradiction(known, request))
    new = [author for author in request.authors if author[0] not in {name for name, _ in known.authors}]
    known.authors.extend(new)


def _contradiction(first: Request, second: Request) -> Conflict:
    def code(edit: object) -> str:
        match edit:
            case Replace():
                return edit.code or "nothing"
            case AddArgument():
                return f"{edit.keyword}={edit.value}"
        return ""

    reason = f"line {first.at.line}: {first.author} wants `{code(first.edit)}`, {second.author} `{code(second.edit)}`."
    return Conflict(first=first.author, second=second.author, reason=reason)


def _call_of(edit: Accelerate) -> str:
    """The statement; one argument on each line where it would be too long to read."""
    arguments = [edit.name, f'engine="{edit.engine or "torch"}"']
    if edit.precision not in (None, "fp32"):
        arguments.append(f'precision="{edit.precision}"')
    if edit.calibration is not None:
        arguments.append(f"calibration={edit.calibration}")
    arguments += [f"{name}={_literal(value)}" for name, value in edit.settings]
    call = f"{edit.name} = neural_coder.runtime.accelerate"
    flat = f"{call}({', '.join(arguments)})"
    if len(flat) <= _LONGEST_LINE:
        return flat
    return "\n".join([f"{call}(", *(f"    {line}" for each in arguments for line in _spread(each)), ")"])


def _spread(argument: str) -> list[str]:
    """An argument with its comma; a long list with one entry on each line."""
    name, is_list, entries = argument.partition("=[")
    if not is_list or len(argument) <= _LONGEST_LINE // 2:
        return [f"{argument},"]
    return [f"{name}=[", *(f"    {entry}," for entry in entries.removesuffix("]").split(", ")), "],"]


def _literal(value: Setting) -> str:
    """A setting as Python code, with the quotes that black would take."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _accelerate(wanted: list[tuple[Authored, Accelerate]]) -> Request:
    """Merge what several features want of the runtime for one model at one place."""
    authored, edit = wanted[0]
    merged, alone = edit, edit.alone
    for other_author, other in wanted[1:]:
        said = dict(merged.settings)
        both = [(name, getattr(merged, name), getattr(other, name)) for name in ("engine", "precision", "calibration")]
        both += [(name, said.get(name), value) for name, value in other.settings]
        for setting, old, new in both:
            if old is not None and new is not None and old != new:
                reason = (
                    f"line {edit.at.line}: {authored.author} and {other_author.author} want {edit.name} to run with "
                    f"{setting} {old} and {new}."
                )
                raise Refusal(Conflict(first=authored.author, second=other_author.author, reason=reason))
        merged = replace(
            merged,
            engine=merged.engine or other.engine,
            precision=merged.precision or other.precision,
            calibration=other.calibration if merged.calibration is None else merged.calibration,
            settings=tuple({**dict(other.settings), **said}.items()),
        )
        alone = alone if other.alone == alone else ""
    code = alone
    if not alone:
        code = _call_of(merged)
    imports = tuple(dict.fromkeys(["torch", *(name for _, each in wanted for name in each.imports)]))
    insert = InsertAfter(at=edit.at, code=code, reason=edit.reason, imports=imports)
    authors = list({each.author: (each.author, wish.reason) for each, wish in wanted}.values())
    order = max(each.order for each, _ in wanted)
    return Request(insert, order, authors, accelerates=edit.name, tree=_tree(insert, authored.author))
