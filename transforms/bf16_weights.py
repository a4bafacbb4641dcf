"""A model that is only used for inference can keep its weights in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import Accelerate, Edit
from neural_coder.records import Analysis, LeftAlone, Safety, Witness
from neural_coder.transform import (
    OCCUPIED,
    REDUCED,
    Example,
    Transform,
    why_not,
    why_not_accelerated,
    why_not_inference_only,
)


class Bf16Weights(Transform):
    """Keep the weights of an inference model in bfloat16; inputs are cast on the way in, outputs back to float32.

    Helps on CPUs with bfloat16 instructions (AMX, AVX512_BF16, Arm BF16), and anywhere else where reading the weights
    takes most of the time, as in generating text: half as many bytes are read. Other than autocast it casts no weights
    during a call, and the script gets float32 results, which NumPy knows.

    Results differ by around one per cent; everything, also normalization and softmax, runs in bfloat16. Models that are
    trained are left alone. It goes through `neural_coder.runtime`, which runs the original where it cannot help.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.to
    """

    safety = Safety.CLOSE
    tasks = frozenset({"inference"})
    slot = "precision"
    order = 50
    implies = ("inference_mode",)
    hardware = "CPUs with AMX, AVX512_BF16 or Arm BF16"
    promise = 2.5

    LEAVES_ALONE = [
        "import torch\n\nmodel = torch.nn.Linear(3, 8).to(torch.bfloat16)\n"
        "out = model(torch.zeros(1, 3, dtype=torch.bfloat16))\n",
        "import torch\n\nmodel = torch.nn.Linear(3, 1)\noptimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "for _ in range(3):\n    optimizer.zero_grad()\n    loss = model(torch.ones(2, 3)).sum()\n    loss.backward()\n"
        "    optimizer.step()\n",
        "import torch\n\nmodel = torch.jit.script(torch.nn.Linear(3, 8))\nout = model(torch.zeros(1, 3))\n",
        "import torch\n\ncriterion = torch.nn.MSELoss()\nloss = criterion(torch.zeros(3), torch.zeros(3))\n",
        "from mylib import Linear\n\nmodel = Linear(3, 8)\nprint(model)\n",
    ]
    CHANGES = [
        Example(
            before="import torch\n\nmodel = torch.nn.Linear(3, 8)\nmodel.eval()\nout = model(torch.zeros(1, 3))\n",
            after="import torch\nimport neural_coder.runtime\n\nmodel = torch.nn.Linear(3, 8)\nmodel.eval()\n"
            'model = neural_coder.runtime.accelerate(model, precision="bf16")\nout = model(torch.zeros(1, 3))\n',
        ),
        Example(
            before="import torch\nfrom torch import nn\n\n\nclass Service:\n    def __init__(self):\n"
            "        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU()).eval()\n\n    @torch.no_grad()\n"
            "    def answer(self, x):\n        return self.net(x).numpy()\n\n\n"
            "Service().answer(torch.zeros(1, 3))\n",
            after="import torch\nfrom torch import nn\nimport neural_coder.runtime\n\n\nclass Service:\n"
            "    def __init__(self):\n        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU()).eval()\n"
            '        self.net = neural_coder.runtime.accelerate(self.net, precision="bf16")\n\n    @torch.no_grad()\n'
            "    def answer(self, x):\n        return self.net(x).numpy()\n\n\n"
            "Service().answer(torch.zeros(1, 3))\n",
        ),
    ]

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Hand each model that is only used for inference to the runtime."""
        for model in facts.models:
            reason = why_not_inference_only(model, facts) or why_not(model, OCCUPIED | REDUCED)
            if reason or model.ready is None:
                yield self.leave(model.line, reason)
            else:
                words = f"{model.name} keeps its weights in bfloat16"
                yield Accelerate(at=model.ready, name=model.name, reason=words, precision="bf16")

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when the runtime ran the model in bfloat16."""
        return "" if after.accelerated.endswith("/bf16") else why_not_accelerated(after)
