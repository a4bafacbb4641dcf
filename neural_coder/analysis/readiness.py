"""Finds the statement after which a model is ready: weights loaded, moved, wrapped, in its mode."""

from __future__ import annotations

import ast

from neural_coder.analysis.catalogue import words
from neural_coder.analysis.facts import Binding, Facts
from neural_coder.analysis.syntax import FunctionNode, Parsed, dotted, named

_LOOKS = words(
    """
    print summary len isinstance hasattr type id info debug str repr
    """
)
_PREPARES = words(
    """
    load init freeze restore resume prune fuse quantize convert prepare reload initialize initialise
    """
)
_RUNS = words(
    """
    train fit test eval evaluate validate run predict infer inference generate sample forward main demo launch start
    loop epoch step serve detect process call apply benchmark measure export spawn
    """
)
"""Words in names of functions that run a model that they get."""
_FINISHING = frozenset({"load_state_dict", "fuse", "compile"})
"""Methods that change what a model computes, beside those that move it or set its mode."""
_SETS_WEIGHTS = frozenset({"load", "restore", "apply", "init"})
"""Words in names of methods that change weights."""
_CONDITIONAL = (ast.Lambda, ast.IfExp, ast.BoolOp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
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
        self.why_not = binding.why_not_ready or self._never_called() or self._runs_inside()
        self.function: FunctionNode | None = self.parsed.function(binding.statement)

    def run(self) -> tuple[str, ast.stmt | None, str]:
        if self.why_not:
            return self.name, None, self.why_not
        if isinstance(self.start, (ast.If, ast.While, ast.For, ast.With)):
            return self.name, None, "it is bound in the header of a compound statement"
        if self._is_factory():
            return self.name, None, _RETURNED
        if self._is_taken_over():
            return self.name, None, "another file takes it over; it is ready there"
        ready, current = self.start, self.start
        is_bound, was_passed, was_wrapped = True, False, False
        while True:
            block, index = self.parsed.block(current)
            for statement in block[index + 1 :]:
                step = self._step(statement)
                if step == "used" or (step == "returned" and was_wrapped):
                    return self.name, ready, ""
                if step == "returned":
                    return self.name, None, _RETURNED
                was_wrapped = was_wrapped or step == "wrapped"
                is_bound = is_bound or reads_surely(statement, self.name)
                was_passed = was_passed or step == "passed"
                counts = self._loads(statement) if was_wrapped else not was_passed or self._finishes(statement)
                if is_bound and step and counts:
                    ready = statement
            outer = self._surrounding(current)
            if outer is None:
                return self.name, ready, ""
            is_bound = is_bound and self._always_binds(outer)
            current = outer

    def _never_called(self) -> str:
        names = {self.facts.models[site].qualified_name for site in self.sites}
        if names and names <= {"torch.nn.ModuleList", "torch.nn.ModuleDict"}:
            return "it is a container of modules, which is never called itself"
        return ""

    def _runs_inside(self) -> str:
        """Whether the model only runs as a part of another one that is called as a whole, in words."""
        facts = self.facts
        called = {site for call in facts.forwards.values() for site in call.models}
        outers = {model.site for model in facts.models.values() if not model.parts.isdisjoint(self.sites)}
        if not outers or self.sites & called or not outers & called:
            return ""
        names = {binding.name for binding in facts.bindings.values() if not outers.isdisjoint(binding.sites)}
        whole = all(
            named(call.node.func) in names for call in facts.forwards.values() if not outers.isdisjoint(call.models)
        )
        other = min(names - {self.name}, default="what wraps it")
        return f"it runs as a part of {other}" if whole and names else ""

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

    def _is_taken_over(self) -> bool:
        """Whether the script gives a name of its own to what another file builds: `decoder = parts.decoder`."""
        here = [site for site in self.sites if self.facts.models[site].parsed is self.parsed]
        return self.function is None and any(
            other.parsed is not self.parsed and not other.borrowed and not other.sites.isdisjoint(here)
            for other in self.facts.bindings.values()
        )

    def _surrounding(self, statement: ast.stmt) -> ast.stmt | None:
        """The compound statement around a block that runs at most once."""
        parent = self.parsed.parents.get(statement)
        if isinstance(parent, ast.With | ast.AsyncWith | ast.If):
            return parent
        return parent if isinstance(parent, ast.Try) and statement in (*parent.body, *parent.orelse) else None

    def _always_binds(self, statement: ast.stmt) -> bool:
        """Whether the name is bound behind a compound statement, whatever happened inside."""
        if isinstance(statement, ast.If):
            return self._all_branches_bind(statement)
        if isinstance(statement, ast.Try):
            return all(_leaves(handler.body) or self._binds(handler.body) for handler in statement.handlers)
        return True

    def _all_branches_bind(self, node: ast.If) -> bool:
        return all(_leaves(block) or self._binds(block) for block in (node.body, node.orelse))

    def _binds(self, block: list[ast.stmt]) -> bool:
        for statement in block:
            if isinstance(statement, ast.If) and self._all_branches_bind(statement):
                return True
            if isinstance(statement, ast.With) and self._binds(statement.body):
                return True
            if self.name in _targets(statement):
                # None stands for "no model": what is done with one must not be done with that.
                return not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant))
        return False

    def _step(self, statement: ast.stmt) -> str:
        """What a later statement is to the model.

        `prepares`, `passed` (on), `wrapped` (under another name), `used`, `returned`, or nothing (empty text).
        """
        if self.index and self.index in _targets(statement):
            return "used"
        if self._goes_over_container(statement):
            return "used" if self._uses(statement) else "prepares"
        if isinstance(statement, _DEFINITIONS) or not self._mentions(statement):
            # Functions that it calls may use a model that is global, or that goes by another name here.
            return "used" if isinstance(statement, _LEAVING) or self._uses(statement) else ""
        if isinstance(statement, ast.Return):
            # In a dict it has no name outside; before the return it still has its own.
            in_dict = isinstance(statement.value, ast.Dict)
            return "returned" if not self._uses(statement) and not in_dict else "used"
        if self._uses(statement) or self._becomes_part(statement):
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

    def _becomes_part(self, statement: ast.stmt) -> bool:
        """`model = Wrapper(model)`: the name comes to mean another model, which holds the old one."""
        other = self.facts.bindings.get((statement, self.name))
        return other is not None and any(
            not self.sites.isdisjoint(self.facts.models[site].parts) for site in other.sites
        )

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
                if self._seems_to_run(node, node.func.attr):
                    return "used"
                verdict = verdict if _only_reads(node.func.attr) else "prepares"
            elif self._is_argument(node):
                if self._wraps(node) and self._is_for_another_name(node):
                    return "wrapped"
                if not self._prepares(node, statement, rebound):
                    if not self._may_only_read(node, statement):
                        return "used"
                    verdict = verdict or "passed"
                elif not _is_look(node):
                    verdict = "prepares"
        if isinstance(statement, ast.For) and dotted_root_is(statement.iter, self.name):
            verdict = "prepares"
        return verdict

    def _seems_to_run(self, call: ast.Call, method: str) -> bool:
        """Whether a method that was not followed has the name of one that runs or trains the model."""
        if method == "train":
            plain = ast.Constant | ast.Compare | ast.Name
            return len(call.args) > 1 or any(not isinstance(item, plain) for item in call.args)
        return method == "fit" or method in self.facts.catalogue.run_methods

    def _is_argument(self, call: ast.Call) -> bool:
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        return any(named(item.value if isinstance(item, ast.Starred) else item) == self.name for item in given)

    def _prepares(self, call: ast.Call, statement: ast.stmt, rebound: bool) -> bool:
        """Whether a call that gets the model only prepares (or looks at) it."""
        if _is_look(call) or rebound:
            return True
        entry = self.facts.catalogue.call(self.facts.resolved.get(call, ""))
        if entry is not None and entry.gives == "same":
            return isinstance(
                self.parsed.parents.get(call), ast.Expr
            )  # else what is wrapped goes by another name from here on
        return self._in_init() or (
            isinstance(statement, ast.Expr | ast.If | ast.Assign) and self._is_known_function(call)
        )

    def _wraps(self, call: ast.Call) -> bool:
        """Whether a call gives back the model that it gets, changed or wrapped."""
        entry = self.facts.catalogue.call(self.facts.resolved.get(call, ""))
        return entry is not None and entry.gives == "same"

    def _is_for_another_name(self, call: ast.Call) -> bool:
        """`net = DataParallel(model)`: the model's own name still stands for it, and may be used to load weights."""
        parent = self.parsed.parents.get(call)
        return isinstance(parent, ast.Assign) and all(
            isinstance(target, ast.Name) and target.id != self.name for target in parent.targets
        )

    def _loads(self, statement: ast.stmt) -> bool:
        """Whether a statement gives a model other weights, by methods of it or of its parts."""
        return any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and not _SETS_WEIGHTS.isdisjoint(node.func.attr.split("_"))
            and dotted_root_is(node.func.value, self.name)
            for node in ast.walk(statement)
        )

    def _may_only_read(self, call: ast.Call, statement: ast.stmt) -> bool:
        """Whether a function that gets the model may well do so for its shapes or its parameters alone.

        Objects keep what they get, and functions that train, test or serve run it: behind those it is too late.
        """
        if self._wraps(call):
            return False
        last = dotted(call.func).rpartition(".")[2]
        words = set(last.lower().split("_"))
        return bool(last) and last.islower() and not words & _RUNS and not isinstance(statement, _LOOPS)

    def _finishes(self, statement: ast.stmt) -> bool:
        """Whether a statement certainly changes what a model computes, or where: then it is not in use before."""
        for node in ast.walk(statement):
            if isinstance(node, ast.stmt) and self.name in _targets(node):
                return True
            if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
                if dotted_root_is(node, self.name):
                    return True
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and self._is_finishing(node.func.attr)
            ):
                if dotted_root_is(node.func.value, self.name):
                    return True
            elif isinstance(node, ast.Call) and self._is_argument(node) and self._is_known_function(node):
                return True
        return False

    def _in_init(self) -> bool:
        return self.name.startswith("self.") and self.function is not None and self.function.name == "__init__"

    def _whole(self, call: ast.Call) -> ast.Call:
        """`Checkpointer(model).load(path)` of `Checkpointer(model)`."""
        parent = self.parsed.parents.get(call)
        around = self.parsed.parents.get(parent) if isinstance(parent, ast.Attribute) else None
        return self._whole(around) if isinstance(around, ast.Call) and around.func is parent else call

    def _is_finishing(self, method: str) -> bool:
        return method in _FINISHING or method in self.facts.catalogue.same_methods

    def _is_known_function(self, call: ast.Call) -> bool:
        """Whether a call stands by itself, or gives what it loaded, and its name says that it prepares a model."""
        whole = self._whole(call)
        last = whole.func.attr if isinstance(whole.func, ast.Attribute) else dotted(whole.func)
        alone = isinstance(self.parsed.parents.get(whole), ast.Expr | ast.Assign)
        return alone and bool(set(last.lower().split("_")) & _PREPARES)


def reads_surely(statement: ast.stmt, name: str) -> bool:
    """Whether a statement, whenever it runs, needs an attribute of the named object: it is bound, and not None."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and named(node.value) == name:
            return True
        if isinstance(node, ast.stmt):
            waiting.extend(child for child in _header(node) if isinstance(child, ast.expr | ast.withitem))
        elif not isinstance(node, _CONDITIONAL):
            waiting.extend(ast.iter_child_nodes(node))
    return False


def _header(statement: ast.stmt) -> list[ast.AST]:
    """The expressions of a statement that run first; not those of its blocks."""
    return [] if isinstance(statement, (*_DEFINITIONS, ast.While)) else list(ast.iter_child_nodes(statement))


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
