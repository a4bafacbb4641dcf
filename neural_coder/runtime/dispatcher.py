"""What stands in for a model's `forward`: it lets the engine answer where that is safe, and the original elsewhere.

The first calls run the original, watched. Once a call leaves the model unchanged, a copy is converted and must give the
same answer for the same inputs; from then on the copy answers calls of that kind. Every other kind of call (structure,
types, devices) is proven in the same way before it is trusted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import torch

from neural_coder.runtime import cache, guards
from neural_coder.runtime.calibration import Calibration
from neural_coder.runtime.conversion import InputsBefore, RandomState, disagreement, random_state, replaying, twin
from neural_coder.runtime.engine import REDUCED_TOLERANCE, CannotConvert, Conversion, Engine, Request
from neural_coder.runtime.explanation import AccelerationError, Explanation, warn
from neural_coder.runtime.fingerprint import CannotDescribe, digest
from neural_coder.runtime.graphs import kept_for
from neural_coder.runtime.kind import Kind, OtherStructure
from neural_coder.runtime.memory import shortage
from neural_coder.runtime.quiet import quiet
from neural_coder.runtime.settings import Settings
from neural_coder.runtime.structure import Call, tensors_inside

log = logging.getLogger(__name__)

MAX_CONVERSIONS = 4
"""A model whose weights change more often than this is left to the original."""
MAX_UNSETTLED = 4
"""Calls that may change the model (lazy set-up) before it counts as one with a state."""

_LONGEST = 300
"""Characters of an engine's message that are repeated."""

_OF_FUNCTIONS = {
    "__annotations__", "__closure__", "__code__", "__defaults__", "__func__", "__globals__", "__kwdefaults__",
    "__name__", "__qualname__", "__self__",
}  # fmt: skip
"""What tools such as `torch.jit.script` ask a forward for; the original's is the answer."""

Forward = Callable[..., object]


@dataclass(slots=True)
class Converted:
    """A conversion, the model as it was then, and the kinds of call that were met since."""

    conversion: Conversion
    watch: guards.Watch
    kinds: dict[Hashable, Kind]


@dataclass(slots=True)
class Proven:
    """A kind of call whose answer by the engine agreed with the original's."""

    kind: Kind
    answer: object


class Dispatcher:
    """The forward of an accelerated model."""

    def __init__(self, model: torch.nn.Module, engine: Engine, settings: Settings) -> None:
        """Stand in for the forward of `model`, which is not called yet."""
        self.__wrapped__: Forward = model.forward  # where `inspect.signature` looks
        self._model = model
        self._engine = engine
        self._settings = settings
        self._precision = settings.precision
        self._calibration = Calibration(settings.calibration)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._converted: Converted | None = None
        self._stopped = ""
        self._reason = "it was not called yet"
        self._conversions = 0
        self._unsettled = 0
        self._accelerated = 0
        self._original = 0
        self._seconds = 0.0
        self._is_preparing = False
        self._kept: cache.Entry | None = None
        self._cache_problem = ""

    def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Answer a call."""
        if torch.compiler.is_compiling():
            return self.__wrapped__(*args, **kwargs)
        reason = self._stopped or guards.transformed() or self._misplaced()
        if reason:
            return self._run_original(reason, args, kwargs)
        call = Call(args, kwargs)
        reason = guards.unfit(call.leaves) or self._gradients(call)
        if reason:
            return self._run_original(reason, args, kwargs)
        converted = self._current()
        kind = converted.kinds.get(self._key(call)) if converted else None
        if converted is None or kind is None or kind.checks:
            return self._prove(call)
        reason = kind.reason or self._objection(call, converted)
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

    def stop(self, reason: str, *, warn: bool = True, error: BaseException | None = None) -> None:
        """Leave the model to its original for good.

        Raises:
            AccelerationError: with `strict`.
        """
        self._stopped = self._reason = reason
        self._converted = None
        if warn:
            self.complain(reason, error)

    def complain(self, reason: str, error: BaseException | None = None) -> None:
        """Warn that the original runs, or raise where that was asked for."""
        message = f"{self._settings.engine}/{self._precision} does not run {type(self._model).__name__}: {reason}"
        if self._settings.strict:
            raise AccelerationError(message) from error
        log.debug("%s", message, exc_info=error)
        warn(f"{message}. Its original forward runs.")

    def explain(self) -> Explanation:
        """Tell what runs and why."""
        converted = self._converted
        conversion = converted.conversion if converted else None
        return Explanation(
            running="original" if self._reason else f"{self._settings.engine}/{self._precision}",
            reason=self._reason,
            engine=self._settings.engine,
            precision=self._precision,
            calls_accelerated=self._accelerated,
            calls_original=self._original,
            quantized_modules=conversion.quantized_modules if conversion else 0,
            graphs=conversion.graphs if conversion else 0,
            dtypes=frozenset(conversion.dtypes()) if conversion else frozenset(),
            conversion_seconds=self._seconds,
            is_preparing=self._is_preparing,
            cache_problem=self._cache_problem or (conversion.cache_problem if conversion else ""),
        )

    # Answering.

    def _misplaced(self) -> str:
        if self._model.training:
            return "training mode"
        # Threads and sessions of an engine do not survive a fork: asking them there would wait for ever.
        return "" if os.getpid() == self._process else "this is a forked child process"

    def _run_original(self, reason: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        self._reason = reason
        self._original += 1
        return self.__wrapped__(*args, **kwargs)

    def _run_engine(self, kind: Kind, call: Call) -> object:
        before = _object_states(call)
        try:
            output = kind.answer(call)
        except Exception as caught:
            error = caught
        else:
            self._reason = ""
            self._accelerated += 1
            return output
        if _object_states(call) != before:  # a second run would change the cache twice and answer wrongly
            raise error
        reason = str(error) if isinstance(error, OtherStructure) else f"the engine failed ({_words(error)})"
        output = self._run_original(reason, call.args, call.kwargs)
        kind.reason = self._reason  # only here: where the original fails too, the inputs were at fault
        self.complain(self._reason, error)
        return output

    def _current(self) -> Converted | None:
        """The conversion, unless the model has changed since."""
        converted = self._converted
        if converted is not None and not converted.watch.holds():
            log.debug("converting again: %s", converted.watch.difference())
            self._converted = converted = None
        return converted

    def _key(self, call: Call) -> Hashable:
        return (call.exact_key() if self._engine.specialised else call.key, guards.autocast_state(_device(call)))

    def _gradients(self, call: Call) -> str:
        if not torch.is_grad_enabled():
            return ""
        tensors = (*call.leaves.tensors, *self._model.parameters())
        if any(tensor.requires_grad for tensor in tensors):
            return "gradients are enabled (torch.inference_mode() or torch.no_grad() switches them off)"
        return ""

    def _objection(self, call: Call, converted: Converted) -> str:
        """Say why this call of a proven kind needs the original."""
        if converted.watch.hooked():
            return "a submodule has hooks"
        return self._strange_objects(call)

    def _strange_objects(self, call: Call) -> str:
        dtype = self._engine.compute_dtype(self._precision)
        for item in call.leaves.objects:
            name = type(item).__name__
            if not self._engine.takes_objects:
                return f"an input is a {name}, which this engine does not take"
            for tensor in tensors_inside(item):
                if tensor is None:
                    return f"an input is a {name}, which cannot be looked into"
                if dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype:
                    return f"an input is a {name} that holds {tensor.dtype} tensors"
        return ""

    # Proving: the original answers, and the engine must agree.

    def _prove(self, call: Call) -> object:
        if not self._lock.acquire(blocking=False):
            return self._run_original("another thread converts the model just now", call.args, call.kwargs)
        try:
            watch, reason = self._watch(call)
            if watch is None:
                return self._run_original(reason, call.args, call.kwargs)
            self._is_preparing = True
            if reason := self._uncalibrated(call):
                return self._run_original(reason, call.args, call.kwargs)
            self._is_preparing = False
            if call.leaves.objects:
                return self._prove_on_copies(call, watch)
            return self._prove_on_call(call, watch)
        finally:
            self._lock.release()

    def _watch(self, call: Call) -> tuple[guards.Watch | None, str]:
        """Watch the model, or say why this call proves nothing."""
        if any(map(guards.answers_as_in_training, self._model.modules())):
            return None, "a submodule is in training mode"
        if not self._engine.under_autocast and guards.autocast_state(_device(call)) is not None:
            return None, "autocast is on"
        kinds = self._converted.kinds if self._converted else {}
        if len(kinds) >= self._engine.max_kinds and self._key(call) not in kinds:
            return None, f"more than {self._engine.max_kinds} different kinds of input"
        reason = self._strange_objects(call)
        if not reason and self._converted is None:
            reason = self._no_conversion()
        if reason:
            return None, reason
        try:
            watch = guards.Watch(self._model)
        except guards.CannotWatch as error:
            self.stop(str(error))
            return None, self._stopped
        return (None, "a submodule has hooks") if watch.hooked() else (watch, "")

    def _uncalibrated(self, call: Call) -> str:
        """Say what is missing before the model can be quantized; look at the call's inputs."""
        if not self._settings.needs_calibration or self._converted is not None or self._calibration.is_complete:
            return ""
        if not self._calibration.calls:
            entry = self._entry()
            if entry is not None and kept_for(entry, call):
                self._kept = entry
                return ""
        started = time.perf_counter()
        try:
            self._calibration.see(call)
        except Exception as error:  # the border to the user's data
            reason = str(error) if isinstance(error, CannotConvert) else f"calibration data failed ({_words(error)})"
            self.stop(reason, error=error)
            return reason
        finally:
            self._seconds += time.perf_counter() - started
        return "" if self._calibration.is_complete else self._calibration.progress()

    def _entry(self) -> cache.Entry | None:
        """Where this model is kept once it is converted; None when it is not."""
        if not self._settings.cache or not self._engine.keeps:
            return None
        try:
            key = digest(self._model, self._settings.describe(), packages=self._engine.distributions)
        except CannotDescribe as error:
            self._cache_problem = str(error)
            return None
        return cache.Entry(key, f"{type(self._model).__name__} {self._settings.engine}/{self._precision}")

    def _no_conversion(self) -> str:
        """Say why the model is not converted (again)."""
        if self._conversions >= MAX_CONVERSIONS:
            self.stop(f"it changed after each of {MAX_CONVERSIONS} conversions")
            return self._stopped
        reason = shortage(self._model, self._engine.memory(self._precision))
        if reason:
            self.stop(reason)
        return reason

    def _prove_on_call(self, call: Call, watch: guards.Watch) -> object:
        """Let the original answer; the engine answers the same again, and when they agree its answer counts."""
        before, randomness = InputsBefore(call), random_state(self._model)
        example = call.with_tensors(lambda tensor: tensor)
        output = self._run_original("the model is not converted yet", call.args, call.kwargs)
        if self._unsettled_by(watch):
            return output
        proven = self._compare(self._key(example), example, before, output, watch, randomness)
        if proven is None:
            return output
        self._original -= 1
        self._accelerated += 1
        self._reason = ""
        return proven.kind.hand_back(call, proven.answer)

    def _prove_on_copies(self, call: Call, watch: guards.Watch) -> object:
        """Compare on copies of inputs that a forward changes (a key-value cache); then answer the call itself once."""
        randomness = random_state(self._model)
        try:
            reference, example, trial = twin(self._model, share_buffers=False), call.copied(), call.copied()
            twin_watch, before = guards.Watch(reference), InputsBefore(example)
            with replaying(randomness):
                output = reference.forward(*example.args, **example.kwargs)
        except Exception as error:
            return self._run_original(f"inputs could not be copied ({_words(error)})", call.args, call.kwargs)
        if self._unsettled_by(twin_watch):
            return self._run_original(self._reason, call.args, call.kwargs)
        proven = self._compare(self._key(call), trial, before, output, watch, randomness)
        reason = self._reason if proven is None else self._strange_objects(call)
        if proven is None or reason:
            return self._run_original(reason, call.args, call.kwargs)
        return self._run_engine(proven.kind, call)

    def _unsettled_by(self, watch: guards.Watch) -> bool:
        """Whether the forward changed the model; too often, and it counts as a model with a state."""
        changed = watch.difference()
        if not changed:
            return False
        self._unsettled += 1
        self._reason = f"its forward changes the model: {changed}"
        if self._unsettled >= MAX_UNSETTLED:
            self.stop(self._reason)
        return True

    def _compare(
        self,
        key: Hashable,
        example: Call,
        before: InputsBefore,
        output: object,
        watch: guards.Watch,
        randomness: RandomState,
    ) -> Proven | None:
        """Let the engine answer too; trust it with this kind of call when it agrees."""
        started = time.perf_counter()
        failure: Exception | None = None
        reason = ""
        try:
            with quiet(), replaying(randomness):
                returned = before.returned_argument(output)
                converted = self._converted or self._convert(watch)
                kind = converted.kinds.get(key) or Kind(returned=returned, checks=self._engine.checks)
                answer = kind.learn(converted.conversion, example, output)
            reason = disagreement(output, answer, self._tolerance(converted.conversion, example))
        except Exception as error:  # the border to the engine: whatever goes wrong there, the original runs
            failure, reason = error, str(error) if isinstance(error, CannotConvert) else _words(error)
        self._seconds += time.perf_counter() - started
        if reason:
            self._refuse(key, reason, failure)
            return None
        kind.checks -= 1
        converted.kinds[key] = kind
        self._converted = converted
        return Proven(kind, answer)

    def _tolerance(self, conversion: Conversion, call: Call) -> float:
        tolerance = self._engine.tolerance(self._precision)
        reduced = {"float16", "bfloat16"} & {*conversion.dtypes()} or guards.autocast_state(_device(call)) is not None
        return max(tolerance, REDUCED_TOLERANCE) if reduced else tolerance

    def _convert(self, watch: guards.Watch) -> Converted:
        self._conversions += 1
        entry, self._kept = self._kept or self._entry(), None
        request = Request(settings=self._settings, calibration=self._calibration, entry=entry)
        return Converted(self._engine.convert(self._model, request), watch, {})

    def _refuse(self, key: Hashable, reason: str, error: Exception | None) -> None:
        """Leave this kind of call to the original; all of them, when the engine could not take the first one."""
        if self._converted is None or not any(not kind.reason for kind in self._converted.kinds.values()):
            self.stop(reason, error=error)
            return
        self._converted.kinds[key] = Kind(reason=reason)
        self._reason = reason
        self.complain(reason, error)


def _device(call: Call) -> str:
    tensors = call.leaves.tensors
    return str(tensors[0].device.type) if tensors else "cpu"


def _object_states(call: Call) -> list[tuple[int, int]]:
    """Which tensors the objects among the inputs hold, and how often these were written to."""
    if not call.leaves.objects:
        return []
    tensors = [tensor for item in call.leaves.objects for tensor in tensors_inside(item) if tensor is not None]
    return [(id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:_LONGEST]}" if lines else type(error).__name__
