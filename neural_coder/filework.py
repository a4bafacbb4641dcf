"""What a child process does with one file: analyse it, patch it. Requests and answers are plain data (see `crew`)."""

from __future__ import annotations

import gc
import json
import os
import queue
import secrets
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO

from neural_coder.analysis import Project, analyze
from neural_coder.analysis.folders import Question
from neural_coder.analysis.footprint import Footprint
from neural_coder.cache import Kept
from neural_coder.codec import Plain, decode, encode
from neural_coder.crew import READY, Reply, Request
from neural_coder.entry_points import main_guard
from neural_coder.errors import NeuralCoderError, UserError
from neural_coder.records import Analysis

GARBAGE = 2_000_000
"""Objects to let pile up before those that only refer to each other are looked for."""


class Desk:
    """Where files are worked on one after the other, so that what they share is read and parsed once."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(8)
        self._projects: dict[str, Project] = {}
        self._files: dict[Path, int] = {}
        self._questions: dict[Question, int] = {}

    def answer(self, request: Request) -> Reply:
        """Do what a request asks; what goes wrong with its file is part of the answer."""
        reply: Reply = {}
        try:
            self._work(request, reply)
        except NeuralCoderError as error:
            reply["problem"] = {"kind": "unusable", "message": str(error), "exit_code": error.exit_code}
        except Exception as error:
            # The border of one file: a defect of ours must not cost the answers on all others.
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            reply["problem"] = {"kind": "crash", "message": said, "traceback": traceback.format_exc()}
        reply["memory"] = _peak_memory()
        return reply

    def _work(self, request: Request, reply: Reply) -> None:
        path, project = Path(request["path"]), self._project(request["root"])
        facts = _known(request, path, project) or self._analyzed(path, project, reply)
        if request["job"] == "patch" and not facts.empty:
            from neural_coder import patchwork  # Brings libcst along, which the analysis does without.

            patch, notes = patchwork.patch_file(facts, project, request["features"])
            reply["notes"] = notes
            reply["patch"] = None if patch.empty else encode(patch)

    def _project(self, root: str) -> Project:
        if root not in self._projects:
            # One at a time: requests come sorted by folder, and trees are big.
            self._projects = {root: Project(Path(root))}
            self._name, self._files, self._questions = secrets.token_hex(8), {}, {}
        return self._projects[root]

    def _analyzed(self, path: Path, project: Project, reply: Reply) -> Analysis:
        started, misses = time.perf_counter(), project.inference.misses
        footprint = project.watched()
        try:
            facts = analyze(path, project)
            guard = main_guard(project.parsed(path).tree)
        except UserError as error:
            reply["kept"] = encode(Kept(problem=str(error), seconds=time.perf_counter() - started))
            raise
        finally:
            reply["seen"] = self._seen(footprint, project)
        # What jedi had no time for is not to be missing for ever.
        reply["hurried"] = project.inference.misses > misses
        plain = None if facts.empty else encode(facts)
        reply["kept"] = encode(Kept(analysis=plain, guard=guard, seconds=time.perf_counter() - started))
        return facts

    def _seen(self, footprint: Footprint, project: Project) -> Plain:
        """What an analysis depends on, by number; what has no number yet is told in full."""
        files, questions = footprint.whole()
        new_files = [path for path in files if path not in self._files]
        new_questions = [question for question in questions if question not in self._questions]
        # Told before they are numbered: were this to fail, the parent would count them otherwise from then on.
        told_files = [[str(path), *encode(project.readings[path])] for path in new_files]
        told_questions = [[*question, project.answer(question)] for question in new_questions]
        self._files.update({path: len(self._files) + index for index, path in enumerate(new_files)})
        self._questions.update({question: len(self._questions) + index for index, question in enumerate(new_questions)})
        return {
            "by": self._name,
            "files": [self._files[path] for path in files],
            "questions": [self._questions[question] for question in questions],
            "new_files": told_files,
            "new_questions": told_questions,
        }


def _known(request: Request, path: Path, project: Project) -> Analysis | None:
    """The facts that the request brings along, if they are about the file as it is now."""
    known = request.get("analysis")
    if known is None:
        return None
    project.source(path)
    return decode(Analysis, known) if project.readings[path].digest == request["digest"] else None


def serve() -> None:
    """Answer requests from standard input, until it ends. Runs in the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _own_stdout()
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    desk = Desk()
    # Syntax trees live long and hold no cycles: a collector that walks through all of them takes longer than the work.
    gc.disable()
    _say(READY, answers)
    while True:
        _say(desk.answer(requests.get()), answers)
        if gc.get_count()[0] > GARBAGE:
            gc.collect(0)  # What the last analyses left behind; what they share with the next is not looked at again.
            gc.freeze()


def _listen(requests: queue.SimpleQueue[Request]) -> None:
    """Take requests in while work goes on: when the parent has gone, nobody wants the answer that is being made."""
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _own_stdout() -> IO[bytes]:
    """Standard output for answers alone; whatever else is printed goes to standard error."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


def _say(what: Plain, stream: IO[bytes]) -> None:
    try:
        stream.write(json.dumps(what, separators=(",", ":")).encode() + b"\n")
        stream.flush()
    except BrokenPipeError:
        os._exit(0)


def _peak_memory() -> int:
    """Bytes that this process has held at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
