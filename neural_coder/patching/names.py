"""What a file calls the modules that inserted code needs, and the imports that it lacks.

An import is never put into a function: it would make the name local to the whole function, and every use above it
would fail. New imports go to the top of the file, under another name where the plain one is taken.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from neural_coder.patching.layout import Layout
from neural_coder.patching.scopes import Binding, Scopes, dotted_name


class Names:
    """Resolves canonical modules to names of the file, and collects the imports to add."""

    def __init__(self, layout: Layout, scopes: Scopes) -> None:
        self._layout = layout
        self._scopes = scopes
        self._added: dict[tuple[str, str], int] = {}
        """Module and alias of each new import; the offset of the first place that needs it."""

    def write(self, code: str, modules: Iterable[str], place: ast.AST, *, expression: bool) -> str:
        """Write code as the file would: canonical modules under the names that they have at a place.

        Args:
            code: Statements or an expression, against canonical imports.
            modules: The canonical modules that it may use.
            place: The node that it will stand at.
            expression: Whether the code is an expression.
        """
        longest_first = sorted(set(modules), key=len, reverse=True)
        if not longest_first:
            return code
        replaced: list[tuple[int, int, str]] = []
        # In parentheses, an expression may go over several lines; statements are given as such.
        opening, closing = ("(", "\n)") if expression else ("", "")
        layout = Layout(f"{opening}{code}{closing}")
        for node in ast.walk(layout.tree):
            if not isinstance(node, ast.Name | ast.Attribute) or isinstance(layout.parent(node), ast.Attribute):
                continue
            name = dotted_name(node)
            module = next((module for module in longest_first if f"{name}.".startswith(f"{module}.")), "")
            if module and layout.readable(node):
                start = layout.start(node) - len(opening)
                length = _length(code[start:], module)
                replaced.append((start, start + length, self.local(module, place)))
        for start, end, name in sorted(replaced, reverse=True):
            code = code[:start] + name + code[end:]
        return code

    def local(self, module: str, place: ast.AST) -> str:
        """The expression for a module at a place; an import is added when there is none."""
        for binding, name in self._imports_of(module, place):
            if self._usable(binding, place):
                return name
        for found, alias in self._added:
            if found == module and self._free(alias or module.partition(".")[0], module, place):
                return self._note(module, alias, place)
        if self._free(module.partition(".")[0], module, place):
            return self._note(module, "", place)
        return self._note(module, self._fresh(module), place)

    def _note(self, module: str, alias: str, place: ast.AST) -> str:
        offset = self._layout.outer_start(self._layout.statement_of(place))
        self._added[module, alias] = min(offset, self._added.get((module, alias), offset))
        return alias or module

    def additions(self) -> list[tuple[str, int]]:
        """The imports to add, sorted, each with the offset of the first place that needs it."""
        lines = [(f"import {module}" + f" as {alias}" * bool(alias), at) for (module, alias), at in self._added.items()]
        return sorted(lines)

    def _imports_of(self, module: str, place: ast.AST) -> Iterator[tuple[Binding, str]]:
        """Bindings that give a module at a place, with the expression for it; those of the module scope first."""
        for scope in reversed(list(self._scopes.visible(place))):
            for binding in (found for same in scope.bindings.values() for found in same if found.loads):
                if binding.path == module:
                    yield binding, binding.name
                elif binding.loads == module and binding.path == binding.name:
                    yield binding, module

    def _usable(self, binding: Binding, place: ast.AST) -> bool:
        owner = self._scopes.owner_of(binding.name, place)
        if owner is None or binding not in owner.bindings[binding.name]:
            return False
        return self._scopes.path(binding.name, place) == binding.path and self._scopes.precedes(binding, place)

    def _free(self, name: str, module: str, place: ast.AST) -> bool:
        """Whether a module-level import may bind a name that a place then sees."""
        owner = self._scopes.owner_of(name, place)
        if owner is not None and owner is not self._scopes.module:
            return False
        others = self._scopes.module.bindings.get(name, [])
        root = module.partition(".")[0]
        return all(binding.path == root == name or self._scopes.placeholder(binding) for binding in others)

    def _fresh(self, module: str) -> str:
        base = "_" + module.rpartition(".")[2]
        taken = self._scopes.identifiers | {alias for _, alias in self._added}
        candidates = (base + (str(number) if number > 1 else "") for number in range(1, len(taken) + 3))
        return next(name for name in candidates if name not in taken)


def _length(text: str, module: str) -> int:
    """How many characters of a written-out dotted name make up its leading module; blanks may stand at the dots."""
    position = 0
    for character in module:
        position = text.index(character, position) + 1
    return position
