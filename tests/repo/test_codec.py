"""Records go into plain data and come back as they were."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neural_coder.analysis import Project, analyze
from neural_coder.codec import decode, encode
from neural_coder.patching import Patch
from neural_coder.records import Analysis, Change
from neural_coder.source import Source

SCRIPTS = sorted((Path(__file__).parents[2] / "fixtures" / "scripts").rglob("*.py"))


def there_and_back(record):
    return decode(type(record), json.loads(json.dumps(encode(record))))


@pytest.mark.parametrize("script", SCRIPTS[::4], ids=lambda path: path.name)
def test_the_facts_of_real_scripts_survive(script):
    facts = analyze(script, Project.find(script))
    assert there_and_back(facts) == facts


st.register_type_strategy(Path, st.text("abc/.é\udce9", min_size=1).map(Path))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.from_type(Analysis))
def test_any_facts_survive(facts):
    # As text, because a NaN equals nothing, not even itself.
    assert json.dumps(encode(there_and_back(facts))) == json.dumps(encode(facts))


def test_a_patch_of_a_file_in_another_encoding_survives():
    before = Source.decode(b"# coding: latin-1\nprint('\xe9')\n", Path("caf\udce9.py"))
    after = before.with_text(before.text + "# more\n")
    patch = Patch(before=before, after=after, changes=(Change(line=2, author="bf16", reason="because"),))
    assert there_and_back(patch) == patch
    assert there_and_back(patch).after.encode() == after.encode()


def test_data_of_another_shape_is_refused():
    facts = encode(Analysis(path=Path("a.py")))
    for wrong in (facts[:-1], [*facts, []], "a.py", None, {"path": "a.py"}, [facts[0], [[1, 2]], *facts[2:]]):
        with pytest.raises((TypeError, ValueError, LookupError)):
            decode(Analysis, wrong)


def test_what_has_no_plain_form_is_refused():
    with pytest.raises(TypeError, match="no plain form for complex"):
        encode(1j)


class _Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class _Mixed:
    colour: _Colour
    pair: tuple[int, str]
    names: frozenset[str]
    maybe: Path | None = None


@pytest.mark.parametrize("maybe", [None, Path("a/b")])
def test_enums_pairs_sets_and_optional_values_come_back_typed(maybe):
    record = _Mixed(_Colour.RED, (1, "a"), frozenset({"x", "y"}), maybe)
    assert there_and_back(record) == record
