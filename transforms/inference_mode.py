"""Inference needs no autograd graph."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import Edit, Replace, Wrap
from neural_coder.records import Analysis, Call, LeftAlone, Safety, Span, Witness
from neural_coder.transform import Example, Transform

ITEM = "torch.inference_mode()"


class InferenceMode(Transform):
    """Run inference calls under `torch.inference_mode()`, without recording anything for autograd.

    Helps small models most, where the bookkeeping of autograd is a visible part of a call, and saves the memory of
    activations everywhere. `torch.no_grad()` around inference becomes `torch.inference_mode()`.

    The arithmetic stays the same. The results are inference tensors: changing one in place outside the block, or using
    it in a computation that needs gradients, raises an error. Calls whose results feed training are left alone.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad_mode.inference_mode.html
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"inference"})
    slot = "grad_mode"
    order = 20
    hardware = "any"
    promise = 1.03

    LEAVES_ALONE = [
        "import torch\n\nmodel = torch.nn.Linear(3, 8)\nmodel.eval()\nwith torch.inference_mode():\n"
        "    out = model(torch.zeros(1, 3))\n",
        "import torch\n\nmodel = torch.nn.Linear(3, 8)\n\n\n@torch.inference_mode()\ndef predict(x):\n"
        "    return model(x)\n\n\npredict(torch.zeros(1, 3))\n",
        "import torch\n\nmodel = torch.nn.Linear(3, 1)\noptimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "for _ in range(3):\n    optimizer.zero_grad()\n    loss = model(torch.ones(2, 3)).sum()\n    loss.backward()\n"
        "    optimizer.step()\n",
        "import torch\n\nteacher = torch.nn.Linear(3, 8)\nstudent = torch.nn.Linear(3, 8)\n"
        "optimizer = torch.optim.SGD(student.parameters(), lr=0.1)\nfor _ in range(3):\n    x = torch.ones(2, 3)\n"
        "    with torch.no_grad():\n        target = teacher(x)\n"
        "    loss = torch.nn.functional.mse_loss(student(x), target)\n    optimizer.zero_grad()\n    loss.backward()\n"
        "    optimizer.step()\n",
        "import torch\n\ncriterion = torch.nn.CrossEntropyLoss()\n"
        "loss = criterion(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))\n",
        "from mylib import nn\n\nmodel = nn.load_table()\nrows = model.rows()\n",
    ]
    CHANGES = [
        Example(
            before="import torch\n\nmodel = torch.nn.Linear(3, 8)\nmodel.eval()\nout = model(torch.zeros(1, 3))\n",
            after="import torch\n\nmodel = torch.nn.Linear(3, 8)\nmodel.eval()\nwith torch.inference_mode():\n"
            "    out = model(torch.zeros(1, 3))\n",
        ),
        Example(
            before="import torch\n\nmodel = torch.nn.Linear(3, 8)\nmodel.eval()\nwith torch.no_grad():\n"
            "    out = model(torch.zeros(1, 3))\n",
            after="import torch\n\nmodel = torch.nn.Linear(3, 8)\nmodel.eval()\nwith torch.inference_mode():\n"
            "    out = model(torch.zeros(1, 3))\n",
        ),
        Example(
            before="import torch\n\nmodel = torch.nn.Linear(3, 8).eval()\n\n\n@torch.no_grad()\ndef predict(x):\n"
            "    return model(x)\n\n\npredict(torch.zeros(1, 3))\n",
            after="import torch\n\nmodel = torch.nn.Linear(3, 8).eval()\n\n\n@torch.inference_mode()\ndef predict(x):\n"
            "    return model(x)\n\n\npredict(torch.zeros(1, 3))\n",
        ),
        Example(
            before="import torch\n\nmodel = torch.nn.Linear(3, 8).eval()\nfor _ in range(2):\n"
            "    scores = model(\n        torch.zeros(1, 3)\n    )\n    print(scores.shape)\n",
            after="import torch\n\nmodel = torch.nn.Linear(3, 8).eval()\nfor _ in range(2):\n"
            "    with torch.inference_mode():\n        scores = model(\n            torch.zeros(1, 3)\n        )\n"
            "    print(scores.shape)\n",
        ),
        Example(
            before="import torch\n\nmodel = torch.nn.Linear(3, 1)\n"
            "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\nfor _ in range(3):\n"
            "    optimizer.zero_grad()\n    loss = model(torch.ones(2, 3)).sum()\n    loss.backward()\n"
            "    optimizer.step()\n\nmodel.eval()\nwith torch.no_grad():\n    print(model(torch.ones(2, 3)))\n",
            after="import torch\n\nmodel = torch.nn.Linear(3, 1)\n"
            "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\nfor _ in range(3):\n"
            "    optimizer.zero_grad()\n    loss = model(torch.ones(2, 3)).sum()\n    loss.backward()\n"
            "    optimizer.step()\n\nmodel.eval()\nwith torch.inference_mode():\n    print(model(torch.ones(2, 3)))\n",
        ),
    ]

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Wrap each inference call, or replace the `torch.no_grad()` that already covers it."""
        bound = {call.grad_mode_at for call in facts.inference if call.feeds_training or call.grad_mode_covers_training}
        replaced: set[Span] = set()
        for call in facts.inference:
            at = call.grad_mode_at if call.grad_mode == "no_grad" else None
            if reason := self._why_not(call, shares_training=at is not None and at in bound):
                yield self.leave(call.line, reason)
            elif at is None:
                yield Wrap(at=call.statement, item=ITEM, reason=f"{call.callee}() needs no gradients here")
            elif at not in replaced:
                replaced.add(at)
                yield Replace(at=at, code=ITEM, reason="inference mode does less than no_grad", imports=("torch",))

    @staticmethod
    def _why_not(call: Call, *, shares_training: bool) -> str:
        if call.grad_mode == "inference_mode":
            return "it already runs in inference mode"
        if call.feeds_training:
            return "its result is used in training, which inference tensors cannot be"
        if shares_training:
            return "torch.no_grad() covers code of the training, too"
        if not call.wrappable and call.grad_mode_at is None:
            return call.why_not_wrappable or "no `with` block can be put around it"
        return ""

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when the measured calls ran in inference mode."""
        return "" if after.inference_mode else "the measured calls did not run in inference mode"
