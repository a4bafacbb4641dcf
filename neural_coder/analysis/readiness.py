"""Finds the statement after which a model is ready: weights loaded, moved, wrapped, in its mode."""

from __future__ import annotations

import ast

from neural_coder.analysis import catalogue
from neural_coder.analysis.facts import Binding, Facts
from neural_coder.analysis.syntax import FunctionNode, Parsed, dotted, named

_LOOKS = catalogue.words(
    """
    print summary len isinstance hasattr type id info debug str repr
    """
)
_RETURNED = "its function returns it; it is ready where that is called"
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LEAVING = (ast.Return, ast.Raise, ast.Break, ast.Continue)


def ready_after(facts: Facts, binding: Binding) -> tuple[str, ast.stmt | None, str]:
    """The model's name where it is ready, the statement behind which that is, and why there is none."""
    return _Search(facts, binding).run()


class _Search:
    """Follows one model from the statement that binds it through the statements that prepare it."""

    def __init__(self, facts: Facts, binding: Binding):
        self.facts = facts
        self.parsed: Parsed = binding.parsed
        self.sites = binding.sites
        self.name = binding.name
        self.start = binding.statement
        self.container, self.index = _parts_of(binding.name)
        self.why_not = binding.why_not_ready or self._never_called()
        self.function: FunctionNode | None = self.parsed.function(binding.statement)

    def run(self) -> tuple[str, ast.stmt | None, str]:
        if self.why_not:
            return self.name, None, self.why_not
        if isinstance(self.start, (ast.If, ast.While, ast.For, ast.With)):
            return self.name, None, "it is bound in the header of a compound statement"
        if self._is_factory():
            return self.name, None, _RETURNED
        ready, current = self.start, self.start
        while True:
            block, index = self.parsed.block(current)
            for statement in block[index + 1 :]:
                step = self._step(statement)
                if step == "returned":
                    return self.name, None, _RETURNED
                if step == "used":
                    return self.name, ready, ""
                if step == "prepares":
                    ready = statement
            outer = self._surrounding(current)
            if outer is None:
                return self.name, ready, ""
            current = outer

    def _never_called(self) -> str:
        names = {self.facts.models[site].qualified_name for site in self.sites}
        if names and names <= {"torch.nn.ModuleList", "torch.nn.ModuleDict"}:
            return "it is a container of modules, which is never called itself"
        return ""

    def _is_factory(self) -> bool:
        """Whether the function returns the model, and what it returns is bound elsewhere."""
        return self.function is not None and any(
            (self.function, site) in self.facts.returned and self._is_bound_elsewhere(site) for site in self.sites
        )

    def _is_bound_elsewhere(self, site: ast.AST) -> bool:
        return any(
            not other.borrowed
            and other.parsed.function(other.statement) is not self.function
            and any(model.site is site for mine in other.sites for model in self.facts.models[mine].family())
            for other in self.facts.bindings.values()
        )

    def _surrounding(self, statement: ast.stmt) -> ast.stmt | None:
        """The compound statement around a block, when the name is bound behind it whatever happened inside."""
        parent = self.parsed.parents.get(statement)
        if isinstance(parent, ast.ExceptHandler | ast.match_case):
            return None
        if isinstance(parent, ast.With | ast.AsyncWith):
            return parent
        if isinstance(parent, ast.If) and self._all_branches_bind(parent):
            return parent
        if isinstance(parent, ast.Try) and all(
            _leaves(handler.body) or self._binds(handler.body) for handler in parent.handlers
        ):
            return parent
        return None

    def _all_branches_bind(self, node: ast.If) -> bool:
        return all(_leaves(block) or self._binds(block) for block in (node.body, node.orelse))

    def _binds(self, block: list[ast.stmt]) -> bool:
        for statement in block:
            if isinstance(statement, ast.If) and self._all_branches_bind(statement):
                return True
            if isinstance(statement, ast.With) and self._binds(statement.body):
                return True
            if self.name in _targets(statement):
                return True
        return False

    def _step(self, statement: ast.stmt) -> str:
        """What a later statement is to the model: `prepares`, `used`, `returned`, or nothing (empty text)."""
        if self.index and self.index in _targets(statement):
            return "used"
        if self._goes_over_container(statement):
            return "used" if self._uses(statement) else "prepares"
        if isinstance(statement, _DEFINITIONS) or not self._mentions(statement):
            return "used" if isinstance(statement, _LEAVING) else ""
        if isinstance(statement, ast.Return):
            # In a dict it has no name outside; before the return it still has its own.
            in_dict = isinstance(statement.value, ast.Dict)
            return "returned" if not self._uses(statement) and not in_dict else "used"
        if self._uses(statement):
            return "used"
        alias = self._alias(statement)
        if alias:
            self.name = alias
            return "prepares"
        if self._rebinds_elsewhere(statement):
            return "used"
        return self._passes_on(statement)

    def _uses(self, statement: ast.stmt) -> bool:
        """Whether the model was run while the statement ran."""
        return any((statement, site) in self.facts.forward_statements for site in self.sites)

    def _mentions(self, node: ast.AST) -> bool:
        if self.container:
            return any(isinstance(part, ast.Subscript) and named(part) == self.name for part in ast.walk(node))
        last = self.name.rpartition(".")[2]
        return any(
            (
                (isinstance(part, ast.Name) and part.id == last)
                or (isinstance(part, ast.Attribute) and part.attr == last)
            )
            and dotted(part) == self.name
            for part in ast.walk(node)
        )

    def _goes_over_container(self, statement: ast.stmt) -> bool:
        """`for net in nets.values(): net.eval()`."""
        return (
            bool(self.container) and isinstance(statement, ast.For) and dotted_root_is(statement.iter, self.container)
        )

    def _alias(self, statement: ast.stmt) -> str:
        """`self.model = model`: from here on the object goes by the attribute."""
        if not isinstance(statement, ast.Assign) or "." in self.name or self.function is None:
            return ""
        for target in statement.targets:
            pairs = [(target, statement.value)]
            if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                pairs = list(zip(target.elts, statement.value.elts, strict=False))
            for left, right in pairs:
                if dotted(right) == self.name and dotted(left).startswith("self."):
                    return dotted(left)
        return ""

    def _rebinds_elsewhere(self, statement: ast.stmt) -> bool:
        """The name comes to mean another thing that is built without the old one."""
        if isinstance(statement, ast.Assign) and self.name in _targets(statement):
            return not self._mentions(statement.value)
        return False

    def _passes_on(self, statement: ast.stmt) -> str:
        """Decide for a statement in which the model is named but, as far as we saw, not run."""
        rebound = self.name in {
            name for part in ast.walk(statement) if isinstance(part, ast.stmt) for name in _targets(part)
        }
        verdict = "prepares" if rebound else ""
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                verdict = "prepares" if dotted_root_is(node, self.name) else verdict
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Attribute) and dotted_root_is(node.func.value, self.name):
                verdict = verdict if _only_reads(node.func.attr) else "prepares"
            elif self._is_argument(node):
                if not self._prepares(node, statement, rebound):
                    return "used"
                if not _is_look(node):
                    verdict = "prepares"
        if isinstance(statement, ast.For) and dotted_root_is(statement.iter, self.name):
            verdict = "prepares"
        return verdict

    def _is_argument(self, call: ast.Call) -> bool:
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        return any(named(item.value if isinstance(item, ast.Starred) else item) == self.name for item in given)

    def _prepares(self, call: ast.Call, statement: ast.stmt, rebound: bool) -> bool:
        """Whether a call that gets the model only prepares (or looks at) it."""
        if _is_look(call) or rebound:
            return True
        if self._in_init():
            return True
        # A bare call of a function of the project, which we followed and which did not run the model.
        return isinstance(statement, ast.Expr | ast.If) and self._is_bare(call) and self._is_known_function(call)

    def _in_init(self) -> bool:
        return self.name.startswith("self.") and self.function is not None and self.function.name == "__init__"

    def _is_bare(self, call: ast.Call) -> bool:
        return isinstance(self.parsed.parents.get(call), ast.Expr)

    def _is_known_function(self, call: ast.Call) -> bool:
        words = dotted(call.func).rpartition(".")[2].lower()
        return any(
            word in words
            for word in (
                "load",
                "init",
                "freeze",
                "restore",
                "resume",
                "prune",
                "fuse",
                "quantize",
                "convert",
                "prepare",
            )
        )


def _parts_of(name: str) -> tuple[str, str]:
    """The container and the name of the index in `nets[index]`; empty texts where there is none."""
    container, bracket, index = name.removesuffix("]").rpartition("[")
    return container, index if bracket and index.isidentifier() else ""


def _only_reads(method: str) -> bool:
    return method in {
        "parameters", "named_parameters", "state_dict", "modules", "named_modules", "children", "named_children",
        "buffers", "named_buffers", "get_input_embeddings", "num_parameters",
    }  # fmt: skip


def _is_look(call: ast.Call) -> bool:
    return dotted(call.func).rpartition(".")[2] in _LOOKS


def dotted_root_is(node: ast.AST, name: str) -> bool:
    """Whether an expression is the named object or a part of it: `model`, `model.fc`, `model.classifier[6]`."""
    while True:
        if named(node) == name:
            return True
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func.value
        else:
            return False


def _targets(statement: ast.AST) -> set[str]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = list(statement.targets)
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    names = set()
    while targets:
        target = targets.pop()
        if isinstance(target, ast.Tuple | ast.List):
            targets.extend(target.elts)
        else:
            names.add(named(target))
    return names - {""}


def _leaves(block: list[ast.stmt]) -> bool:
    """Whether control never comes out at the end of a block."""
    if not block:
        return False
    last = block[-1]
    if isinstance(last, _LEAVING):
        return True
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        return dotted(last.value.func) in {"exit", "quit", "sys.exit", "os._exit"}
    return isinstance(last, ast.If) and all(_leaves(part) for part in (last.body, last.orelse))
