"""Make the last calls of a script again, where it ended or was stopped before a site had enough samples."""

from __future__ import annotations

import time
from collections.abc import Callable

from . import context
from .recorder import Recorder, Startup
from .sites import Site


def fill_up(recorder: Recorder, deadline: float) -> list[str]:
    """Repeat the last call of each inference site until its samples are enough.

    Args:
        recorder: Holds the sites.
        deadline: Time of `time.perf_counter` at which to stop in any case.

    Returns:
        What could not be repeated, and why.
    """
    notes = []
    sites = [site for site in recorder.timings() if site.kind == "inference" and site.last_call is not None]
    for site in sites:
        note = repeat(recorder, site, deadline, lambda site=site: recorder.has_enough(site))  # type: ignore[misc]
        if note:
            notes.append(f"{site.name}: {note}")
    for site in sites[:1]:
        # Others still measure: what they measure is the machine with all of us at work.
        repeat(recorder, site, deadline, recorder.over)
    return notes


def repeat(recorder: Recorder, site: Site, deadline: float, done: Callable[[], bool]) -> str:
    """Make the last call of a site again and again.

    Args:
        recorder: Takes the samples.
        site: Its `last_call` is made.
        deadline: Time of `time.perf_counter` at which to stop in any case.
        done: Asked in front of each call.

    Returns:
        Why it could not be made again, in words; empty when it could.
    """
    call = site.last_call
    assert call is not None
    reason = "" if done() else call.why_not_again()
    deadline = min(deadline, time.perf_counter() + recorder.sampling.max_seconds)
    while not reason and not done() and time.perf_counter() < deadline:
        recorder.await_others(site)
        try:
            with call.again() as again:
                startup = Startup(call.function)
                context.synchronize()
                start = recorder.moments.begin()
                again()
                context.synchronize()
                taken = recorder.moments.end().since(start)
        except Exception as error:
            reason = f"the call could not be made again: {type(error).__name__}: {error}"
        else:
            recorder.take(site, call, taken, startup)
    return reason
