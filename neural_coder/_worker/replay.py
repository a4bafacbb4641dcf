"""Make the last calls of a script again, for scripts that end before there are enough samples."""

from __future__ import annotations

import time

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
    for site in recorder.timings():
        if site.kind == "inference" and site.last_call is not None and not recorder.has_enough(site):
            note = _repeat(recorder, site, site.last_call, deadline)
            if note:
                notes.append(f"{site.name}: {note}")
    return notes


def _repeat(recorder: Recorder, site: Site, call: context.Call, deadline: float) -> str:
    reason = call.why_not_again()
    deadline = min(deadline, time.perf_counter() + recorder.sampling.max_seconds)
    while not reason and not recorder.has_enough(site) and time.perf_counter() < deadline:
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
