"""Children that misbehave: each costs its own request at most, and none is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neural_coder import crew
from neural_coder.crew import Lost
from neural_coder.errors import InternalError

CHILD = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
say = lambda what: print(json.dumps(what), flush=True)
say("ready")
for line in sys.stdin:
    do = json.loads(line)["do"]
    if do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif do == "exit":
        sys.exit("no more memory, sorry")
    elif do == "babble":
        print("Hello, world!", flush=True)
    elif do.startswith("hang"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(do.partition(":")[2]).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    else:
        say({"did": do, "by": os.getpid(), "memory": 10})
"""


def work(*groups, jobs=1, limit=30.0, program=CHILD, memory=10**9, least=0):
    numbered, number = [], 0
    for group in groups:
        numbered.append([(number + index, {"do": do}) for index, do in enumerate(group)])
        number += len(group)
    command = [sys.executable, "-c", program]
    return crew.work(numbered, jobs=jobs, limit=limit, command=command, memory=memory, least=least)


def gone(pid):
    """Whether a process has ended (one that nobody has asked about yet has ended, too)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(holds):
    """Give the system a moment for what it does behind our back."""
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_every_request_is_answered_once():
    answers = list(work(["a", "b"], ["c"], ["d", "e", "f"], jobs=2))
    assert sorted((number, answer["did"]) for number, answer in answers) == list(enumerate("abcdef"))


def test_requests_of_one_group_go_to_one_child():
    answers = dict(work(["a", "b", "c"], ["d", "e", "f"], jobs=2))
    assert len({answers[number]["by"] for number in (0, 1, 2)}) == 1
    assert len({answers[number]["by"] for number in (3, 4, 5)}) == 1


@pytest.mark.parametrize(
    ("bad", "said"), [("crash", "SIGSEGV"), ("exit", "exit status 1: no more memory"), ("babble", "makes no sense")]
)
def test_a_child_that_breaks_costs_one_request(bad, said):
    answers = dict(work(["a", bad, "b"]))
    assert isinstance(answers[1], Lost)
    assert answers[1].why == "crash"
    assert said in answers[1].message
    assert (answers[0]["did"], answers[2]["did"]) == ("a", "b")


def test_a_child_that_hangs_is_ended_with_what_it_started(tmp_path):
    pids = tmp_path / "pids"
    answers = dict(work(["a", f"hang:{pids}", "b"], limit=1.0))
    assert answers[1] == Lost("timeout", "took longer than 1 s")
    assert answers[2]["did"] == "b"
    assert wait_until(lambda: all(gone(pid) for pid in pids.read_text().split()))


def test_a_child_that_holds_too_much_memory_is_replaced():
    answers = dict(work(["a", "b"], memory=5))
    assert answers[0]["by"] != answers[1]["by"]


def test_however_many_children_there_are_each_may_hold_enough_for_its_work():
    answers = dict(work(["a", "b"], ["c", "d"], jobs=2, memory=18, least=10))
    assert answers[0]["by"] == answers[1]["by"]
    assert answers[2]["by"] == answers[3]["by"]


def test_children_are_gone_when_the_caller_wants_no_more(tmp_path):
    pids = tmp_path / "pids"
    answers = work(["a"], [f"hang:{pids}"], ["b"], jobs=2, limit=600.0)
    next(answers)
    assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    started = time.monotonic()
    answers.close()
    assert time.monotonic() - started < 10
    assert wait_until(lambda: all(gone(pid) for pid in pids.read_text().split()))


def test_a_child_that_cannot_start_ends_the_run_with_its_reason():
    with pytest.raises(InternalError, match="no such luck"):
        list(work(["a"], program="raise SystemExit('no such luck')"))


def test_our_own_children_end_when_their_parent_is_killed(tmp_path):
    """Nobody is left to end them: they notice by themselves, even in the middle of a file."""
    program = (
        "import subprocess, sys, time\nfrom neural_coder import crew\n"
        "pipe = subprocess.PIPE\n"
        "child = subprocess.Popen(crew.COMMAND, stdin=pipe, stdout=pipe, start_new_session=True)\n"
        "child.stdout.readline()\nprint(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: gone(pid))
