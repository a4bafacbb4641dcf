"""Times the probed calls of the script and decides when there are enough samples."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import accelerated, context, values
from .moments import Moment, Moments
from .sites import Sampling, Site, StepClock

Function = Callable[..., Any]
LOSSES = 50
"""Losses that are kept."""


class Watcher:
    """What else wants to know of a probed call, outside of the time that is measured."""

    def before(self, site: Site, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """A call of an inference site is about to start; what this returns is handed to `after`."""

    def after(self, site: Site, call: context.Call, result: object, noted: object) -> None:
        """A call of an inference site has ended well."""


class Startup:
    """Tells whether anything was compiled or converted during a call: such a call is no sample."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._graphs = context.graphs_compiled()
        self._seconds = accelerated.conversion_seconds(function)

    def went_on(self) -> bool:
        """Whether something was, since this object was made, or the runtime still waits for calibration data."""
        graphs, seconds = context.graphs_compiled(), accelerated.conversion_seconds(self._function)
        return graphs != self._graphs or seconds != self._seconds


class Recorder:
    """All that is measured in this process."""

    def __init__(
        self, specs: Sequence[Mapping[str, Any]], sampling: Sampling, *, seconds: float, to_the_end: bool
    ) -> None:
        """Start with nothing measured.

        Args:
            specs: The probes of the job, by number.
            sampling: When a site has been measured enough.
            seconds: Time after which any samples are enough.
            to_the_end: Never stop the script.
        """
        self.sites: dict[str, Site] = {}
        self.watcher = Watcher()
        self.stop: Callable[[], None] = lambda: None
        """Called once there is enough; does not return."""
        self.reached: Callable[[], None] = lambda: None
        """Called when the first probed call begins."""
        self.begin: Callable[[], None] = lambda: None
        """Called once, when the first sample is about to be taken; waits for others that measure at the same time."""
        self.over: Callable[[], bool] = lambda: True
        """Called while there is enough; whether others have enough, too."""
        self.is_compiling: Callable[[], bool] = lambda: False
        self.in_model: Callable[[], bool] = lambda: False
        """Whether a model's call is going on, as far as anyone observes that."""
        self.came_to: dict[int, int] = {}
        """How often the script came to each probe from outside of models."""
        self.came_to_within: set[int] = set()
        """Probes that it came to from within a model."""
        self.losses: list[float] = []
        self.optimizers: list[Any] = []
        self.forwards: dict[str, context.Call] = {}
        """The first forward of each site in training."""
        self.sampling = sampling
        self.moments = Moments()
        self.others_disturb: Callable[[], bool] = lambda: False
        """Whether other programs take the cores, as far as that is known."""
        self.model_seconds = 0.0
        self._specs = specs
        self._deadline = time.perf_counter() + seconds
        self._to_the_end = to_the_end
        self._names = {spec["site"] for spec in specs if spec["kind"] in ("inference", "optimizer_step")}
        self._first_start: float | None = None
        self._last_end = 0.0
        self._overhead = 0.0
        self._begun = False
        self._enough_since: float | None = None
        self._grace = 0.0
        self._by_optimizer, self._by_backward = StepClock(), StepClock()
        self._backward_sites: dict[str, Site] = {}
        self._scaled_losses = 0
        self._local = threading.local()
        self._lock = threading.RLock()
        self._off = False
        os.register_at_fork(after_in_child=self.switch_off)

    def switch_off(self) -> None:
        """Let all further calls through untouched (in forked children, and once the figures are taken)."""
        self._off = True

    @property
    def is_off(self) -> bool:
        """Whether nothing is recorded any more."""
        return self._off

    @property
    def inside(self) -> bool:
        """Whether this thread is in a probed call."""
        return getattr(self._local, "inside", False)

    @property
    def loop_seconds(self) -> float:
        """From the first probed call to the end of the last one, without what the probes themselves cost."""
        return 0.0 if self._first_start is None else max(self._last_end - self._first_start - self._overhead, 0.0)

    def timings(self) -> list[Site]:
        """The sites that were reached; steps end at the backward where no optimizer's step was ever reached."""
        if any(site.kind == "training" for site in self.sites.values()):
            return list(self.sites.values())
        return [*self.sites.values(), *self._backward_sites.values()]

    def probe(self, index: int, function: Function) -> Function:
        """What stands around the callee of each probed call: gives back a callee that is timed.

        At sites that are only to be seen, it gives back the callee itself.
        """
        if self._off or not callable(function):
            return function
        spec = self._specs[index]
        if spec["kind"] == "seen" and self.is_compiling():
            return function  # What the compiler reads must not have side effects.
        if self.in_model():
            self.came_to_within.add(index)
        else:
            self.came_to[index] = self.came_to.get(index, 0) + 1
        if spec["kind"] == "seen":
            return function
        timed: Callable[..., Any] = {
            "inference": self._inference,
            "forward": self._forward,
            "backward": self._backward,
            "optimizer_step": self._optimizer_step,
        }[spec["kind"]]
        return functools.partial(timed, spec["site"], function)

    # --- one method for each kind of call

    def _inference(self, name: str, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        if self.inside or self._off:
            return function(*args, **kwargs)
        began = time.perf_counter()
        site = self._site(name, "inference")
        site.see_size(values.leading_dimension(args, kwargs))
        self.await_others(site)
        call = context.Call(function, args, kwargs)
        noted = self.watcher.before(site, args, kwargs)
        startup = Startup(function)
        result, start, end = self._run(function, args, kwargs, began)
        with self._lock:
            self.take(site, call, end.since(start), startup)
            site.calls += 1
            site.last_end = end.wall
            self.watcher.after(site, call, result, noted)
            self._leave(end)
        return result

    def _forward(self, name: str, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        if self.inside or self._off or not context.grad_enabled():
            return function(*args, **kwargs)
        began = time.perf_counter()
        if name not in self.forwards:
            self.forwards[name] = context.Call(function, values.detached(args), values.detached(kwargs))
        size = values.leading_dimension(args, kwargs)
        graphs = context.graphs_compiled()
        wait = not self._by_optimizer.is_open
        if wait:
            self.await_others(*self.timings())
        result, start, end = self._run(function, args, kwargs, began, wait=wait)
        with self._lock:
            for clock in (self._by_optimizer, self._by_backward):
                clock.open(start, self._overhead, graphs, size)
            self._leave(end)
        return result

    def _backward(self, name: str, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        if self._off:
            return function(*args, **kwargs)
        began = time.perf_counter()
        self._note_loss(function, args, kwargs)
        if self.inside:
            return function(*args, **kwargs)
        ends_step = not any(site.kind == "training" for site in self.sites.values())
        result, start, end = self._run(function, args, kwargs, began, wait=ends_step)
        with self._lock:
            if ends_step:
                site = self._backward_sites.setdefault(name, Site(name, "training"))
                self._close(self._by_backward, site, start, end)
            self._leave(end)
        return result

    def _optimizer_step(self, name: str, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        if self.inside or self._off:
            return function(*args, **kwargs)
        began = time.perf_counter()
        self._note_optimizer(function, args)
        result, start, end = self._run(function, args, kwargs, began)
        with self._lock:
            self._close(self._by_optimizer, self._site(name, "training"), start, end)
            self._leave(end)
        return result

    # --- what they share

    def _site(self, name: str, kind: str) -> Site:
        with self._lock:
            return self.sites.setdefault(name, Site(name, kind))

    def _run(
        self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any], began: float, wait: bool = True
    ) -> tuple[Any, Moment, Moment]:
        """Make the call; gives its result, start and end. `wait`: for the GPU, before and after."""
        if self._first_start is None:
            self.reached()
        self._local.inside = True
        try:
            if wait:
                context.synchronize()
            start = self.moments.begin()
            result = function(*args, **kwargs)
            if wait:
                context.synchronize()
            end = self.moments.end()
        finally:
            self._local.inside = False
        with self._lock:
            if self._first_start is None:
                self._first_start = start.wall
            else:
                self._overhead += start.wall - began
            self.model_seconds += end.wall - start.wall
            self._last_end = max(self._last_end, end.wall)
        return result, start, end

    def await_others(self, *sites: Site) -> None:
        """Wait for processes that measure at the same time, where the next call at one of these sites is a sample."""
        if not self._begun and any(site.is_warm(self.sampling) for site in sites):
            self._begun = True
            self.begin()

    def take(self, site: Site, call: context.Call, taken: Moment, startup: Startup) -> None:
        """Add the time of a call of an inference site."""
        site.add(taken, self.sampling, startup=startup.went_on())
        site.last_call = call

    def _close(self, clock: StepClock, site: Site, start: Moment, end: Moment) -> None:
        graphs = context.graphs_compiled()
        clock.close(site, self.sampling, start=start, end=end, overhead=self._overhead, graphs=graphs)

    def _leave(self, end: Moment) -> None:
        """Stop the script when there is enough; else note what the probe itself has cost."""
        if not self._to_the_end and self._enough() and self.over():
            self.stop()
        self._overhead += time.perf_counter() - end.wall

    def _enough(self) -> bool:
        now = time.perf_counter()
        reached = self.timings()
        done = [site for site in reached if self.has_enough(site)]
        if now > self._deadline:
            return any(site.samples for site in reached)
        patience = max(3.0, 3 * self.sampling.min_seconds)
        waiting = [site for site in reached if site not in done and now - site.last_end < patience]
        if not done or waiting:
            self._enough_since = None
            return False
        if self._enough_since is None:
            self._enough_since, self._grace = now, min(max(self.loop_seconds, 1.0), self.sampling.max_seconds)
        # Sites that were not reached so far get at most as much time as the others took.
        return self._all_reached(reached) or now - self._enough_since > self._grace

    def has_enough(self, site: Site) -> bool:
        """Whether a site has been measured enough; a little more is taken while other programs disturb its calls."""
        if not site.enough(self.sampling):
            return False
        return site.calm(self.sampling) or not site.may_go_on(self.sampling) or not self.others_disturb()

    def _all_reached(self, reached: Sequence[Site]) -> bool:
        return self._names <= {site.name for site in reached}

    # --- losses and optimizers

    def _note_loss(self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if len(self.losses) >= LOSSES:
            return
        holder: Any = getattr(function, "__self__", None)
        loss: Any = holder if values.is_tensor(holder) else values.first_tensor(args, kwargs)
        loss = loss if loss is not None else holder
        if hasattr(loss, "item"):
            value = loss.detach().float().mean().item() if values.is_tensor(loss) else loss.item()
            self.losses.append(float(value))
            self._scaled_losses += 1

    def _note_optimizer(self, function: Function, args: tuple[Any, ...]) -> None:
        holder: Any = getattr(function, "__self__", None)
        if hasattr(holder, "get_scale"):
            # A GradScaler: the losses since its last step were multiplied by this.
            scale = float(holder.get_scale()) or 1.0
            for index in range(len(self.losses) - self._scaled_losses, len(self.losses)):
                self.losses[index] /= scale
            holder = args[0] if args else holder
        self._scaled_losses = 0
        if hasattr(holder, "param_groups") and all(holder is not known for known in self.optimizers):
            self.optimizers.append(holder)
