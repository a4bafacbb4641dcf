"""Proving: the original answers, the engine answers the same call, and only where they agree it is trusted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from neural_coder.runtime import cache, guards
from neural_coder.runtime.calibration import Calibration, identity
from neural_coder.runtime.conversion import (
    NOT_FINITE,
    InputsBefore,
    RandomState,
    disagreement,
    random_state,
    replaying,
    twin,
)
from neural_coder.runtime.engine import REDUCED_TOLERANCE, CannotConvert, Conversion, Engine, Request
from neural_coder.runtime.fingerprint import CannotDescribe, digest
from neural_coder.runtime.graphs import kept_for
from neural_coder.runtime.kind import Kind
from neural_coder.runtime.memory import shortage
from neural_coder.runtime.quiet import quiet
from neural_coder.runtime.settings import Settings
from neural_coder.runtime.standing import Standing
from neural_coder.runtime.structure import Call, tensors_inside
from neural_coder.runtime.watch import CannotWatch, Watch

log = logging.getLogger(__name__)

MAX_CONVERSIONS = 4
"""A model whose weights change more often than this is left to the original."""
MAX_UNSETTLED = 4
"""Calls that may change the model (lazy set-up) before it counts as one with a state."""
_LONGEST = 300
"""Characters of an engine's message that are repeated."""


@dataclass(slots=True)
class Converted:
    """A conversion, the model as it was then, and the kinds of call that were met since."""

    conversion: Conversion
    watch: Watch
    kinds: dict[Hashable, Kind]


class Prover:
    """Converts a model, and compares what the copy answers with what the original answered."""

    def __init__(
        self,
        model: torch.nn.Module,
        engine: Engine,
        settings: Settings,
        standing: Standing,
        original: Callable[..., object],
    ) -> None:
        """Nothing is converted yet; `original` is the forward that the model came with."""
        self._model = model
        self._engine = engine
        self._settings = settings
        self._standing = standing
        self._original = original
        self._calibration = Calibration(settings.calibration)
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._conversions = 0
        self._unsettled = 0
        self._kept: cache.Entry | None = None
        self.converted: Converted | None = None

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other thread proves something just now; none does inside."""
        acquired = self._lock.acquire(blocking=False)
        try:
            yield acquired
        finally:
            if acquired:
                self._lock.release()

    def current(self) -> Converted | None:
        """The conversion, unless the model has changed since."""
        converted = self.converted
        if converted is not None and not converted.watch.holds():
            log.debug("converting again: %s", converted.watch.difference())
            self.converted = converted = None
        return converted

    def needs_gradients(self, converted: Converted | None) -> bool:
        """Whether a weight needs gradients."""
        if converted is not None:
            return converted.watch.needs_gradients()
        return any(parameter.requires_grad for parameter in self._model.parameters())

    def objection(self, call: Call, converted: Converted) -> str:
        """Say why this call of a proven kind needs the original; empty when it does not."""
        if converted.watch.hooked():
            return "a submodule has hooks"
        return self._strange_objects(call) if call.leaves.objects else ""

    def not_now(self, call: Call, key: Hashable) -> str:
        """Say why nothing can be proven on this call; empty when it can, and the model is watched from here on."""
        if any(map(guards.answers_as_in_training, self._model.modules())):
            return "a submodule is in training mode"
        if not self._engine.under_autocast and guards.autocast_state(call.leaves) is not None:
            return "autocast is on"
        kinds = self.converted.kinds if self.converted else {}
        if len(kinds) >= self._engine.max_kinds and key not in kinds:
            return f"more than {self._engine.max_kinds} different kinds of input"
        reason = self._strange_objects(call)
        if not reason and self.converted is None:
            reason = self._no_conversion()
        if reason:
            return reason
        try:
            self._watch = Watch(self._model)
        except CannotWatch as error:
            self._stop(str(error))
            return self._standing.stopped
        return "a submodule has hooks" if self._watch.hooked() else self._uncalibrated(call)

    def prove_on_call(self, call: Call, key: Hashable) -> object:
        """Let the original answer; the engine answers the same again, and when they agree its answer counts."""
        watch, standing = self._watch, self._standing
        assert watch is not None
        before, randomness = InputsBefore(call), random_state(self._model)
        example = call.with_tensors(lambda tensor: tensor)
        standing.reason = "the model is not converted yet"
        standing.original += 1
        output = self._original(*call.args, **call.kwargs)
        if self._unsettled_by(watch):
            return output
        proven = self._compare(key, example, before, output, watch, randomness)
        if proven is None:
            return output
        kind, answer = proven
        standing.original -= 1
        standing.accelerated += 1
        standing.reason = ""
        return kind.hand_back(call, answer)

    def prove_on_copies(self, call: Call, key: Hashable) -> Kind | None:
        """Compare on copies of inputs that a forward changes (a key-value cache), which the call itself must not be.

        Returns:
            How to answer the call; None when the original has to.
        """
        watch, randomness = self._watch, random_state(self._model)
        assert watch is not None
        try:
            reference, example, trial = twin(self._model, share_buffers=False), call.copied(), call.copied()
            twin_watch, before = Watch(reference), InputsBefore(example)
            with replaying(randomness):
                output = reference.forward(*example.args, **example.kwargs)
        except Exception as error:
            self._standing.reason = f"inputs could not be copied ({in_words(error)})"
            return None
        if self._unsettled_by(twin_watch):
            return None
        proven = self._compare(key, trial, before, output, watch, randomness)
        if proven is not None:
            self._standing.reason = self._strange_objects(call)
        return None if proven is None or self._standing.reason else proven[0]

    # Before anything is compared.

    def _strange_objects(self, call: Call) -> str:
        dtype = self._engine.compute_dtype(self._settings.precision)
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

    def _no_conversion(self) -> str:
        """Say why the model is not converted (again)."""
        if self._conversions >= MAX_CONVERSIONS:
            self._stop(f"it changed after each of {MAX_CONVERSIONS} conversions")
            return self._standing.stopped
        reason = shortage(self._model, self._engine.memory(self._settings.precision))
        if reason:
            self._stop(reason)
        return reason

    def _uncalibrated(self, call: Call) -> str:
        """Say what is missing before the model can be quantized; look at the call's inputs."""
        if not self._settings.needs_calibration or self.converted is not None or self._calibration.is_complete:
            return ""
        self._standing.is_preparing = True
        if not self._calibration.calls:
            entry = self._entry()
            if entry is not None and kept_for(entry, call):
                self._kept, self._standing.is_preparing = entry, False
                return ""
        started = time.perf_counter()
        try:
            self._calibration.see(call)
        except Exception as error:  # the border to the user's data
            reason = str(error) if isinstance(error, CannotConvert) else f"calibration data failed ({in_words(error)})"
            self._standing.is_preparing = False
            self._stop(reason, error=error)
            return reason
        finally:
            self._standing.seconds += time.perf_counter() - started
        self._standing.is_preparing = not self._calibration.is_complete
        return self._calibration.progress() if self._standing.is_preparing else ""

    def _entry(self) -> cache.Entry | None:
        """Where this model is kept once it is converted; None when it is not."""
        if not self._settings.cache or not self._engine.keeps:
            return None
        try:
            calibration = identity(self._settings.calibration) if self._settings.needs_calibration else ""
            asked, around = self._settings.describe(), self._engine.surroundings()
            key = digest(self._model, asked, around, calibration, packages=self._engine.distributions)
        except CannotDescribe as error:
            self._standing.cache_problem = str(error)
            return None
        about = f"{type(self._model).__name__} {self._settings.engine}/{self._settings.precision}"
        return cache.Entry(key, about)

    # Comparing.

    def _unsettled_by(self, watch: Watch) -> bool:
        """Whether the forward changed the model; too often, and it counts as a model with a state."""
        changed = watch.difference()
        if not changed:
            return False
        self._unsettled += 1
        self._standing.reason = f"its forward changes the model: {changed}"
        if self._unsettled >= MAX_UNSETTLED:
            self._stop(self._standing.reason)
        return True

    def _compare(
        self,
        key: Hashable,
        example: Call,
        before: InputsBefore,
        output: object,
        watch: Watch,
        randomness: RandomState,
    ) -> tuple[Kind, object] | None:
        """Let the engine answer too; trust it with this kind of call when it agrees."""
        started = time.perf_counter()
        failure: Exception | None = None
        reason = ""
        try:
            with quiet(), replaying(randomness):
                returned = before.returned_argument(output)
                converted = self.converted or self._convert(watch)
                self._check_memory(converted, key)
                kind = converted.kinds.get(key) or Kind(returned=returned, checks=self._engine.checks)
                answer = kind.learn(converted.conversion, example, output)
                reason = disagreement(output, answer, self._tolerance(converted.conversion, example))
                self._standing.is_inaccurate |= bool(reason)
                if reason.startswith(NOT_FINITE):
                    first = converted.conversion.first_not_finite(kind.cast(example)[0])
                    reason += f", first behind {first}" if first else ""
        except Exception as error:  # the border to the engine: whatever goes wrong there, the original runs
            failure, reason = error, str(error) if isinstance(error, CannotConvert) else in_words(error)
        self._standing.seconds += time.perf_counter() - started
        if reason:
            self._refuse(key, reason, failure)
            return None
        kind.checks -= 1
        converted.kinds[key] = kind
        self.converted = converted
        return kind, answer

    def _tolerance(self, conversion: Conversion, call: Call) -> float:
        tolerance = self._engine.tolerance(self._settings.precision)
        reduced = {"float16", "bfloat16"} & {*conversion.dtypes()} or guards.autocast_state(call.leaves) is not None
        return max(tolerance, REDUCED_TOLERANCE) if reduced else tolerance

    def _check_memory(self, converted: Converted, key: Hashable) -> None:
        """Refuse a further program of an engine whose programs hold the weights each, where memory is short."""
        if self._engine.specialised and converted.kinds and key not in converted.kinds:
            reason = shortage(self._model, self._engine.memory(self._settings.precision))
            if reason:
                raise CannotConvert(reason)

    def _convert(self, watch: Watch) -> Converted:
        self._conversions += 1
        entry, self._kept = self._kept or self._entry(), None
        request = Request(settings=self._settings, calibration=self._calibration, entry=entry)
        return Converted(self._engine.convert(self._model, request), watch, {})

    def _stop(self, reason: str, *, error: BaseException | None = None) -> None:
        self.converted = None
        self._standing.stop(reason, error=error)

    def _refuse(self, key: Hashable, reason: str, error: Exception | None) -> None:
        """Leave this kind of call to the original; all of them, when the engine could not take the first one."""
        if self.converted is None or not any(not kind.reason for kind in self.converted.kinds.values()):
            self._stop(reason, error=error)
            return
        self.converted.kinds[key] = Kind(reason=reason)
        self._standing.reason = reason
        self._standing.complain(reason, error)


def in_words(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:_LONGEST]}" if lines else type(error).__name__
