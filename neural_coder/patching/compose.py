"""From edits to a patch: every piece is worked out on the original text, and all are put in at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from neural_coder.edits import AddArgument, InsertAfter, Replace, Wrap
from neural_coder.errors import InternalError
from neural_coder.parsing import deep_recursion
from neural_coder.patching.checks import check
from neural_coder.patching.expressions import Expressions, NewArguments, Substitution
from neural_coder.patching.layout import Layout, fingerprint
from neural_coder.patching.names import Names
from neural_coder.patching.outcome import Authored, Conflict, Patch, Refusal, Unpatchable
from neural_coder.patching.pieces import Piece, Rank, render
from neural_coder.patching.presence import Presence
from neural_coder.patching.requests import Request, gather
from neural_coder.patching.scopes import Scopes
from neural_coder.patching.statements import Header, Insertion, Statements
from neural_coder.patching.style import reformat, requote
from neural_coder.patching.wraps import Wraps
from neural_coder.records import Span
from neural_coder.source import Source

TOO_DEEP = "the file is nested too deeply for a patch of it to be checked."


def apply(source: Source, edits: Sequence[Authored]) -> Patch | Conflict | Unpatchable:
    """Apply edits to a file, all on its original text.

    Args:
        source: The file.
        edits: What is wanted, and by whom. What is there already is left out of the patch.

    Returns:
        The patch; or which two authors contradict each other; or why this file cannot be edited safely.

    Raises:
        InternalError: An edit fits no place of the file, or the patch would break a promise.
    """
    if not edits:
        return Patch(before=source, after=source)
    try:
        layout = Layout(source.text)
    except (SyntaxError, ValueError) as error:
        return Unpatchable(reason=f"the file is not Python: {error}.")
    except RecursionError:
        return Unpatchable(reason=TOO_DEEP)
    try:
        with deep_recursion():
            return _Composer(source, layout, gather(edits)).patch()
    except Refusal as refusal:
        return refusal.outcome
    except RecursionError:
        return Unpatchable(reason=TOO_DEEP)


class _Composer:
    def __init__(self, source: Source, layout: Layout, requests: Sequence[Request]) -> None:
        self._source = source
        self._layout = layout
        self._scopes = Scopes(layout)
        self._presence = Presence(layout, self._scopes)
        self._names = Names(layout, self._scopes)
        self._requests = requests
        self._effective: list[Request] = []
        self._touched: list[tuple[int, int]] = []

    def patch(self) -> Patch:
        """Work out all pieces, put them in, check the result."""
        substitutions, dropped = self._replacements()
        insertions = list(self._insertions())
        headers = list(self._headers())
        calls = list(self._arguments())
        self._refuse_lost_in_dropped(dropped)
        statements = Statements(self._layout, insertions, headers, [statement for statement, _ in dropped])
        pieces = list(statements.pieces())
        expressions = Expressions(self._layout, substitutions, calls)
        pieces += expressions.pieces([piece for piece in pieces if piece.rank is Rank.INDENT])
        for statement, comments in expressions.lost_comments:
            lines = [statements.indent(statement) + comment for comment in comments]
            pieces.append(statements.above(statement, lines, (1000,)))
        pieces += self._imports(statements, headers)
        text = render(self._layout.text, pieces, 0, len(self._layout.text))
        if text == self._source.text:
            return Patch(before=self._source, after=self._source)
        check(self._source, self._source.with_text(text), self._layout, self._touched)
        after = self._source.with_text(reformat(self._source.path, self._source.text, text))
        if after.text != text:
            check(self._source, after, self._layout, self._touched)
        ordered = sorted(self._effective, key=lambda request: (request.at, request.order, request.author))
        return Patch(
            before=self._source, after=after, changes=tuple(change for each in ordered for change in each.changes())
        )

    # --- finding places ----------------------------------------------------------------------------------------------

    def _statement(self, request: Request) -> ast.stmt:
        found = self._layout.statement(request.at)
        if found is None:
            raise InternalError(f"{self._where(request)} there is no statement.")
        return found

    def _where(self, request: Request) -> str:
        at = request.at
        return f"{self._source.path}: from {at.line}:{at.column} to {at.end_line}:{at.end_column} ({request.author})"

    def _expression(self, request: Request) -> ast.expr:
        found = self._layout.expression(request.at)
        if found is None:
            raise InternalError(f"{self._where(request)} there is no expression.")
        if not self._layout.readable(found):
            reason = f"line {request.at.line}: Python does not tell where this expression in an f-string stands."
            raise Refusal(Unpatchable(reason=reason))
        return found

    def _code(self, code: str, request: Request, place: ast.AST) -> str:
        """Write code as the file would."""
        expression = not isinstance(request.edit, InsertAfter)
        written = self._names.write(code, request.edit.imports, place, expression=expression)
        return requote(written.strip("\n"), self._quote(place))

    def _quote(self, place: ast.AST) -> str:
        """The quote for strings: the file's, or inside an f-string the one that it does not end with."""
        for node in self._layout.around(place):
            if isinstance(node, ast.JoinedStr):
                return '"' if self._layout.text[self._layout.start(node) :].lstrip("fFrR").startswith("'") else "'"
        return self._layout.quote

    def _take(self, request: Request, *places: ast.stmt) -> None:
        """Note that a request has an effect, and which lines it may change."""
        self._effective.append(request)
        self._touched += [self._layout.logical_span(place) for place in places]

    # --- kinds of edits ----------------------------------------------------------------------------------------------

    def _replacements(self) -> tuple[list[Substitution], list[tuple[ast.stmt, str]]]:
        substitutions, dropped = [], []
        for request in self._requests:
            if not isinstance(request.edit, Replace):
                continue
            if not request.edit.code.strip():
                statement = self._statement(request)
                dropped.append((statement, request.author))
                self._take(request, statement)
                self._touched.append((request.at.line, request.at.end_line))
                continue
            node = self._expression(request)
            if fingerprint(node) != fingerprint(request.tree):
                self._take(request, self._layout.statement_of(node))
                substitutions.append(Substitution(node, self._code(request.edit.code, request, node), request.author))
        return substitutions, dropped

    def _insertions(self) -> Iterator[Insertion]:
        for request in self._requests:
            if not isinstance(request.edit, InsertAfter):
                continue
            target = self._statement(request)
            if self._layout.is_elif(target):
                reason = f"line {request.at.line}: nothing can be put behind an `elif` alone."
                raise Refusal(Unpatchable(reason=reason))
            if taken := _rebound(request):
                reason = f"line {request.at.line}: the script itself calls something else {taken}."
                raise Refusal(Unpatchable(reason=reason))
            if not self._presence.inserted(request, target):
                self._take(request, target)
                yield Insertion(target, self._code(request.edit.code, request, target))

    def _headers(self) -> Iterator[Header]:
        wraps = Wraps(self._layout, self._presence, [each for each in self._requests if isinstance(each.edit, Wrap)])
        for request in wraps.effective:
            self._take(request)
        for block in wraps.blocks:
            place, last = block.wrapped[0], self._layout.span(block.wrapped[-1])
            self._touched.append((self._layout.logical_span(place)[0], last.end_line + self._trailing(last)))
            items = [self._item(request, place) for _, request in block.ordered()]
            yield Header(block, f"with {', '.join(items)}")

    def _trailing(self, last: Span) -> int:
        """How many comment and blank lines follow, which may belong to the block."""
        line = last.end_line
        while line < len(self._layout.starts):
            content = self._layout.text[self._layout.line_start(line + 1) : self._layout.line_end(line + 1)].strip()
            if content and not content.startswith("#"):
                break
            line += 1
        return line - last.end_line

    def _item(self, request: Request, place: ast.stmt) -> str:
        assert isinstance(request.edit, Wrap)
        return self._code(request.edit.item, request, place)

    def _arguments(self) -> Iterator[NewArguments]:
        calls: dict[Span, NewArguments] = {}
        for request in self._requests:
            if not isinstance(request.edit, AddArgument):
                continue
            call = self._expression(request)
            if not isinstance(call, ast.Call):
                raise InternalError(f"{self._where(request)} there is no call.")
            if any(isinstance(node, ast.JoinedStr) for node in self._layout.around(call)):
                reason = f"line {request.at.line}: no argument can be added to a call inside an f-string."
                raise Refusal(Unpatchable(reason=reason))
            keyword = request.edit.keyword
            if keyword not in {each.arg for each in call.keywords}:
                self._take(request, self._layout.statement_of(call))
                new = calls.setdefault(request.at, NewArguments(call, request.author))
                new.arguments.append(f"{keyword}={self._code(request.edit.value, request, call)}")
        yield from calls.values()

    def _refuse_lost_in_dropped(self, dropped: Sequence[tuple[ast.stmt, str]]) -> None:
        """An edit inside of a statement that another author takes out would be lost."""
        for statement, author in dropped:
            span = self._layout.span(statement)
            for request in self._effective:
                within = span.contains(request.at) and (
                    isinstance(request.edit, Replace | AddArgument) or span != request.at
                )
                if within and author not in {name for name, _ in request.authors}:
                    reason = f"line {request.at.line}: {author} takes out the statement that {request.author} changes."
                    raise Refusal(Conflict(first=author, second=request.author, reason=reason))

    # --- imports -----------------------------------------------------------------------------------------------------

    def _imports(self, statements: Statements, headers: Sequence[Header]) -> Iterator[Piece]:
        body = self._layout.tree.body
        wrapped = [self._layout.outer_start(each.block.wrapped[0]) for each in headers if each.block.statements is body]
        for number, (line, needed_at) in enumerate(self._names.additions()):
            piece = self._import(line, min([needed_at, *wrapped]), number, statements)
            if piece.rank is Rank.INSIDE:
                shared = self._layout.line_at(piece.start)
                self._touched.append((shared, shared))
            yield piece

    def _import(self, line: str, needed_at: int, number: int, statements: Statements) -> Piece:
        """Put an import behind the leading imports, the docstring, or in front of the first statement."""
        layout = self._layout
        leading = [each for each in _leading(layout.tree) if layout.end(each) <= needed_at]
        required = [each for each in leading if not isinstance(each, ast.Import) and _must_be_first(each)]
        places = [each for each in leading if layout.ends_line(each)]
        if required and (not places or layout.start(places[-1]) < layout.start(required[-1])):
            end = layout.end(required[-1])
            return Piece(end, end, f"; {line}", Rank.INSIDE, (number,))
        if not places:
            return self._import_on_top(line, number, statements)
        target = places[-1]
        last = layout.line_at(layout.end(target))
        lines = ["", line] if isinstance(target, ast.Expr) and number == 0 else [line]
        return statements.behind_line(last, lines, (-1000, number))

    def _import_on_top(self, line: str, number: int, statements: Statements) -> Piece:
        """Put an import above the first statement and the comment on it, but below the comment that heads the file."""
        layout = self._layout
        first = layout.tree.body[0]
        row = statement_row = layout.line_at(layout.outer_start(first))
        while row > 1 and layout.text[layout.line_start(row - 1) :].lstrip(" \t").startswith("#"):
            row -= 1
        at = layout.line_start(row if row > 1 else statement_row)
        newline = layout.newline_of(statement_row)
        last = number == len(self._names.additions()) - 1
        blank = newline if last and not isinstance(first, ast.Import | ast.ImportFrom) else ""
        return Piece(at, at, line + newline + blank, Rank.BEHIND, (-1000, number))


def _rebound(request: Request) -> str:
    """A name that inserted code takes for a module and binds at once: the user's model is called `torch`, say."""
    modules = {module.partition(".")[0] for module in request.edit.imports}
    stored = (node for node in ast.walk(request.tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return next((node.id for node in stored if node.id in modules), "")


def _leading(tree: ast.Module) -> Iterator[ast.stmt]:
    """The docstring and the imports that a module begins with."""
    for index, statement in enumerate(tree.body):
        if not isinstance(statement, ast.Import | ast.ImportFrom) and not (index == 0 and _must_be_first(statement)):
            return
        yield statement


def _must_be_first(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant(value=str())) | ast.ImportFrom(module="__future__"):
            return True
    return False
