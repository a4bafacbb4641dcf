"""A sample of what `make ecosystem` looks at: files of installed libraries, and of Python's own tests."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import bulk
import pytest
from examine import Alone, examine

from neural_coder.errors import UserError
from neural_coder.source import Source

LIBRARIES = Path(sysconfig.get_path("purelib"))
STANDARD = Path(sysconfig.get_path("stdlib"))
SAMPLE = [
    LIBRARIES / "sentence_transformers/sentence_transformer/losses/gist_embed.py",
    LIBRARIES / "sklearn/neural_network/_base.py",
    LIBRARIES / "sklearn/utils/tests/test_deprecation.py",
    LIBRARIES / "torch/distributed/algorithms/model_averaging/averagers.py",
    LIBRARIES / "torch/nn/modules/lazy.py",
    LIBRARIES / "torch/testing/_internal/distributed/rpc/examples/parameter_server_test.py",
    LIBRARIES / "transformers/pipelines/depth_estimation.py",
    LIBRARIES / "transformers/pipelines/keypoint_matching.py",
    STANDARD / "lib2to3/tests/data/bom.py",
    STANDARD / "lib2to3/tests/data/crlf.py",
    STANDARD / "lib2to3/tests/data/different_encoding.py",
    STANDARD / "test/encoded_modules/module_iso_8859_1.py",
    STANDARD / "test/encoded_modules/module_koi8_r.py",
    STANDARD / "test/test_global.py",
    STANDARD / "test/test_source_encoding.py",
    STANDARD / "test/test_unicode_identifiers.py",
    STANDARD / "test/test_utf8source.py",
]
BROKEN = [
    STANDARD / "lib2to3/tests/data/py2_test_grammar.py",
    STANDARD / "test/tokenizedata/bad_coding.py",
    STANDARD / "test/tokenizedata/bad_coding2.py",
    STANDARD / "test/tokenizedata/badsyntax_3131.py",
    STANDARD / "test/tokenizedata/badsyntax_pep3120.py",
]


def installed(files: list[Path]) -> list[object]:
    return [
        pytest.param(
            path, id=path.name, marks=pytest.mark.skipif(not path.is_file(), reason="this Python does not have it")
        )
        for path in files
    ]


@pytest.mark.parametrize("path", installed(SAMPLE))
def test_patches_of_a_library_keep_their_promises(tmp_path, path):
    source = Source.read(path)
    assert source.encode() == path.read_bytes()
    finding, patched = examine(source, Alone(path.parent))
    assert not finding.crashes, finding.crashes[0]
    assert not finding.broken
    found = [each.patch for each in patched]
    pairs = [
        bulk.Pair(f"{number}.py", patch.before.encode(), patch.after.encode(), patch.before.text, patch.after.text)
        for number, patch in enumerate(found)
    ]
    if pairs:
        assert not bulk.new_problems(pairs, tmp_path / "ruff")
        assert not bulk.refused_by_git(pairs, tmp_path / "git")


@pytest.mark.parametrize("path", installed(BROKEN))
def test_a_broken_file_is_a_clear_problem(path):
    with pytest.raises(UserError, match=path.name):
        Alone(path.parent).parsed(path)
