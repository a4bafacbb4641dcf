"""How an accelerated model stands: who answered, why, how often, and what the user was told about it."""

from __future__ import annotations

import logging

from neural_coder.runtime.engine import Conversion
from neural_coder.runtime.explanation import AccelerationError, Explanation, warn
from neural_coder.runtime.settings import Settings

log = logging.getLogger(__name__)


class Standing:
    """What is known about one accelerated model; the dispatcher and the prover both write here."""

    def __init__(self, model: str, settings: Settings) -> None:
        """Nothing was called yet.

        Args:
            model: Name of the model's class.
            settings: What was asked for.
        """
        self._model = model
        self._settings = settings
        self.stopped = ""
        """Why the original answers for good; empty when it does not."""
        self.reason = "it was not called yet"
        """Why the original gave the last answer; empty when the engine did."""
        self.accelerated = 0
        self.original = 0
        self.seconds = 0.0
        self.is_inaccurate = False
        self.is_preparing = False
        self.cache_problem = ""

    def stop(self, reason: str, *, warn: bool = True, error: BaseException | None = None) -> None:
        """Leave the model to its original for good.

        Raises:
            AccelerationError: with `strict`.
        """
        self.stopped = self.reason = reason
        if warn:
            self.complain(reason, error)

    def complain(self, reason: str, error: BaseException | None = None) -> None:
        """Warn that the original runs, or raise where that was asked for."""
        message = f"{self._settings.engine}/{self._settings.precision} does not run {self._model}: {reason}"
        if self._settings.strict:
            raise AccelerationError(message) from error
        log.debug("%s", message, exc_info=error)
        warn(f"{message}. Its original forward runs.")

    def explain(self, conversion: Conversion | None) -> Explanation:
        """Tell what runs and why."""
        engine, precision = self._settings.engine, self._settings.precision
        return Explanation(
            running="original" if self.reason else f"{engine}/{precision}",
            reason=self.reason,
            engine=engine,
            precision=precision,
            calls_accelerated=self.accelerated,
            calls_original=self.original,
            quantized_modules=conversion.quantized_modules if conversion else 0,
            graphs=conversion.graphs if conversion else 0,
            dtypes=frozenset(conversion.dtypes()) if conversion else frozenset(),
            conversion_seconds=self.seconds,
            is_inaccurate=self.is_inaccurate,
            is_preparing=self.is_preparing,
            cache_problem=self.cache_problem or (conversion.cache_problem if conversion else ""),
        )
