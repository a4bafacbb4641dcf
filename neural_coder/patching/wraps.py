"""Which `with` blocks a patch needs: wraps of the same statements share a header, equal neighbours share a block."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

from neural_coder.errors import InternalError
from neural_coder.patching.layout import Layout
from neural_coder.patching.outcome import Conflict, Refusal, Unpatchable
from neural_coder.patching.presence import Presence
from neural_coder.patching.requests import Request


@dataclass(slots=True)
class Block:
    """A `with` block to put around some statements of one list of statements."""

    statements: list[ast.stmt]
    """The whole list."""
    first: int
    last: int
    requests: dict[str, Request] = field(default_factory=dict)
    """What the header holds, by a form that is the same for equal items."""

    @property
    def wrapped(self) -> list[ast.stmt]:
        """The statements in the block."""
        return self.statements[self.first : self.last + 1]

    def ordered(self) -> list[tuple[str, Request]]:
        """The header's items in their order."""
        return sorted(self.requests.items(), key=lambda item: (item[1].order, item[1].author))


class Wraps:
    """Turns requests for wraps into blocks; `effective` are the requests that changed something."""

    def __init__(self, layout: Layout, presence: Presence, requests: Iterable[Request]) -> None:
        """Work out the blocks.

        Raises:
            Refusal: Two wraps overlap without one holding the other.
        """
        self._layout = layout
        self.effective: list[Request] = []
        single = []
        for request in requests:
            block = self._locate(request)
            if not presence.wrapped(request, block.wrapped[0]):
                self.effective.append(request)
                block.requests[presence.item(request, block.wrapped[0])] = request
                single.append(block)
        united = self._without_inner(_unite_overlapping(single))
        self.blocks = _join_neighbours(_share_headers(united))
        self._refuse_crossing()

    def _locate(self, request: Request) -> Block:
        span = request.at
        first = self._layout.statement_at(span.line, span.column)
        if first is None:
            raise InternalError(f"{request.author}: no statement begins at line {span.line}, column {span.column}.")
        if self._layout.is_elif(first):
            raise Refusal(Unpatchable(reason=f"line {span.line}: no `with` block can be put around an `elif`."))
        home = self._layout.home(first)
        for index in range(home.position, len(home.block)):
            end = self._layout.span(home.block[index])
            if (end.end_line, end.end_column) == (span.end_line, span.end_column):
                return Block(home.block, home.position, index)
        raise InternalError(f"{request.author}: lines {span.line} to {span.end_line} are no statements of one block.")

    def _without_inner(self, blocks: list[Block]) -> list[Block]:
        """Drop an item where a block around, in the same function, has it too."""
        held = {(item, statement) for block in blocks for item in block.requests for statement in block.wrapped}
        return [block for block in blocks if not self._inside(block, held)]

    def _inside(self, block: Block, held: set[tuple[str, ast.stmt]]) -> bool:
        (item,) = block.requests
        for node in list(self._layout.around(block.wrapped[0]))[1:]:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                return False
            if isinstance(node, ast.stmt) and (item, node) in held:
                return True
        return False

    def _refuse_crossing(self) -> None:
        for index, one in enumerate(self.blocks):
            for other in self.blocks[index + 1 :]:
                if one.statements is not other.statements:
                    continue
                left, right = sorted((one, other), key=lambda block: (block.first, -block.last))
                if left.first < right.first <= left.last < right.last:
                    raise Refusal(self._crossing(left, right))

    def _crossing(self, left: Block, right: Block) -> Conflict:
        first, second = left.ordered()[0][1], right.ordered()[0][1]
        lines = f"lines {first.at.line} and {second.at.line}"
        reason = (
            f"{lines}: the `with` blocks of {first.author} and {second.author} overlap, and neither holds the other."
        )
        return Conflict(first=first.author, second=second.author, reason=reason)


def _unite_overlapping(blocks: list[Block]) -> list[Block]:
    """Make one block of those that ask for the same item and share statements."""
    united: list[Block] = []
    for block in sorted(blocks, key=lambda block: (block.first, -block.last)):
        (item,) = block.requests
        for other in united:
            if other.statements is block.statements and item in other.requests and block.first <= other.last:
                other.last = max(other.last, block.last)
                break
        else:
            united.append(block)
    return united


def _share_headers(blocks: list[Block]) -> list[Block]:
    shared: dict[tuple[int, int, int], Block] = {}
    for block in blocks:
        known = shared.setdefault((id(block.statements), block.first, block.last), block)
        known.requests.update(block.requests)
    return list(shared.values())


def _join_neighbours(blocks: list[Block]) -> list[Block]:
    joined: list[Block] = []
    for block in sorted(blocks, key=lambda block: (block.first, -block.last)):
        for other in joined:
            adjacent = other.statements is block.statements and other.last + 1 == block.first
            if adjacent and [item for item, _ in other.ordered()] == [item for item, _ in block.ordered()]:
                other.last = block.last
                break
        else:
            joined.append(block)
    return joined
