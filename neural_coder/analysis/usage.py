"""What the text of a scope tells about a name: whether it is used as only a module is used."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

from neural_coder.analysis.catalogue import Catalogue, words
from neural_coder.analysis.syntax import Parsed, dotted, named, walk_scope

TELLING = words(
    """
    eval parameters named_parameters state_dict load_state_dict zero_grad requires_grad_ modules
    named_modules named_children
    """
)
_MODEL_NAME = re.compile(
    r"(^|_)(models?|net|network|net[GDEF]|unet|vae|backbone|generator|discriminator|teacher|student|"
    r"actor|critic|policy|classifier|resnet\w*|bert|gpt2?|lstm|cnn|mlp|ddp|ema|encoder|decoder|G|D)(_|\d|$)"
)

_NO_MODEL_NAME = re.compile(r"(^|_)(cls|class|type|name|fn|func|factory|builder|kwargs|args|config|cfg|path)s?$")
"""Endings of names such as `net_cls` and `model_fn`: what is called there gives a model, and is none."""
_CALLED = "()"
_PARAMETERS = frozenset({"Parameter", "register_parameter", "add_module"})
_OWNER = re.compile(r"\s*\.\s*(\w+(?:\s*\.\s*\w+){0,9})")
"""Read backwards from a method's name: what it is called on, with few dots, as data in strings can be long."""
_OPENS = re.compile(r"\s*\(")
_LONGEST_OWNER = 300


def named_like_model(name: str) -> bool:
    """Whether a name is one that people give to models."""
    last = name.rpartition(".")[2]
    return bool(_MODEL_NAME.search(last)) and not _NO_MODEL_NAME.search(last)


_VERBS = words(
    """
    add apply build check clean compile configure convert copy create define delete deploy download encode eval evaluate
    export fetch find fit fix freeze get init initialize initialise inspect is load log make new optimize parse plot
    prepare print process push quantize register remove reset restore resume run save score select send set setup show
    summarize summary test to train transform update upload validate wrap write
    """
)
_MAKERS = words("builder class cls config creator factory fn func function init maker name type")


def names_a_model(callee: str) -> bool:
    """Whether a callee is named like a model, not like a function that does something with one (`save_model`)."""
    last = callee.rpartition(".")[2]
    return named_like_model(last) and last.partition("_")[0] not in _VERBS and last.rpartition("_")[2] not in _MAKERS


def looks_like_model(target: ast.expr, scope: ast.AST, parsed: Parsed, catalogue: Catalogue) -> int:
    """How much the uses of a target in its scope speak for a module.

    Args:
        target: A name, or an attribute such as `self.model`.
        scope: The function, class or file in which its uses are looked at.
        parsed: The file.
        catalogue: Knows how losses are named, which are called like models.

    Returns:
        0: nothing; 1: it is named like a model and called; 2: methods are used that only modules have.
    """
    return _strength(named(target), scope, parsed, catalogue)


def is_called(target: ast.expr, scope: ast.AST, parsed: Parsed) -> bool:
    """Whether a target is called with arguments somewhere in its scope."""
    return _CALLED in _uses_in(scope, parsed).get(dotted(target), ())


def parameter_looks_like_model(function: ast.AST, name: str, parsed: Parsed, catalogue: Catalogue) -> int:
    """The same for a parameter of a function."""
    return _strength(name, function, parsed, catalogue)


def _strength(name: str, scope: ast.AST, parsed: Parsed, catalogue: Catalogue) -> int:
    if not name or not (named_like_model(name) or name in _told(parsed)) or catalogue.names_loss(name):
        return 0
    methods = _uses_in(scope, parsed).get(name, set())
    # Optimizers have `zero_grad` and `state_dict` too, tensors `requires_grad_`; `eval` is also one of pandas frames.
    telling = methods & TELLING
    if "step" in methods or "inverse_transform" in methods:
        return 0
    if telling & {"parameters", "named_parameters", "modules", "named_modules", "named_children"}:
        return 2
    called = _CALLED in methods
    if "requires_grad_" in telling and called:  # tensors have it too, but are not called
        return 2
    if telling & {"eval", "load_state_dict", "state_dict"} and (called or methods & {"eval", "to", "cuda", "train"}):
        return 2
    return 1 if called and named_like_model(name) else 0


def _told(parsed: Parsed) -> set[str]:
    """Names that somewhere in a file have a method called that tells; found in the text, as most files have none."""
    if parsed.told is None:
        text = parsed.source.text
        parsed.told = {owner for method in TELLING if method in text for owner in _owners(method, text)}
    return parsed.told


def _owners(method: str, text: str) -> Iterator[str]:
    """What a method is called on in a text."""
    place = text.find(method)
    while place >= 0:
        if _OPENS.match(text, place + len(method)):
            before = _OWNER.match(text[max(0, place - _LONGEST_OWNER) : place][::-1])
            if before:
                yield "".join(before[1].split())[::-1]
        place = text.find(method, place + len(method))


def _uses_in(scope: ast.AST, parsed: Parsed) -> dict[str, set[str]]:
    if scope not in parsed.uses:
        parsed.uses[scope] = _uses(scope, parsed)
    return parsed.uses[scope]


def _uses(scope: ast.AST, parsed: Parsed) -> dict[str, set[str]]:
    """For each dotted name in a scope, the methods that are called on it; `()` stands for a call of the name itself."""
    found: dict[str, set[str]] = {}
    for node in parsed.below(scope):
        if isinstance(node, ast.Call):
            if node.args or node.keywords:
                found.setdefault(named(node.func), set()).add(_CALLED)
            # Data frames and metrics have an `eval` that takes arguments; that of a module takes none.
            if isinstance(node.func, ast.Attribute) and not (node.func.attr == "eval" and (node.args or node.keywords)):
                found.setdefault(named(node.func.value), set()).add(node.func.attr)
    return found


@functools.lru_cache(maxsize=256)
def is_training_method(function: ast.AST, catalogue: Catalogue) -> bool:
    """Whether a method of a module takes a step of training: it computes gradients of the parameters."""
    if catalogue.is_step_method(getattr(function, "name", "")):
        return True
    return any(isinstance(node, ast.Call) and _computes_gradients(node) for node in walk_scope(function))


def _computes_gradients(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Attribute) and call.func.attr in {"backward", "manual_backward"}:
        return True
    # Derivatives by the inputs are part of many forwards (forces, residuals of equations).
    by_parameters = any(
        isinstance(node, ast.Attribute) and node.attr == "parameters"
        for item in call.args[1:]
        for node in ast.walk(item)
    )
    return dotted(call.func).endswith("autograd.grad") and by_parameters


@functools.lru_cache(maxsize=256)
def only_computes_loss(node: ast.ClassDef, catalogue: Catalogue) -> bool:
    """Whether a module class is a loss by what it does: no parameters, no other modules, and losses of PyTorch."""
    forward = _forward_of(node)
    if forward is None or len(forward.args.args) < 3 or _holds_parameters(node, catalogue):
        return False
    losses, held = _held_losses(node, catalogue), _held_callables(node)
    return held <= losses and bool(losses & held or any(catalogue.computes_loss(name) for name in _called_in(node)))


@functools.lru_cache(maxsize=256)
def only_computes_targets(node: ast.ClassDef, catalogue: Catalogue) -> bool:
    """Whether a module class matches, assigns or sorts out: no parameters, no other modules, never any gradients."""
    forward = _forward_of(node)
    if forward is None or not any("no_grad" in ast.unparse(item) for item in forward.decorator_list):
        return False
    local = {item.id for item in ast.walk(node) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)}
    return not (_holds_parameters(node, catalogue) or _held_callables(node) or local & _called_in(node))


def _forward_of(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "forward"), None)


def _called_in(node: ast.ClassDef) -> set[str]:
    """The last parts of the names that a class calls."""
    return {dotted(item.func).rpartition(".")[2] for item in ast.walk(node) if isinstance(item, ast.Call)}


def _holds_parameters(node: ast.ClassDef, catalogue: Catalogue) -> bool:
    return bool(_called_in(node) & (catalogue.layers | catalogue.containers | _PARAMETERS))


def _held_callables(node: ast.ClassDef) -> set[str]:
    """Attributes that a class calls, other than its own methods."""
    methods = {f"self.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    called = {dotted(item.func) for item in ast.walk(node) if isinstance(item, ast.Call)}
    return {name for name in called if name.startswith("self.")} - methods - {"self.register_buffer"}


def _held_losses(node: ast.ClassDef, catalogue: Catalogue) -> set[str]:
    """Attributes of a class that hold losses: `self.criterion = nn.MSELoss()`."""
    return {
        dotted(target)
        for item in ast.walk(node)
        if isinstance(item, ast.Assign) and isinstance(item.value, ast.Call)
        for target in item.targets
        if catalogue.is_loss(dotted(item.value.func))
    }


@functools.lru_cache(maxsize=256)
def written_parameters(function: ast.AST) -> frozenset[str]:
    """Parameters of a function that it writes into like into dicts: `data["flow"] = ...`, `data.update(...)`."""
    arguments = getattr(function, "args", None)
    names = {item.arg for item in arguments.args} if isinstance(arguments, ast.arguments) else set()
    return frozenset(names & {owner for node in walk_scope(function) if (owner := _written_into(node))})


def _written_into(node: ast.AST) -> str:
    """The name of the dict that a piece of code writes into."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        return dotted(node.value) if _is_key(node.slice) else ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
        return dotted(node.func.value)
    return ""


def _is_key(index: ast.expr) -> bool:
    return isinstance(index, ast.JoinedStr) or (isinstance(index, ast.Constant) and isinstance(index.value, str))
