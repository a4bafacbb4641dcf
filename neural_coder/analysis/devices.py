"""Finds expressions that name or need a CUDA device: by what they mean, not by how they are spelled."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from neural_coder.analysis.catalogue import words
from neural_coder.analysis.facts import Facts
from neural_coder.analysis.syntax import Parsed, dotted
from neural_coder.records import DeviceUse, Evidence

_CUDA = re.compile(r"cuda(:\d+)?|gpu")
_DEVICE_NAME = re.compile(r"(^|_|-)(device|devices|dev|gpu)(_|-|$|\d)", re.IGNORECASE)
_HARMLESS = words(
    """
    is_available device_count manual_seed manual_seed_all is_initialized is_bf16_supported empty_cache
    seed_all seed amp get_arch_list
    """
)
_DEVICE_FIRST = frozenset({"to", "to_empty", "type"})
_KNOWN = Evidence(known_by="import", confidence=0.95)
_NAMED = Evidence(known_by="name", confidence=0.8)


def find_devices(facts: Facts, parsed: Parsed) -> tuple[DeviceUse, ...]:
    """The device uses of a file, in the order of its text."""
    if "cuda" not in parsed.source.text and "pin_memory" not in parsed.source.text and ".to(" not in parsed.source.text:
        return ()
    search = _Search(facts, parsed)
    found = {use.expression: use for use in search.run()}
    outermost = [
        use
        for use in found.values()
        if not any(
            other is not use and other.expression.contains(use.expression) and _absorbs(other)
            for other in found.values()
        )
    ]
    return tuple(sorted(outermost, key=lambda use: use.expression))


def _absorbs(use: DeviceUse) -> bool:
    return use.kind in {"autocast", "grad_scaler", "map_location", "cuda_call"}


class _Search:
    def __init__(self, facts: Facts, parsed: Parsed):
        self.facts = facts
        self.parsed = parsed
        self.guards = self._guard_names()

    def run(self) -> Iterator[DeviceUse]:
        for node in self.parsed.nodes:
            if isinstance(node, ast.Call):
                uses = list(self._of_call(node))
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                uses = list(self._of_assignment(node))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                uses = list(self._of_defaults(node))
            elif isinstance(node, ast.keyword) and node.arg == "pin_memory":
                uses = []
                if isinstance(node.value, ast.Constant) and node.value.value is True:
                    uses = [self._use("pin_memory", node.value, _KNOWN)]
            else:
                continue
            if uses and not self._is_guarded(node):
                yield from uses

    def _use(self, kind: object, node: ast.expr, evidence: Evidence, receiver: ast.expr | None = None) -> DeviceUse:
        parent = self.parsed.parents.get(node)
        return DeviceUse(
            kind=kind,  # type: ignore[arg-type]
            line=node.lineno,
            expression=self.parsed.span(node),
            text=self.parsed.text(node),
            receiver=self.parsed.span(receiver) if receiver is not None else None,
            is_statement=isinstance(parent, ast.Expr),
            evidence=evidence,
        )

    # --- calls ------------------------------------------------------------------------------------------------------

    def _name(self, node: ast.expr) -> str:
        """The dotted name that a callee stands for outside the project, as far as the file was run."""
        return self.facts.resolved.get(node, "")

    def _of_call(self, node: ast.Call) -> Iterator[DeviceUse]:
        name = self.facts.catalogue.canonical(self._name(node) or self._name(node.func))
        entry = self.facts.catalogue.entry(name)
        if entry is not None and entry.gives == "autocast":
            if "cpu" not in name and ("cuda.amp" in name or self._cuda_in(node)):
                yield self._use("autocast", node, _KNOWN)
        elif entry is not None and entry.gives == "scaler":
            if "cuda.amp" in name or self._cuda_in(node) or not node.args:
                yield self._use("grad_scaler", node, _KNOWN)
        elif name.startswith("torch.cuda."):
            if name.split(".")[2] not in _HARMLESS:
                yield self._use("cuda_call", node, _KNOWN)
        elif isinstance(node.func, ast.Attribute) and not name:
            yield from self._of_method(node, node.func)
        yield from self._of_arguments(node, name)

    def _cuda_in(self, node: ast.Call) -> bool:
        given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "device_type")]
        return any(_is_cuda(value) for value in given)

    def _of_method(self, node: ast.Call, callee: ast.Attribute) -> Iterator[DeviceUse]:
        if callee.attr == "cuda":
            yield self._use("cuda_method", node, _NAMED, callee.value)
        elif callee.attr == "pin_memory" and not node.args:
            yield self._use("pin_memory", node, _NAMED, callee.value)
        elif callee.attr in _DEVICE_FIRST and node.args:
            yield from self._devices_in(node.args[0], integers=callee.attr == "to")

    def _of_arguments(self, node: ast.Call, name: str) -> Iterator[DeviceUse]:
        if name == "torch.device" and node.args:
            yield from self._devices_in(node.args[0], integers=True)
        if name in {"torch.set_default_device", "torch.set_default_tensor_type"} and node.args:
            yield from self._devices_in(node.args[0], integers=False)
        for keyword in node.keywords:
            if keyword.arg == "map_location":
                if any(True for _ in self._devices_in(keyword.value, integers=False)) or _moves_to_cuda(keyword.value):
                    yield self._use("map_location", keyword.value, _KNOWN)
            elif keyword.arg in {"device", "device_map", "device_type"}:
                yield from self._devices_in(keyword.value, integers=keyword.arg == "device")
            elif keyword.arg == "default" and self._is_device_option(node):
                yield from self._devices_in(keyword.value, integers=False)
        if (
            name == "torch.load"
            and len(node.args) > 1
            and any(True for _ in self._devices_in(node.args[1], integers=False))
        ):
            yield self._use("map_location", node.args[1], _KNOWN)

    def _is_device_option(self, node: ast.Call) -> bool:
        """`parser.add_argument("--device", default="cuda")`."""
        if not (isinstance(node.func, ast.Attribute) and node.func.attr in {"add_argument", "option"}):
            return False
        return any(isinstance(item, ast.Constant) and _DEVICE_NAME.search(str(item.value)) for item in node.args)

    def _devices_in(self, node: ast.expr, *, integers: bool) -> Iterator[DeviceUse]:
        """The literals for a CUDA device that an expression may give, outside of a test for one."""
        if _is_cuda(node) or (
            integers and isinstance(node, ast.Constant) and type(node.value) is int and node.value >= 0
        ):
            yield self._use("device", node, _KNOWN)
        elif isinstance(node, ast.IfExp) and not self._tests_cuda(node.test):
            yield from self._devices_in(node.body, integers=integers)
            yield from self._devices_in(node.orelse, integers=integers)
        elif isinstance(node, ast.BoolOp):
            for value in node.values:
                yield from self._devices_in(value, integers=integers)

    # --- names ------------------------------------------------------------------------------------------------------

    def _of_assignment(self, node: ast.Assign | ast.AnnAssign) -> Iterator[DeviceUse]:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [dotted(target).rpartition(".")[2] for target in targets]
        if node.value is not None and any(_DEVICE_NAME.search(name) for name in names):
            yield from self._devices_in(node.value, integers=False)

    def _of_defaults(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[DeviceUse]:
        positional = [*node.args.posonlyargs, *node.args.args]
        pairs: list[tuple[ast.arg, ast.expr | None]] = [
            *zip(reversed(positional), reversed(node.args.defaults), strict=False),
            *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
        ]
        for argument, default in pairs:
            if default is not None and _DEVICE_NAME.search(argument.arg):
                yield from self._devices_in(default, integers=False)

    # --- tests for a GPU --------------------------------------------------------------------------------------------

    def _guard_names(self) -> set[str]:
        """Names that hold the answer to whether there is a GPU: `use_cuda = torch.cuda.is_available()`."""
        found: set[str] = set()
        text = self.parsed.source.text
        if "is_available" not in text and "device_count" not in text and "is_cuda_available" not in text:
            return found
        for node in self.parsed.nodes:
            if isinstance(node, ast.Assign) and self._asks(node.value):
                found.update(dotted(target) for target in node.targets)
        return found - {""}

    def _asks(self, node: ast.AST) -> bool:
        """Whether the truth of an expression implies that there is a GPU."""
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            return name.endswith(("cuda.is_available", "is_cuda_available")) or (
                name.endswith("cuda.device_count") and not node.args
            )
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            return any(self._asks(value) for value in node.values)
        if isinstance(node, ast.Compare):
            return self._asks(node.left) and isinstance(node.ops[0], ast.Gt | ast.GtE)
        return False

    def _tests_cuda(self, node: ast.AST) -> bool:
        if self._asks(node) or dotted(node) in self.guards:
            return True
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            return any(self._tests_cuda(value) for value in node.values)
        return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and self._tests_cuda(node.operand)

    def _is_guarded(self, node: ast.AST) -> bool:
        """Whether a node only runs where a GPU was found."""
        child = node
        for parent in self.parsed.ancestors(node):
            if isinstance(parent, ast.If | ast.IfExp) and self._tests_cuda(parent.test):
                negated = isinstance(parent.test, ast.UnaryOp)
                body = parent.body if isinstance(parent.body, list) else [parent.body]
                if (child in body) != negated and child is not parent.test:
                    return True
            if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                return False
            child = parent
        return False


def _is_cuda(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr):
        first = node.values[0] if node.values else None
        return isinstance(first, ast.Constant) and str(first.value).startswith("cuda:")
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(_CUDA.fullmatch(node.value))


def _moves_to_cuda(node: ast.expr) -> bool:
    """`lambda storage, location: storage.cuda()`."""
    return isinstance(node, ast.Lambda) and any(
        isinstance(part, ast.Attribute) and part.attr == "cuda" for part in ast.walk(node.body)
    )
