"""A script that insists on a GPU can be made to run on the CPU."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from neural_coder.edits import Edit, Replace
from neural_coder.parsing import quiet
from neural_coder.records import Analysis, DeviceUse, LeftAlone, Safety, Witness
from neural_coder.transform import Example, Transform, code

CPU = '"cpu"'
SCALER = 'torch.amp.GradScaler("cpu", enabled=False)'
FIGURES = re.compile(r"\.(max_)?memory_(allocated|reserved|cached)\(")
"""Functions of `torch.cuda` that report memory: 0 on the CPU."""
PLAIN = re.compile(r"\w+(\s*(\.\s*\w+|\[[\w.'\"-]*\]))*")
"""A name, or a part of what a name stands for: `model`, `self.nets["g"]`."""


class CudaToCpu(Transform):
    """Rewrite what needs a GPU so that the script runs on the CPU.

    Helps where a script was written for a GPU and must run without one: devices, `.cuda()`, `map_location`, pinned
    memory, CUDA's autocast (bfloat16 on the CPU instead of float16), gradient scalers (switched off: bfloat16 needs
    none) and synchronization. Where the script itself asks `torch.cuda.is_available()`, it is left alone.

    It is only applied when asked for, or when the script needs a GPU and none is there. Where there is a GPU,
    it makes the script slower.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#device-agnostic-code
    """

    safety = Safety.CLOSE
    tasks = frozenset({"inference", "training"})
    slot = "device"
    order = 10
    takes_out = frozenset({"grad_scaler"})
    automatic = False
    hardware = "machines without an NVIDIA GPU"

    LEAVES_ALONE = (
        code("""
            import torch

            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            model = torch.nn.Linear(3, 8).to(device)
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8)
            if torch.cuda.is_available():
                model = model.cuda()
                torch.cuda.synchronize()
        """),
        code("""
            import torch

            model = torch.nn.Linear(3, 8).to("cpu")
            print("cuda is not used here")
        """),
        code("""
            from mylib import Engine

            engine = Engine()
            engine.cuda_cores()
        """),
    )
    CHANGES = (
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 8).to("cuda")
                out = model(torch.zeros(1, 3, device='cuda:0'))
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 8).to("cpu")
                out = model(torch.zeros(1, 3, device='cpu'))
            """),
        ),
        Example(
            before=code("""
                import torch

                model = torch.nn.Linear(3, 8)
                model.cuda()
                out = model(torch.zeros(1, 3).cuda())
                print(out.sum())
            """),
            after=code("""
                import torch

                model = torch.nn.Linear(3, 8)
                out = model(torch.zeros(1, 3))
                print(out.sum())
            """),
        ),
        Example(
            before=code("""
                import torch
                from torch.cuda.amp import GradScaler, autocast

                model = torch.nn.Linear(3, 1).cuda()
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                scaler = GradScaler()
                for _ in range(3):
                    optimizer.zero_grad()
                    with autocast():
                        loss = model(torch.ones(2, 3).cuda()).sum()
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
                    scaler.update()
            """),
            after=code("""
                import torch
                from torch.cuda.amp import GradScaler, autocast

                model = torch.nn.Linear(3, 1)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                scaler = torch.amp.GradScaler("cpu", enabled=False)
                for _ in range(3):
                    optimizer.zero_grad()
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        loss = model(torch.ones(2, 3)).sum()
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
                    scaler.update()
            """),
        ),
    )

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Replace each use; one that stands inside another that is replaced goes with it."""
        outermost = [use for use in facts.devices if not any(_inside(use, other) for other in facts.devices)]
        for use in dict.fromkeys(outermost):
            code = _rewritten(use, [inner for inner in facts.devices if _inside(inner, use)])
            if code is None:
                yield self.leave(use.line, f"it is not clear what {use.text} would be on the CPU")
            elif code != use.text:
                imports = ("torch",) if code.startswith("torch.") else ()
                yield Replace(at=use.expression, code=code, reason=_reason(use), imports=imports)

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when nothing used the GPU any more."""
        return "the script still used the GPU" if after.cuda_used else ""


def _inside(inner: DeviceUse, outer: DeviceUse) -> bool:
    return inner.expression != outer.expression and outer.expression.contains(inner.expression)


def _reason(use: DeviceUse) -> str:
    reasons = {
        "autocast": "on the CPU, autocast runs in bfloat16",
        "grad_scaler": "bfloat16 needs no scaled loss",
        "pin_memory": "pinned memory only serves copies to a GPU",
    }
    return reasons.get(use.kind, "there is no GPU")


def _rewritten(use: DeviceUse, inner: list[DeviceUse]) -> str | None:
    """The code for the CPU; empty to drop a statement, None when it is unknown."""
    match use.kind:
        case "device" | "map_location":
            return "'cpu'" if use.text.endswith("'") else CPU
        case "cuda_method":
            return _without_method(use, inner)
        case "pin_memory":
            return _without_method(use, inner) if use.receiver else "False"
        case "autocast":
            return _autocast(use.text)
        case "grad_scaler":
            return SCALER
        case "cuda_call":
            return "" if use.is_statement else "0" if FIGURES.search(use.text) else None


def _without_method(use: DeviceUse, inner: list[DeviceUse]) -> str | None:
    """What is left of `x.cuda()`; as a statement by itself nothing, unless `x` does something: `net.train().cuda()`."""
    code = _receiver(use, inner)
    return "" if use.is_statement and code is not None and PLAIN.fullmatch(code) else code


def _receiver(use: DeviceUse, inner: list[DeviceUse]) -> str | None:
    """The text in front of `.cuda(...)`, with the uses inside it rewritten."""
    if use.receiver is None:
        return None
    starts = [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", use.text))]

    def offset(line: int, column: int) -> int:
        first = use.expression.column if line == use.expression.line else 0
        return starts[line - use.expression.line] + column - first

    # A receiver in parentheses ends at the dot, not where its own expression ends.
    dot = use.text.index(".", offset(use.receiver.end_line, use.receiver.end_column))
    code = use.text[:dot].rstrip()
    for part in sorted(inner, key=lambda part: part.expression, reverse=True):
        nested = [other for other in inner if _inside(other, part)]
        if not use.receiver.contains(part.expression) or any(_inside(part, other) for other in inner):
            continue
        new = _rewritten(part, nested)
        if new is None:
            return None
        start = offset(part.expression.line, part.expression.column)
        code = code[:start] + new + code[offset(part.expression.end_line, part.expression.end_column) :]
    return code


def _autocast(text: str) -> str:
    """CPU autocast with bfloat16; keeps what the script says about when it is enabled."""
    with quiet():
        call = ast.parse(f"({text}\n)", mode="eval").body
    enabled: ast.expr | None = None
    if isinstance(call, ast.Call):
        names_device = bool(call.args) and isinstance(getattr(call.args[0], "value", None), str)
        # torch.autocast(device_type, dtype, enabled) and torch.cuda.amp.autocast(enabled, dtype)
        position = 2 if names_device else 0
        by_keyword = [keyword.value for keyword in call.keywords if keyword.arg == "enabled"]
        enabled = next(iter(by_keyword + call.args[position : position + 1]), None)
    more = f", enabled={ast.unparse(enabled)}" if enabled is not None else ""
    return f'torch.autocast("cpu", dtype=torch.bfloat16{more})'
