"""The promises on Python that nobody wrote: modules drawn from the grammar and from syntax trees."""

from __future__ import annotations

import warnings
from pathlib import Path

import hypothesmith
from examine import Finding, examine, plans
from guesses import Guess
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from neural_coder.analysis import Project
from neural_coder.source import Source

GENEROUS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
MODEL = "import torch\nmodel = torch.nn.Conv2d(3, 8, 3)\nout = model(x)\n"
"""Something to find, so that nobody looks away."""


def modules(drawn: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Generated code in front of a model, behind it, and by itself; with other newlines, too."""
    return st.tuples(
        drawn, st.sampled_from([f"{MODEL}{{}}", f"{{}}\n{MODEL}", "{}"]), st.sampled_from(["\n", "\r\n"])
    ).map(lambda parts: parts[1].replace("{}", parts[0]).replace("\n", parts[2]))


def examined(text: str, number: int) -> Finding:
    """What is seen in a text that compiles, with a plan of that number among those on made-up facts."""
    path = Path("generated.py")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, path, "exec")
        source = Source.from_text(text, path)
    except (SyntaxError, ValueError):
        assume(False)
    project = Project(Path("generated").resolve(), {path: source})
    finding, _ = examine(source, project, real=plans()[number : number + 1], guesses=2, first=number)
    return finding


@GENEROUS
@given(modules(hypothesmith.from_grammar("file_input")), st.integers(0, len(plans()) - 1))
def test_code_from_the_grammar_keeps_the_promises(text, number):
    finding = examined(text, number)
    assert not finding.crashes, finding.crashes[0]
    assert not finding.broken


@GENEROUS
@given(modules(hypothesmith.from_node()), st.integers(0, len(plans()) - 1))
def test_code_from_syntax_trees_keeps_the_promises(text, number):
    finding = examined(text, number)
    assert not finding.crashes, finding.crashes[0]
    assert not finding.broken


@given(modules(st.sampled_from(["a = f(1)\n", "with g(a) as b: c = h(b)\n"])))
def test_a_guess_finds_the_same_places_after_a_patch(text):
    source = Source.from_text(text)
    guess = Guess.of(source)
    facts = guess.facts(source)
    assert facts.models or facts.inference
    assert guess.facts(source) == facts
