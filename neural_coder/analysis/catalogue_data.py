"""Reads and checks catalogues: the one of the package, and `[tool.neural_coder.catalogue]` of a project.

The format is described in docs/catalogue.md.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from neural_coder.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

Gives = Literal[
    "module", "pipeline", "same", "copy", "output", "part", "layer", "loss", "trainer", "accelerator", "optimizer",
    "scheduler", "scaler", "loader", "dataset", "transform", "no_grad", "inference_mode", "enable_grad", "set_grad",
    "autocast", "backward", "any", "nothing",
]  # fmt: skip
Item = Literal["model", "models", "other"]

_FILE = Path(__file__).with_name("catalogue.toml")
_NAME = re.compile(r"[A-Za-z_]\w*(\.(\w|\*|\?|\[[^\]]+\])+)*")
TRAITS = frozenset({"data_parallel", "compile", "jit", "quantized", "accelerate", "channels_last", "bfloat16", "half"})


@dataclass(frozen=True, slots=True)
class Name:
    """A dotted name, or a pattern for such names."""

    text: str

    @property
    def package(self) -> str:
        """The package that it begins with."""
        return self.text.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """What some names stand for: what calling one gives, or one of its building methods, or a subclass of it."""

    names: tuple[Name, ...]
    gives: Gives
    called: bool = True
    """False: only its building methods build one, as in `AutoModel.from_pretrained`."""
    built_by: frozenset[str] = frozenset()
    """Its own building methods, in the place of the common ones."""
    layers: frozenset[str] | None = None
    """Classes of layers that such a model is known to hold; None when that is not known."""
    runs: frozenset[str] | None = None
    """Methods that run it forward; None: the common ones."""
    fits: frozenset[str] = frozenset()
    """Methods that train it as a whole."""
    evaluates: frozenset[str] = frozenset()
    """Methods that run it over a whole dataset."""
    loads: frozenset[str] = frozenset()
    """Methods that give a data loader."""
    trains_in: frozenset[str] = frozenset()
    """Methods of its subclasses that the library calls to train."""
    parts: frozenset[str] = frozenset()
    """Attributes that are models."""
    trainers: frozenset[str] = frozenset()
    """Attributes that are trainers of the same kind."""
    holders: frozenset[str] = frozenset()
    """Attributes of its subclasses that hold models from outside the code."""
    items: tuple[Item, ...] = ()
    """What the tuple holds, where it gives one."""
    with_optimizer: bool = False
    """It gives a tuple where it gets an optimizer, too."""
    trait: str = ""
    """What passing a model through it leaves on the model (see `records.Model.traits`)."""
    otherwise: Literal["", "module"] = ""
    """What it gives where what it gets is not known."""
    unless: tuple[str, ...] = ()
    """Shell patterns: with a literal text of such a form among its arguments it gives something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """One catalogue as it was read."""

    digest: str
    entries: tuple[Entry, ...] = ()
    packages: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()
    arrays: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    build: frozenset[str] = frozenset()
    same: frozenset[str] = frozenset()
    run: frozenset[str] = frozenset()
    step: frozenset[str] = frozenset()
    traits: Mapping[str, str] = field(default_factory=dict)
    loss_classes: tuple[str, ...] = ()
    loss_variables: tuple[str, ...] = ()
    loss_functions: tuple[str, ...] = ()
    training_functions: tuple[str, ...] = ()
    step_methods: tuple[str, ...] = ()
    not_models: tuple[str, ...] = ()
    layers: frozenset[str] = frozenset()
    containers: frozenset[str] = frozenset()
    implied: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def libraries(self) -> frozenset[str]:
        """The packages that it names."""
        return self.packages | {name.package for entry in self.entries for name in entry.names}


@functools.cache
def read_builtin() -> Contents:
    """The catalogue that comes with the package."""
    return read_table(tomllib.loads(_FILE.read_text(encoding="utf-8")), _FILE.name, root="")


def read_table(table: Mapping[str, object], path: str, root: str = "tool.neural_coder.catalogue") -> Contents:
    """Read a catalogue from plain data.

    Args:
        table: The data.
        path: The file that it comes from, for messages.
        root: The table of that file, for messages.

    Raises:
        UserError: Something makes no sense; the message says which key, and what is expected.
    """
    where = _Where(path, root)
    given = _checked(table, _KEYS, where)
    for name in ("methods", "spelling", "layers"):
        given.update(given.pop(name, {}))
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    return Contents(digest=digest, **given)


@dataclass(frozen=True, slots=True)
class _Where:
    """A place in a file, as messages name it."""

    path: str
    key: str

    def at(self, key: str) -> _Where:
        return _Where(self.path, f"{self.key}.{key}" if self.key else key)

    def wrong(self, value: object, wanted: str) -> UserError:
        shown = json.dumps(value, default=str)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return self.error(f": {shown} is not {wanted}")

    def error(self, text: str) -> UserError:
        return UserError(f"{self.path}: {self.key}{text}{'' if text.endswith('?') else '.'}")


Reader = Callable[[object, _Where], Any]


def _checked(value: object, keys: Mapping[str, Reader], where: _Where) -> dict[str, Any]:
    """The values of a table, each read as its key wants it."""
    if not isinstance(value, Mapping):
        raise where.wrong(value, "a table")
    unknown = [key for key in value if key not in keys]
    if unknown:
        raise where.error(f" has no key {unknown[0]!r}{_suggestion(unknown[0], keys)}")
    return {key: keys[key](item, where.at(key)) for key, item in value.items()}


def _suggestion(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"


def _list(value: object, where: _Where) -> list[str]:
    """Names, as a list of texts or as one text with spaces between them."""
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise where.wrong(value, "a list of texts, or one text with spaces between the names")


def _set(value: object, where: _Where) -> frozenset[str]:
    found = _list(value, where)
    for item in found:
        if not item.isidentifier():
            raise where.wrong(item, "a name as Python writes it")
    return frozenset(found)


def _names(value: object, where: _Where) -> tuple[Name, ...]:
    found = _list(value, where)
    for item in found:
        if not _NAME.fullmatch(item):
            raise where.wrong(item, "a dotted name that begins with a package, such as package.module.build_*")
    if not found:
        raise where.wrong(value, "a list with at least one name")
    return tuple(Name(item) for item in found)


def _regexes(value: object, where: _Where) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else _list(value, where)
    for item in found:
        try:
            re.compile(item)
        except re.error as error:
            raise where.wrong(item, f"a regular expression ({error})") from None
    return tuple(found)


def _texts(value: object, where: _Where) -> tuple[str, ...]:
    return tuple(_list(value, where))


def _flag(value: object, where: _Where) -> bool:
    if not isinstance(value, bool):
        raise where.wrong(value, "true or false")
    return value


def _one_of(*choices: str) -> Reader:
    def read(value: object, where: _Where) -> object:
        if value not in choices:
            hint = _suggestion(value, choices) if isinstance(value, str) else ""
            raise where.wrong(value, f"one of {', '.join(choices)}" if not hint.startswith("; did") else f"known{hint}")
        return value

    return read


def _items(value: object, where: _Where) -> tuple[str, ...]:
    found = _list(value, where)
    if "model" not in found and "models" not in found:
        raise where.wrong(value, 'a list of "model", "models" and "other" with a model in it')
    return tuple(_one_of(*get_args(Item))(item, where) for item in found)


def _mapping(read: Reader) -> Reader:
    def read_all(value: object, where: _Where) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise where.wrong(value, "a table")
        return {key: read(item, where.at(key)) for key, item in value.items()}

    return read_all


def _dotted(value: object, where: _Where) -> str:
    if not isinstance(value, str) or not all(part.isidentifier() for part in value.split(".")):
        raise where.wrong(value, "a dotted name")
    return value


def _entries(value: object, where: _Where) -> tuple[Entry, ...]:
    if not isinstance(value, list):
        raise where.wrong(value, f"a list of tables; write [[{where.key}]]")
    found = []
    for number, item in enumerate(value, 1):
        here = _Where(where.path, f"{where.key}[{number}]")
        given = _checked(item, _ENTRY_KEYS, here)
        for key in ("names", "gives"):
            if key not in given:
                raise here.error(f" needs {key!r}")
        found.append(Entry(**given))
    return tuple(found)


def _section(keys: Mapping[str, Reader]) -> Reader:
    return lambda value, where: _checked(value, keys, where)


def _layers(value: object, where: _Where) -> dict[str, Any]:
    found = _checked(value, {"known": _set, "containers": _set, "implied": _mapping(_set)}, where)
    return {"layers" if key == "known" else key: item for key, item in found.items()}


_METHODS = {"build": _set, "same": _set, "run": _set, "step": _set, "traits": _mapping(_dotted)}
_SPELLING = dict.fromkeys(
    ("loss_classes", "loss_variables", "loss_functions", "training_functions", "step_methods", "not_models"), _regexes
)
_KEYS: Mapping[str, Reader] = {
    "packages": _set,
    "foreign": _set,
    "arrays": _set,
    "parts": _set,
    "aliases": _mapping(_dotted),
    "methods": _section(_METHODS),
    "spelling": _section(_SPELLING),
    "layers": _layers,
    "entries": _entries,
}
_ENTRY_KEYS: Mapping[str, Reader] = {
    "names": _names,
    "gives": _one_of(*get_args(Gives)),
    "called": _flag,
    "with_optimizer": _flag,
    "items": _items,
    "trait": _one_of(*sorted(TRAITS)),
    "otherwise": _one_of("module"),
    "unless": _texts,
    **dict.fromkeys(
        ("built_by", "layers", "runs", "fits", "evaluates", "loads", "trains_in", "parts", "trainers", "holders"), _set
    ),
}
