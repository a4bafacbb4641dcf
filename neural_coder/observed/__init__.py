"""What a run shows of a script's models, brought together with what its code says."""

from neural_coder.observed.merge import merge
from neural_coder.observed.results import Added, Conflict, Merged, ModelShare
from neural_coder.observed.sites import marks, probes_to_see

__all__ = ["Added", "Conflict", "Merged", "ModelShare", "marks", "merge", "probes_to_see"]
