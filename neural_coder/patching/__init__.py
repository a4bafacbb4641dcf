"""Applies edits to a file, all on its original text, and checks the result before anyone sees it.

The text is edited in place by offsets that `ast` and the tokenizer give; what no edit names is never rewritten.
"""

from neural_coder.patching.compose import apply
from neural_coder.patching.outcome import Authored, Conflict, Patch, Unpatchable

__all__ = ["Authored", "Conflict", "Patch", "Unpatchable", "apply"]
