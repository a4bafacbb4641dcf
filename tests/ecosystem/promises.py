"""The promises of a patch, checked by other means than the patching itself uses.

`broken_promises` looks at one patch: it compiles, reverts to the original bytes, keeps every character outside of the
edits' own spans, puts in only what the edits name, keeps every statement in its block, and makes no name local.
"""

from __future__ import annotations

import ast
import symtable
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

from shapes import same_shape
from texts import Text, kept_fragments, strange_tokens

from neural_coder.diff import unified_diff
from neural_coder.edits import Edit, Replace
from neural_coder.patching import Patch


def broken_promises(patch: Patch, edits: Sequence[Edit]) -> list[str]:
    """Which promises a patch breaks, in words.

    Args:
        patch: The patch.
        edits: What was asked for.
    """
    if patch.before.encode() == patch.after.encode():
        return [] if patch.empty and not patch.changes else ["it lists changes, but nothing differs"]
    problem = _compile_problem(patch)
    if problem:
        return [problem]
    return [*_found(patch, edits)]


def _found(patch: Patch, edits: Sequence[Edit]) -> Iterator[str]:
    old, new = patch.before.encode(), patch.after.encode()
    if reverted(unified_diff("x.py", old, new), new) != old:
        yield "the reversed diff does not give the original bytes"
    before, after = Text(patch.before.text), Text(patch.after.text)
    if lost := _first_lost(before, after, edits):
        yield f"characters outside of the edits changed: {lost[:80]!r}"
    if before.newlines and not after.newlines <= before.newlines:
        yield "a line ends otherwise than those of the file do"
    for token in strange_tokens(before, after, edits):
        yield f"the patch holds {token!r}, which no edit names"
    if not same_shape(patch.before.text, patch.after.text, edits):
        yield "a statement that no edit names changed or moved"
    yield from _name_problems(before, after, edits)


def _first_lost(before: Text, after: Text, edits: Sequence[Edit]) -> str:
    """The first piece of the original that is not in the patched text, in order; empty when all are there."""
    lost = _missing(kept_fragments(before, edits), after.text)
    if lost and _laid_out_by_black(before.text):
        # Black may lay out the statements around an edit anew; then their tokens must be there.
        lost = _missing(kept_fragments(before, edits, loose=True), after.text)
    return lost


def _missing(fragments: Iterator[str], text: str) -> str:
    position = 0
    for fragment in fragments:
        found = text.find(fragment, position)
        if found < 0:
            return fragment
        position = found + len(fragment)
    return ""


def _laid_out_by_black(text: str) -> bool:
    import black
    from black.parsing import InvalidInput

    try:
        return black.format_str(text, mode=black.Mode()).splitlines() == text.splitlines()
    except (InvalidInput, ValueError):
        return False


def _compile_problem(patch: Patch) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(patch.after.encode(), str(patch.after.path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return f"it does not compile: {error}"
    return ""


def reverted(diff: bytes, after: bytes) -> bytes:
    """Undo a unified diff, by the letter of its hunks."""
    old: list[bytes] = []
    new = after.split(b"\n")
    position = 0
    for line in diff.split(b"\n")[3:]:
        if line.startswith(b"@@"):
            start, _, length = line.split(b"+")[1].split(b" ")[0].partition(b",")
            begin = int(start) - (length != b"0")
            old += new[position:begin]
            position = begin
        elif line[:1] in b" -" and line:
            old.append(line[1:])
        elif line.startswith(b"\\"):
            continue
        position += line[:1] in (b" ", b"+")
    rest = new[position:]
    joined = b"\n".join([*old, *rest])
    return joined if rest or b"\\ No newline" in diff else joined + b"\n"


# --- names ----------------------------------------------------------------------------------------------------------


def _name_problems(before: Text, after: Text, edits: Sequence[Edit]) -> Iterator[str]:
    """Names that a patch makes local, or takes at module level although the file uses them for something else."""
    old, new = list(_tables(before.text)), list(_tables(after.text))
    if [table.get_name() for table in old] != [table.get_name() for table in new]:
        if not any(isinstance(edit, Replace) for edit in edits):
            yield "the patched file has other scopes"
        return
    used = {symbol.get_name() for table in old for symbol in table.get_symbols() if symbol.is_referenced()}
    for one, other in zip(old, new, strict=True):
        for name in sorted(_bound(other) - _bound(one)):
            if one.get_type() != "module":
                yield f"{name} becomes local to {one.get_name()}"
            elif name in used and not _is_import(after.tree, name):
                yield f"{name} was used before, and is bound now"
    dropped = Counter(name for table in old for name in _bound(table))
    dropped.subtract(name for table in new for name in _bound(table))
    if not any(isinstance(edit, Replace) for edit in edits):
        yield from (f"{name} is no longer bound" for name, count in dropped.items() if count > 0)


def _bound(table: symtable.SymbolTable) -> set[str]:
    symbols = table.get_symbols()
    return {each.get_name() for each in symbols if each.is_assigned() or each.is_imported() or each.is_namespace()}


def _is_import(tree: ast.Module, name: str) -> bool:
    imports = (alias for node in tree.body if isinstance(node, ast.Import) for alias in node.names)
    return any((alias.asname or alias.name.partition(".")[0]) == name for alias in imports)


def _tables(text: str) -> Iterator[symtable.SymbolTable]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        waiting = [symtable.symtable(text, "x.py", "exec")]
    while waiting:
        table = waiting.pop()
        yield table
        waiting.extend(table.get_children())
