"""What stands in for a model's `forward`: it lets the engine answer where that is safe, and the original elsewhere.

The first calls run the original, watched, until the prover has shown that a converted copy gives the same answers; from
then on the copy answers calls of that kind. Every other kind of call is proven in the same way before it is trusted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Mapping

import torch

from neural_coder.runtime import guards
from neural_coder.runtime.engine import Engine
from neural_coder.runtime.explanation import Explanation
from neural_coder.runtime.kind import Kind, OtherStructure
from neural_coder.runtime.proving import Converted, Prover, in_words
from neural_coder.runtime.settings import Settings
from neural_coder.runtime.standing import Standing
from neural_coder.runtime.structure import Call, tensors_inside

log = logging.getLogger(__name__)

_GRADIENTS = "gradients are enabled (torch.inference_mode() or torch.no_grad() switches them off)"

_OF_FUNCTIONS = {
    "__annotations__", "__closure__", "__code__", "__defaults__", "__func__", "__globals__", "__kwdefaults__",
    "__name__", "__qualname__", "__self__",
}  # fmt: skip
"""What tools such as `torch.jit.script` ask a forward for; the original's is the answer."""

Forward = Callable[..., object]


class _Forks:
    """How many forks lie between the first process and this one; to ask the system who one is costs more."""

    count = 0

    @classmethod
    def counted(cls) -> None:
        """Called in each new child."""
        cls.count += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Forks.counted)


class Dispatcher:
    """The forward of an accelerated model."""

    def __init__(self, model: torch.nn.Module, engine: Engine, settings: Settings) -> None:
        """Stand in for the forward of `model`, which is not called yet."""
        self.__wrapped__: Forward = model.forward  # where `inspect.signature` looks
        self._model = model
        self._engine = engine
        self._forks = _Forks.count
        self._standing = Standing(type(model).__name__, settings)
        self._prover = Prover(model, engine, settings, self._standing, self.__wrapped__)

    def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Answer a call."""
        if torch.compiler.is_compiling():
            return self.__wrapped__(*args, **kwargs)
        reason = self._standing.stopped or guards.transformed() or self._misplaced()
        if reason:
            return self._run_original(reason, args, kwargs)
        call = Call(args, kwargs)
        key = self._key(call)
        converted = self._prover.current()
        kind = converted.kinds.get(key) if converted is not None else None
        reason = self._unfit(call, kind) or self._gradients(call, converted)
        if reason:
            return self._run_original(reason, args, kwargs)
        if converted is None or kind is None or kind.checks:
            return self._prove(call, key)
        reason = kind.reason or self._prover.objection(call, converted)
        if reason:
            return self._run_original(reason, args, kwargs)
        return self._run_engine(kind, call)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        # What asks with isinstance (`inspect`, `torch.jit.script`, torch.compile) is told of the method behind this.
        return type(self.__wrapped__)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name not in _OF_FUNCTIONS:
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __reduce__(self) -> tuple[object, ...]:
        # A copy or a pickle of the model gets its own plain forward (accelerate() strips this one before it comes here,
        # unless the class of the model copies itself in its own way).
        return (getattr, (self._model, "forward"))

    def stop(self, reason: str, *, warn: bool = True) -> None:
        """Leave the model to its original for good.

        Raises:
            AccelerationError: with `strict`.
        """
        self._standing.stop(reason, warn=warn)

    def explain(self) -> Explanation:
        """Tell what runs and why."""
        converted = None if self._standing.stopped else self._prover.converted
        return self._standing.explain(converted.conversion if converted else None)

    def _misplaced(self) -> str:
        if self._model.training:
            return "training mode"
        # Threads and sessions of an engine do not survive a fork: asking them there would wait for ever.
        return "" if _Forks.count == self._forks else "this is a forked child process"

    def _unfit(self, call: Call, kind: Kind | None) -> str:
        # Of a known kind all is fine but sizes, and these as well where they are part of the key.
        if kind is None:
            return guards.unfit(call.leaves)
        return "an input is empty" if not self._engine.specialised and guards.is_empty(call.leaves) else ""

    def _gradients(self, call: Call, converted: Converted | None) -> str:
        if not torch.is_grad_enabled():
            return ""
        if any(tensor.requires_grad for tensor in call.leaves.tensors) or self._prover.needs_gradients(converted):
            return _GRADIENTS
        return ""

    def _key(self, call: Call) -> Hashable:
        return (call.exact_key() if self._engine.specialised else call.key, guards.autocast_state(call.leaves))

    def _run_original(self, reason: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        self._standing.reason = reason
        self._standing.original += 1
        return self.__wrapped__(*args, **kwargs)

    def _prove(self, call: Call, key: Hashable) -> object:
        """Let the original answer, and the engine too; a call with objects the engine answers once it is trusted."""
        with self._prover.alone() as alone:
            if not alone:
                return self._run_original("another thread converts the model just now", call.args, call.kwargs)
            reason = self._prover.not_now(call, key)
            if reason:
                return self._run_original(reason, call.args, call.kwargs)
            if not call.leaves.objects:
                return self._prover.prove_on_call(call, key)
            kind = self._prover.prove_on_copies(call, key)
            if kind is None:
                return self._run_original(self._standing.reason, call.args, call.kwargs)
            return self._run_engine(kind, call)

    def _run_engine(self, kind: Kind, call: Call) -> object:
        before = _object_states(call)
        try:
            output = kind.answer(call)
        except Exception as caught:
            error = caught
        else:
            self._standing.reason = ""
            self._standing.accelerated += 1
            return output
        if _object_states(call) != before:  # a second run would change the cache twice and answer wrongly
            raise error
        reason = str(error) if isinstance(error, OtherStructure) else f"the engine failed ({in_words(error)})"
        output = self._run_original(reason, call.args, call.kwargs)
        kind.reason = reason  # only here: where the original fails too, the inputs were at fault
        self._standing.complain(reason, error)
        return output


def _object_states(call: Call) -> list[tuple[int, int]]:
    """Which tensors the objects among the inputs hold, and how often these were written to."""
    if not call.leaves.objects:
        return []
    tensors = [tensor for item in call.leaves.objects for tensor in tensors_inside(item) if tensor is not None]
    return [(id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
