"""What well-known libraries offer: look-ups in `catalogue.toml`, extended by a user's own entries.

The data's format is described in docs/catalogue.md. Nothing here knows a library by name but PyTorch.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from neural_coder.analysis.catalogue_data import Contents, Entry, read_builtin, read_table

_TORCH_NN_PATHS = re.compile(r"torch\.nn\.modules\.\w+\.([A-Z]\w*)")
_WILDCARDS = re.compile(r"(\*\*\.|\*\*|\*|\[[^\]]+\])")
_BASES = frozenset({"module", "layer", "part", "same"})
_CACHED_NAMES = 20_000
_LONGEST_LEAD = 12
_LEADS = re.compile(r"""(\b(from|import)\s+|["'])$""")
"""What stands before a package's name where that means the package: an import, or a text such as `"timm"`."""
_ALIASED = re.compile(r"\s+as\s")

Found = TypeVar("Found")


def words(text: str) -> frozenset[str]:
    """The words of a text as a set; keeps long lists of names readable."""
    return frozenset(text.split())


class _Remembered(dict[str, Found], Generic[Found]):
    """What a function of a name gave, for names that are asked about again and again."""

    def __init__(self, find: Callable[[str], Found]):
        super().__init__()
        self._find = find

    def __missing__(self, name: str) -> Found:
        if len(self) >= _CACHED_NAMES:
            self.clear()
        found = self[name] = self._find(name)
        return found


class Catalogue:
    """What is known about names of packages outside the project. It never changes.

    Args:
        contents: What it is made from; entries of the first come first.
        own: How many of them, from the first, are the user's.
    """

    def __init__(self, contents: Sequence[Contents], own: int = 0):
        everything = list(contents)
        self.digest = hashlib.sha256("\n".join(part.digest for part in everything).encode()).hexdigest()
        """Changes with everything that the catalogue says."""
        self._own = [entry for part in everything[:own] for entry in part.entries]
        self._shelves = _shelves(entry for part in everything for entry in part.entries)
        named = frozenset(name.package for entry in self._own for name in entry.names)
        self.libraries = frozenset().union(*(part.libraries for part in everything[own:]))
        """Packages that are never looked up among the user's files."""
        self.packages = self.libraries.union(named, *(part.packages for part in everything))
        """Packages that build on PyTorch, the user's own among them."""
        self.foreign = sys.stdlib_module_names.union(*(part.foreign for part in everything)) - named
        self.building_methods = _union(part.build for part in everything)
        self.same_methods = _union(part.same for part in everything)
        self.run_methods = _union(part.run for part in everything)
        self._step_methods = _union(part.step for part in everything)
        self.arrays = _union(part.arrays for part in everything)
        """Packages that turn tensors into NumPy arrays."""
        self.parts = _union(part.parts for part in everything)
        """Attributes of models that are modules, where the entry of a model names none."""
        self.traits = _merged(part.traits for part in everything)
        self.layers = _union(part.layers for part in everything)
        self.containers = _union(part.containers for part in everything)
        self.implied_layers = _merged(part.implied for part in everything)
        self.attributes = self.parts | _union(
            entry.parts | entry.holders | entry.trainers for part in everything for entry in part.entries
        )
        """Attributes that some entry tells about."""
        self.methods = self.run_methods.union(
            *(
                entry.fits | entry.evaluates | entry.loads | (entry.runs or frozenset())
                for part in everything
                for entry in part.entries
            )
        )
        """Methods that the catalogue tells anything about."""
        self.training_methods = _union(entry.trains_in for part in everything for entry in part.entries)
        """Methods that some library calls to train."""
        self._aliases = _merged(part.aliases for part in everything)
        self._loss_classes = _any_of(part.loss_classes for part in everything)
        self._loss_variables = _any_of(part.loss_variables for part in everything)
        self._loss_functions = _any_of(part.loss_functions for part in everything)
        self._training_functions = _any_of(part.training_functions for part in everything)
        self._step_names = _any_of(part.step_methods for part in everything)
        self._not_models = _any_of(part.not_models for part in everything)
        self._entries = _Remembered(self._find_entry)
        self._calls = _Remembered(self._find_call)
        self._canonical = _Remembered(self._find_canonical)
        self._bases = _Remembered(self._find_base)
        self._losses = _Remembered(lambda name: bool(self._loss_classes.search(name.rpartition(".")[2])))
        self._steps = _Remembered(lambda name: name in self._step_methods or bool(self._step_names.search(name)))
        self._projects = _Remembered(self._find_own)

    @property
    def has_own_entries(self) -> bool:
        """Whether some entries are the user's."""
        return bool(self._own)

    @functools.cached_property
    def _mention(self) -> re.Pattern[str]:
        return re.compile(r"\b(" + "|".join(map(re.escape, sorted(self.packages))) + r")\b")

    def mentions_library(self, text: str) -> bool:
        """Whether a text names PyTorch or a package that builds on it."""
        return any(_is_reference(match, text) for match in self._mention.finditer(text))

    def canonical(self, name: str) -> str:
        """A dotted name as its library's documentation writes it."""
        return self._canonical[name]

    def entry(self, name: str) -> Entry | None:
        """The first entry that a dotted name (a canonical one) matches."""
        return self._entries[name]

    def call(self, name: str) -> Entry | None:
        """The entry that says what calling a dotted name gives: its own, or that of the class whose method it is."""
        return self._calls[name]

    def project_entry(self, qualified: str) -> Entry | None:
        """What the user's own entries say about a function or class of the project, named from the project's root."""
        return self._projects[qualified] if self._own else None

    def is_module_base(self, name: str) -> bool:
        """Whether a class of this dotted name makes its subclasses modules."""
        return self._bases[name]

    def is_foreign(self, name: str) -> bool:
        """Whether a dotted name belongs to a package that has nothing to do with PyTorch."""
        return name.partition(".")[0] in self.foreign

    def torch_layer(self, name: str) -> str:
        """The class name of a layer or container of `torch.nn` that has (or holds) parameters, else an empty text."""
        if not name.startswith("torch.nn."):
            return ""
        last = name.rpartition(".")[2]
        return last if last in self.layers or last in self.containers else ""

    def is_loss(self, name: str) -> bool:
        """Whether a class of this (dotted) name is a loss."""
        return self._losses[name]

    def names_loss(self, variable: str) -> bool:
        """Whether a variable is named as losses and metrics are."""
        return self._loss_variables.search(variable) is not None

    def computes_loss(self, function: str) -> bool:
        """Whether a function of `torch.nn.functional` computes a loss; its name without the module."""
        return self._loss_functions.search(function) is not None

    def gives_loss(self, function: str) -> bool:
        """Whether a function is named as those are that compute a loss for somebody else's training loop."""
        return self._training_functions.search(function) is not None

    def is_step_method(self, name: str) -> bool:
        """Whether a trainer calls a method of this name around the forward of its module."""
        return self._steps[name]

    def is_no_model(self, attribute: str) -> bool:
        """Whether an attribute among modules from a configuration is named as something else."""
        return self._not_models.search(attribute) is not None

    # --- look-ups ---------------------------------------------------------------------------------------------------

    def _find_entry(self, name: str) -> Entry | None:
        shelf = self._shelves.get(name.partition(".")[0], ())
        return next((entry for matches, entry in shelf if matches(name)), None)

    def _find_call(self, name: str) -> Entry | None:
        owner, _, method = name.rpartition(".")
        holder = self.entry(owner) if owner else None
        if holder is not None and method in (holder.built_by or self.building_methods):
            return holder
        found = self.entry(name)
        return found if found is not None and found.called else None

    def _find_canonical(self, name: str) -> str:
        match = _TORCH_NN_PATHS.fullmatch(name)
        if match:
            return f"torch.nn.{match.group(1)}"
        head, rest = name, ""
        while head:
            if head in self._aliases:
                return self._aliases[head] + rest
            head, dot, last = head.rpartition(".")
            rest = dot + last + rest
        return name

    def _find_base(self, name: str) -> bool:
        entry = self.entry(name)
        return entry is not None and entry.gives in _BASES and name.rpartition(".")[2][:1].isupper()

    def _find_own(self, qualified: str) -> Entry | None:
        """The root may hold more folders than an import names (`src/`): every tail of the name counts."""
        parts = qualified.split(".")
        tails = (".".join(parts[index:]) for index in range(len(parts) - 1))
        own = {id(entry) for entry in self._own}
        found = (entry for tail in tails if (entry := self.entry(tail)) is not None and id(entry) in own)
        return next(found, None)


@functools.cache
def builtin() -> Catalogue:
    """The catalogue that comes with the package."""
    return Catalogue([read_builtin()])


def extended(table: Mapping[str, object], path: Path) -> Catalogue:
    """The catalogue with a user's entries in front.

    Args:
        table: `[tool.neural_coder.catalogue]`.
        path: The file that it stands in, for messages.

    Raises:
        UserError: An entry makes no sense; the message says which, and what is expected.
    """
    return _extended(json.dumps(table, sort_keys=True, default=str), str(path))


@functools.lru_cache(maxsize=16)
def _extended(content: str, path: str) -> Catalogue:
    return Catalogue([read_table(json.loads(content), path), read_builtin()], own=1)


def optimizer_name(name: str) -> str:
    """An optimizer's name without the module that implements it: `torch.optim.AdamW`."""
    return f"torch.optim.{name.rpartition('.')[2]}" if name.startswith("torch.optim.") else name


def refuses(entry: Entry, arguments: Iterable[object]) -> bool:
    """Whether a literal argument says that a call gives something else this time."""
    texts = [value for value in arguments if isinstance(value, str)]
    return any(fnmatch.fnmatchcase(text, pattern) for text in texts for pattern in entry.unless)


def _is_reference(match: re.Match[str], text: str) -> bool:
    """Whether a package's name stands in a text for the package: some are words (`clip`) with other uses, too."""
    name, start, end = match[0], match.start(), match.end()
    if name.startswith("torch"):
        return True
    before, after = text[max(0, start - _LONGEST_LEAD) : start], text[end : end + 1]
    if before.endswith("."):
        return False
    return after == "." or _LEADS.search(before) is not None or _ALIASED.match(text, end) is not None


# --- how names match ------------------------------------------------------------------------------------------------

Matcher = Callable[[str], object]


def _shelves(entries: Iterable[Entry]) -> dict[str, list[tuple[Matcher, Entry]]]:
    """Entries by the package that their names begin with, each with what decides whether a name matches."""
    found: dict[str, list[tuple[Matcher, Entry]]] = {}
    for entry in entries:
        for name in entry.names:
            matches = _Pattern(name.text).matches if _WILDCARDS.search(name.text) else name.text.__eq__
            found.setdefault(name.package, []).append((matches, entry))
    return found


class _Pattern:
    """A dotted name with wildcards, compiled when it is first asked."""

    def __init__(self, text: str):
        self._text = text

    @functools.cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile("".join(_as_regex(part) for part in _WILDCARDS.split(self._text)))

    def matches(self, name: str) -> bool:
        return self._compiled.fullmatch(name) is not None


def _as_regex(part: str) -> str:
    if part == "**.":
        return r"(?:.*\.)?"
    if part == "**":
        return ".*"
    if part == "*":
        return "[^.]*"
    return part if part.startswith("[") else re.escape(part)


def _union(parts: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*parts)


def _merged(parts: Iterable[Mapping[str, Found]]) -> dict[str, Found]:
    """Mappings as one; where several have a key, the first decides."""
    found: dict[str, Found] = {}
    for part in parts:
        for key, value in part.items():
            found.setdefault(key, value)
    return found


def _any_of(parts: Iterable[tuple[str, ...]]) -> re.Pattern[str]:
    patterns = [pattern for part in parts for pattern in part]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)", re.IGNORECASE)
