"""What the interpretation notes down while it runs; `records` are made from it afterwards."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from neural_coder.analysis.catalogue import Catalogue
from neural_coder.analysis.catalogue_data import Entry
from neural_coder.analysis.syntax import Parsed
from neural_coder.analysis.values import ClassInfo, ModelObject
from neural_coder.records import Evidence

Step = tuple[ast.AST, ast.stmt]
"""A function (or module) and the statement that it was at."""
Stack = tuple[Step, ...]
MAX_STACKS = 12
UNKNOWN_LAYER = "?"
"""Stands for parameters of a project's own that are used by functions of `torch.nn.functional`."""


@dataclass(slots=True, eq=False)
class BuiltModel:
    """One place that builds a model, whatever it is bound to."""

    site: ast.AST
    parsed: Parsed
    evidence: Evidence
    qualified_name: str = ""
    library: str = ""
    kind: Literal["module", "pipeline"] = "module"
    classes: set[ClassInfo] = field(default_factory=set)
    layers: set[str] = field(default_factory=set)
    layers_known: bool = True
    traits: set[str] = field(default_factory=set)
    trained: bool = False
    inferred: bool = False
    is_layer: bool = False
    """A single layer or container of `torch.nn`."""
    consumed: bool = False
    """It became part of another module."""
    holders: set[ast.AST] = field(default_factory=set)
    """The models that it became part of."""
    copied_from: ast.AST | None = None
    """For a copy: the model that was copied."""
    parts: set[ast.AST] = field(default_factory=set)
    """The models that became parts of it."""
    placeholder: bool = False
    """It stands for a parameter, or for `self` in a method of a module: nothing is built here."""
    entry: Entry | None = None
    """What the catalogue says about what built it."""
    origin: BuiltModel | None = None
    """For what a function built and gave to one of its callers: the model inside the function."""

    def family(self) -> Iterator[BuiltModel]:
        """This model and those that it is another view of."""
        current: BuiltModel | None = self
        while current is not None:
            yield current
            current = current.origin


@dataclass(slots=True, eq=False)
class Binding:
    """A statement that binds a freshly built object to a name."""

    parsed: Parsed
    statement: ast.stmt
    name: str
    """In a form that is the same for equal expressions (`syntax.named`)."""
    target: ast.expr
    sites: set[ast.AST] = field(default_factory=set)
    value: ast.expr | None = None
    written: str = ""
    """The name as the file writes it; empty where that is `name`."""
    is_item: bool = False
    """The object is one of several in a container or in another object."""
    borrowed: bool = False
    """The container comes from a function, in which the object may have a name of its own."""
    why_not_ready: str = ""
    """Why nothing can be inserted for it; empty when that is not known from the statement alone."""


@dataclass(slots=True, eq=False)
class ForwardCall:
    """One call expression that runs a model forward."""

    node: ast.Call
    parsed: Parsed
    evidence: Evidence
    models: set[ast.AST] = field(default_factory=set)
    stacks: set[Stack] = field(default_factory=set)
    outer: set[ast.AST | None] = field(default_factory=set)
    """Calls of methods of models that it ran inside of; None: it ran outside of any."""
    loaders: set[ast.AST] = field(default_factory=set)
    whole: bool = False
    """The model itself is called, not (only) a method that the project wrote for it."""
    training: bool = False
    feeds_training: bool = False
    reaches_numpy: bool = False
    reaches_cross_entropy: bool = False
    changed_in_place: bool = False
    autocast: bool = True
    differentiated: bool = False
    """Gradients by its inputs are computed, and nothing is trained with them."""
    grad: bool = False
    """Gradients were on in some context."""


@dataclass(slots=True, eq=False)
class BackwardCall:
    """One call expression that computes gradients."""

    node: ast.Call
    parsed: Parsed
    evidence: Evidence
    forwards: set[ast.Call] = field(default_factory=set)
    reached: set[ast.Call] = field(default_factory=set)
    """Those of the forwards that gradients flow back to."""
    stacks: set[Stack] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class OtherCall:
    """An optimizer's step, or a call that trains as a whole."""

    node: ast.Call
    parsed: Parsed
    kind: Literal["optimizer_step", "fit"]
    evidence: Evidence


@dataclass(slots=True, eq=False)
class Built:
    """A place that builds a loader or an optimizer."""

    site: ast.AST
    parsed: Parsed
    qualified_name: str
    evidence: Evidence
    used_for: set[Literal["inference", "training"]] = field(default_factory=set)
    confirmed: bool = True
    """False: it is a loader only if a loop over it runs a model."""


@dataclass(slots=True)
class Facts:
    """Everything noted during one interpretation."""

    catalogue: Catalogue
    files: dict[Path, Parsed] = field(default_factory=dict)
    """The files that were run, by resolved path."""
    models: dict[ast.AST, BuiltModel] = field(default_factory=dict)
    bindings: dict[tuple[ast.stmt, str], Binding] = field(default_factory=dict)
    aliases: dict[tuple[ast.stmt, str], Binding] = field(default_factory=dict)
    """Statements that bind a model that came as a parameter to an attribute."""
    forwards: dict[ast.Call, ForwardCall] = field(default_factory=dict)
    perhaps: dict[ast.Call, ForwardCall] = field(default_factory=dict)
    """Calls of methods of models whose classes are not known: they may run them."""
    backwards: dict[ast.Call, BackwardCall] = field(default_factory=dict)
    derivatives: dict[ast.Call, BackwardCall] = field(default_factory=dict)
    """Gradients by what models were given."""
    others: dict[ast.Call, OtherCall] = field(default_factory=dict)
    loaders: dict[ast.AST, Built] = field(default_factory=dict)
    loader_bindings: dict[tuple[ast.stmt, str], Binding] = field(default_factory=dict)
    optimizers: dict[ast.AST, Built] = field(default_factory=dict)
    optimizer_names: dict[ast.AST, str] = field(default_factory=dict)
    contexts: dict[ast.AST, str] = field(default_factory=dict)
    """Expressions of `with` items and decorators: `no_grad`, `inference_mode`, `autocast`, `enable_grad`."""
    follows: dict[ast.AST, set[ast.AST]] = field(default_factory=dict)
    """For a model: the models whose weights it was given."""
    numpy_inside: set[ast.Call] = field(default_factory=set)
    """Calls inside of modules whose results became NumPy arrays."""
    fits: set[ast.AST] = field(default_factory=set)
    """Calls of project methods of a model that train it inside."""
    forward_statements: set[tuple[ast.stmt, ast.AST]] = field(default_factory=set)
    """Statements (whole stacks) during which a model was run, with the model."""
    returned: set[tuple[ast.AST, ast.AST]] = field(default_factory=set)
    """Functions that return a model, with the model."""
    unexplained: dict[ast.Call, str] = field(default_factory=dict)
    """Calls that gave nothing known, with the name that their result is bound to."""
    blind: dict[ast.Call, Parsed] = field(default_factory=dict)
    """Calls of something of which nothing is known."""
    unfollowed: dict[Path, ast.Call] = field(default_factory=dict)
    """For files in which calls are no longer followed, since the analysis has taken too long: the first such call."""
    unread: dict[Path, str] = field(default_factory=dict)
    """Project files that were taken for empty, and why."""
    imports: dict[ast.stmt, Path] = field(default_factory=dict)
    """Import statements, with a project file that they import."""
    out_of_time: set[Path] = field(default_factory=set)
    """Files about which not everything could be asked that jedi might have known."""
    resolved: dict[ast.AST, str] = field(default_factory=dict)
    """Dotted names outside the project that callees and attributes stand for."""

    def holders_of(self, sites: Iterable[ast.AST]) -> set[ast.AST]:
        """The models that some models are parts of, at any depth."""
        found: set[ast.AST] = set()
        queue = list(sites)
        while queue:
            fresh = self.models[queue.pop()].holders - found
            found |= fresh
            queue.extend(fresh)
        return found

    def model(self, thing: ModelObject) -> BuiltModel:
        """What is known about a model."""
        return self.models[thing.site]

    def mark_trained(self, sites: Iterable[ast.AST]) -> None:
        """Note that models are trained."""
        for model in self._with_parts(sites):
            model.trained = True

    def mark_inferred(self, sites: Iterable[ast.AST]) -> None:
        """Note that models are run outside of training."""
        for model in self._with_parts(sites):
            model.inferred = True

    def _with_parts(self, sites: Iterable[ast.AST]) -> set[BuiltModel]:
        """Models, what they are other views of, and what they consist of."""
        found: set[BuiltModel] = set()
        waiting = list(sites)
        while waiting:
            for model in self.models[waiting.pop()].family():
                if model not in found:
                    found.add(model)
                    waiting.extend(model.parts)
        return found
