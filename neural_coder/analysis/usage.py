"""What the text of a scope tells about a name: whether it is used as only a module is used."""

from __future__ import annotations

import ast
import re

from neural_coder.analysis import catalogue
from neural_coder.analysis.syntax import Parsed, named

_TELLING = catalogue.words(
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


def named_like_model(name: str) -> bool:
    """Whether a name is one that people give to models."""
    last = name.rpartition(".")[2]
    return bool(_MODEL_NAME.search(last)) and not _NO_MODEL_NAME.search(last)


def looks_like_model(target: ast.expr, scope: ast.AST, parsed: Parsed) -> int:
    """How much the uses of a target in its scope speak for a module.

    Args:
        target: A name, or an attribute such as `self.model`.
        scope: The function, class or file in which its uses are looked at.
        parsed: The file.

    Returns:
        0: nothing; 1: it is named like a model and called; 2: methods are used that only modules have.
    """
    return _strength(named(target), scope, parsed)


def parameter_looks_like_model(function: ast.AST, name: str, parsed: Parsed) -> int:
    """The same for a parameter of a function."""
    return _strength(name, function, parsed)


def _strength(name: str, scope: ast.AST, parsed: Parsed) -> int:
    if not name or catalogue.LOSS_VARIABLES.search(name):
        return 0
    if scope not in parsed.uses:
        parsed.uses[scope] = _uses(scope)
    methods = parsed.uses[scope].get(name, set())
    # Optimizers have `zero_grad` and `state_dict` too; `eval` is also a method of pandas frames.
    telling = methods & _TELLING
    if "step" in methods or "inverse_transform" in methods:
        return 0
    if telling & {"parameters", "named_parameters", "modules", "named_modules", "named_children", "requires_grad_"}:
        return 2
    called = _CALLED in methods
    if telling & {"eval", "load_state_dict", "state_dict"} and (called or methods & {"eval", "to", "cuda", "train"}):
        return 2
    return 1 if called and named_like_model(name) else 0


def _uses(scope: ast.AST) -> dict[str, set[str]]:
    """For each dotted name in a scope, the methods that are called on it; `()` stands for a call of the name itself."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Call):
            if node.args or node.keywords:
                found.setdefault(named(node.func), set()).add(_CALLED)
            if isinstance(node.func, ast.Attribute):
                found.setdefault(named(node.func.value), set()).add(node.func.attr)
    return found
