"""The state that the parts of the abstract interpreter share, and what each part promises to the others."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neural_coder.analysis.facts import Facts, Step
from neural_coder.analysis.frames import Frame
from neural_coder.analysis.glance import Glance
from neural_coder.analysis.project import Project
from neural_coder.analysis.syntax import FunctionNode
from neural_coder.analysis.values import ClassInfo, Flow, FunctionInfo, ModelObject, Thing, Value

MAX_STEPS = 25_000
"""Statements to run before calls of project functions are no longer followed."""
MAX_DEPTH = 18
MAX_STEPS_OF_MANY = 3_000
MAX_DEPTH_OF_MANY = 4
"""The same where a script brings in so many files that they are run only by need."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What running a function gave and did."""

    value: Value
    ran_forward: bool
    ran_backward: bool
    layers: frozenset[str]
    fresh: frozenset[ast.AST]
    heap_version: int
    changed: tuple[tuple[str, Value], ...]
    """Parameters into which something was put, and what they hold then."""


class Machine(ABC):
    """State of one interpretation.

    Args:
        project: Where imports are looked up.
        glance: Tells which names of other files are worth looking up, where there are many files.
        script: The file that starts the program; absolute imports are resolved against its folder.
        reported: Files whose main guards run, as if each were the script.
    """

    def __init__(self, project: Project, glance: Glance, script: Path, reported: frozenset[Path]):
        self.project = project
        self.glance = glance
        self.script_folder = script.resolve().parent
        self.reported = reported
        self.eager = project.is_small(script)
        """Project files are run as soon as they are imported, as Python does; else when a name of theirs is needed."""
        self.max_steps = MAX_STEPS if self.eager else MAX_STEPS_OF_MANY
        self.max_depth = MAX_DEPTH if self.eager else MAX_DEPTH_OF_MANY
        self.catalogue = project.catalogue
        self.facts = Facts(self.catalogue)
        self.inference = project.inference
        self.steps = 0
        self.stack: list[Step] = []
        self.grad = True
        self.autocast = False
        self.model_calls: list[ast.AST] = []
        """Calls of methods of models around the running statement."""
        self.ran_forward = False
        self.ran_backward = False
        self.layer_sets: list[set[str]] = []
        """One for each module that is being built: the layers that it turns out to hold."""
        self.fresh: list[set[ast.AST]] = [set()]
        """One for each running function: the models that it has built, itself or by what it called."""
        self.part_nodes: dict[tuple[ast.AST, str], ast.AST] = {}
        """For a model or trainer and the name of an attribute: what stands for the model there."""
        self.part_owners: dict[ast.AST, ast.AST] = {}
        self.views: dict[tuple[ast.AST, ast.AST], ast.AST] = {}
        """For a call and a model that was built in it: what stands for the model outside."""
        self.own_models: dict[tuple[ast.ClassDef, str], ast.AST] = {}
        """What stands for attributes of classes that are used as models, and that no file of the project sets."""
        self.given_fields: dict[ast.AST | None, dict[str, Value]] = {}
        """For a call that builds an object without a constructor of its own (a dataclass): what its fields got."""
        self.modules: dict[Path, Frame] = {}
        self.own_packages: dict[str, bool] = {}
        """Libraries of the catalogue, and whether the project is that library itself."""
        self.closures: set[Frame] = set()
        """Frames that functions close over."""
        self.classes: dict[ast.ClassDef, ClassInfo] = {}
        self.functions: dict[FunctionNode | ast.Lambda, FunctionInfo] = {}
        self.mentions: dict[Path, bool] = {}
        self.called: set[ast.AST] = set()
        self.loaders_read: set[ast.AST] = set()
        self.evaluators: dict[type[ast.expr], Callable[[Any, Frame], Value]] = {}
        self.runners: dict[type[ast.stmt], Callable[[Any, Frame], bool | None] | None] = {}
        self.kept: set[str] = set()
        """Dotted names of attributes that were put on objects that nothing is known about: `app.state.model`."""
        self.heap_version = 0
        """Counts changes to what functions may read beyond their arguments."""
        self.call_depth = 0
        self.nesting = 0
        self.outcomes: dict[tuple[object, ...], Outcome] = {}
        self.handed: set[ast.AST] = set()
        self.handed_partials: set[Thing] = set()

    def take_apart(self) -> None:
        """Undo the references that lead in circles, when all is told.

        Everything is freed then at once. Python's collector would have to walk through all syntax trees for it, which
        takes longer than the interpretation.
        """
        for frame in self.closures:
            frame.clear()
        for info in self.classes.values():
            info.bases.clear()
            info.members.clear()
            info.attributes.clear()
        self.evaluators.clear()
        self.runners.clear()

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent: project functions are no longer followed from their calls."""
        return self.steps > self.max_steps

    @abstractmethod
    def run_block(self, block: list[ast.stmt], frame: Frame) -> bool:
        """Run statements; True when control never comes out at their end."""

    @abstractmethod
    def evaluate(self, node: ast.expr, frame: Frame) -> Value:
        """What an expression may give."""

    @abstractmethod
    def assign(
        self, target: ast.expr, value: Value, frame: Frame, statement: ast.stmt, source: ast.expr | None
    ) -> None:
        """Bind a target; `source` is the expression on the right, when the statement builds something there."""

    @abstractmethod
    def call_value(
        self, function: Value, arguments: list[Value], keywords: dict[str, Value], node: ast.Call | None, frame: Frame
    ) -> Value:
        """What calling a value gives."""

    @abstractmethod
    def member_of(self, thing: Thing, name: str) -> Value | None:
        """An attribute of a project object or class; None when it has none of that name."""

    @abstractmethod
    def attribute(self, value: Value, name: str, frame: Frame) -> Value:
        """What an attribute of a value may be."""

    @abstractmethod
    def module_frame(self, path: Path) -> Frame:
        """The frame of a project file, run on its first use."""

    @abstractmethod
    def from_annotation(self, annotation: ast.expr | None, frame: Frame, name: str, site: ast.AST) -> Value:
        """A value of which only the annotation is known."""

    @abstractmethod
    def define(self, node: FunctionNode | ast.Lambda, frame: Frame) -> Value:
        """The value of a function definition or lambda."""

    @abstractmethod
    def note_update(self, value: Value) -> None:
        """Take note that a value, maybe a parameter of a model, is changed in place."""

    @abstractmethod
    def run_model(self, thing: ModelObject, node: ast.Call | None, frame: Frame, flows: frozenset[Flow]) -> Value:
        """What calling a model gives, which is noted as a site."""

    @abstractmethod
    def is_inner(self, thing: ModelObject, node: ast.Call, frame: Frame) -> bool:
        """Whether a call belongs to the inner working of a module."""

    @abstractmethod
    def module(self, name: str, level: int, frame: Frame) -> Value:
        """What importing a module gives."""

    @abstractmethod
    def resolve(self, value: Value) -> Value:
        """The value with names of project files looked up."""

    @abstractmethod
    def self_of(self, info: ClassInfo) -> Thing:
        """The object that a method runs on when nothing in the project makes one."""

    @abstractmethod
    def call(self, node: ast.Call, frame: Frame) -> Value:
        """What a call gives."""
