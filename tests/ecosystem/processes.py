"""Runs a function on many items in child processes, each item within a time limit.

A child that hangs or dies costs its item and nothing else. Items and results travel as JSON.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

Function = Callable[[Any], Any]
STARTING = 60.0
"""Seconds that a new child may take on top of its first item."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one item."""

    item: Any
    result: Any
    failure: str = ""
    """Why there is no result, in words."""


@dataclass(slots=True)
class _Child:
    """One process and the item that it is working on."""

    process: Any
    pipe: Connection
    item: Any = None
    deadline: float = float("inf")
    fresh: bool = field(default=True)


def run(function: Function, items: Sequence[Any], *, jobs: int, limit: float) -> Iterator[Done]:
    """Call a function on each item, in no fixed order of results.

    Args:
        function: A function of a module; it gets and returns plain data.
        items: Plain data.
        jobs: How many processes.
        limit: Seconds for one item.
    """
    waiting = list(reversed(items))
    children: list[_Child] = []
    try:
        while waiting or children:
            while waiting and len(children) < jobs:
                children.append(_start(function))
                _give(children[-1], waiting.pop(), limit)
            for child in _ready(children):
                done = _collect(child, limit)
                yield done
                if done.failure or not waiting:
                    _stop(child)
                    children.remove(child)
                else:
                    _give(child, waiting.pop(), limit)
    finally:
        for child in children:
            _stop(child)


def _start(function: Function) -> _Child:
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(function, there), daemon=True)
    process.start()
    there.close()
    return _Child(process, here)


def _give(child: _Child, item: Any, limit: float) -> None:
    child.item = item
    child.deadline = time.monotonic() + limit + STARTING * child.fresh
    child.fresh = False
    child.pipe.send_bytes(json.dumps(item).encode())


def _ready(children: Sequence[_Child]) -> list[_Child]:
    """Wait for children that have a result, have died, or are out of time."""
    left = min(child.deadline for child in children) - time.monotonic()
    answered = wait([child.pipe for child in children], timeout=max(left, 0))
    now = time.monotonic()
    return [child for child in children if child.pipe in answered or child.deadline <= now]


def _collect(child: _Child, limit: float) -> Done:
    if not child.pipe.poll():
        return Done(child.item, None, f"it took longer than {limit:g} seconds")
    try:
        return Done(child.item, json.loads(child.pipe.recv_bytes()))
    except EOFError:
        child.process.join()
        return Done(child.item, None, f"the process ended with code {child.process.exitcode}")


def _stop(child: _Child) -> None:
    child.process.kill()
    child.process.join()
    child.pipe.close()


def _serve(function: Function, pipe: Connection) -> None:
    # Ctrl-C reaches the whole group; the parent decides what becomes of its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            item = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        pipe.send_bytes(json.dumps(function(item)).encode())
