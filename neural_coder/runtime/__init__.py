"""What patched scripts import: one call that lets a faster engine answer for a model.

    model = neural_coder.runtime.accelerate(model, engine="torch", precision="bf16")

The same object comes back. `explain(model)` tells what runs it, and why. Importing this package loads neither PyTorch
nor any engine.
"""

from __future__ import annotations

from neural_coder.runtime.accelerate import accelerate, explain
from neural_coder.runtime.explanation import AccelerationError, AccelerationWarning, Explanation

__all__ = ["AccelerationError", "AccelerationWarning", "Explanation", "accelerate", "explain"]
