"""Larger batches use a machine better than single samples, as long as they fit."""

from __future__ import annotations

from collections.abc import Iterator

from neural_coder.edits import AddArgument, Edit, Replace
from neural_coder.records import Analysis, Argument, DataLoader, LeftAlone, Safety, Witness
from neural_coder.transform import Example, Transform, code

TORCH_LOADER = "torch.utils.data.DataLoader"
POSITION = 1
"""Where `batch_size` stands among the positional arguments of a DataLoader."""


class BatchSize(Transform):
    """Set the batch size of data loaders that are only used for inference: `batch_size=32`.

    Helps where the script takes small batches and what counts is samples per second, not the time of one answer.

    The arithmetic of a sample stays the same (in evaluation mode), but each call takes longer and needs more memory,
    and code that counts batches sees other numbers. Loaders for training are left alone: their batch size is part of
    the recipe. It is only applied when asked for, with a value.

    Source: https://docs.pytorch.org/docs/stable/data.html#loading-batched-and-non-batched-data
    """

    safety = Safety.SAME_MATH
    tasks = frozenset({"inference"})
    slot = "batch"
    order = 90
    automatic = False
    hardware = "any"

    LEAVES_ALONE = (
        code("""
            import torch
            from torch.utils.data import DataLoader

            model = torch.nn.Linear(3, 1)
            loader = DataLoader(torch.ones(8, 3), batch_size=2)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for x in loader:
                loss = model(x).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        """),
        code("""
            import torch
            from torch.utils.data import DataLoader

            model = torch.nn.Linear(3, 1)
            loader = DataLoader(torch.ones(8, 3), batch_sampler=[[0, 1], [2, 3]])
            for x in loader:
                print(model(x))
        """),
        code("""
            import torch
            from torch.utils.data import DataLoader

            model = torch.nn.Linear(3, 1)
            options = {}
            loader = DataLoader(torch.ones(8, 3), **options)
            for x in loader:
                print(model(x))
        """),
        code("""
            import torch
            from torch.utils.data import DataLoader

            model = torch.nn.Linear(3, 1)
            loader = DataLoader(torch.ones(8, 3), batch_size=None)
            for x in loader:
                print(model(x))
        """),
        code("""
            import torch
            from mylib import DataLoader

            model = torch.nn.Linear(3, 1)
            for x in DataLoader('data').rows():
                print(model(x))
        """),
    )
    CHANGES = (
        Example(
            value="32",
            before=code("""
                import torch
                from torch.utils.data import DataLoader

                model = torch.nn.Linear(3, 1)
                loader = DataLoader(torch.ones(64, 3), batch_size=1, shuffle=False)
                for x in loader:
                    print(model(x).sum())
            """),
            after=code("""
                import torch
                from torch.utils.data import DataLoader

                model = torch.nn.Linear(3, 1)
                loader = DataLoader(torch.ones(64, 3), batch_size=32, shuffle=False)
                for x in loader:
                    print(model(x).sum())
            """),
        ),
        Example(
            value="32",
            before=code("""
                import torch
                from torch.utils import data

                model = torch.nn.Linear(3, 1)
                loader = data.DataLoader(torch.ones(64, 3), 4)
                for x in loader:
                    print(model(x).sum())
            """),
            after=code("""
                import torch
                from torch.utils import data

                model = torch.nn.Linear(3, 1)
                loader = data.DataLoader(torch.ones(64, 3), 32)
                for x in loader:
                    print(model(x).sum())
            """),
        ),
        Example(
            value="32",
            before=code("""
                import torch
                from torch.utils.data import DataLoader

                model = torch.nn.Linear(3, 1)
                loader = DataLoader(torch.ones(64, 3))
                for x in loader:
                    print(model(x).sum())
            """),
            after=code("""
                import torch
                from torch.utils.data import DataLoader

                model = torch.nn.Linear(3, 1)
                loader = DataLoader(torch.ones(64, 3), batch_size=32)
                for x in loader:
                    print(model(x).sum())
            """),
        ),
    )

    @classmethod
    def check_value(cls, value: str | None) -> str:
        """A value must be there, and be a whole number of at least 1."""
        if value is not None and value.isascii() and value.isdigit() and int(value) > 0:
            return ""
        return "batch_size needs a whole number of at least 1, as in batch_size=32"

    def edits(self, facts: Analysis, value: str | None) -> Iterator[Edit | LeftAlone]:
        """Set the batch size of each loader that only feeds inference."""
        size = value or "1"
        for loader in facts.dataloaders:
            given = _batch_size(loader)
            reason = self._why_not(loader, given, size)
            if reason or loader.call is None:
                yield self.leave(loader.line, reason)
            elif given is not None:
                yield Replace(at=given.value, code=size, reason=f"batches of {size} instead of {given.text}")
            else:
                yield AddArgument(call=loader.call, keyword="batch_size", value=size, reason=f"batches of {size}")

    @staticmethod
    def _why_not(loader: DataLoader, given: Argument | None, size: str) -> str:
        name = loader.name or "the loader of this loop"
        keywords = {argument.keyword for argument in loader.arguments}
        if loader.used_for != {"inference"}:
            return f"{name} feeds training" if loader.used_for else f"it is not known what {name} feeds"
        if loader.call is None or (given is None and loader.qualified_name != TORCH_LOADER):
            return f"{name} is not built with a batch size here"
        if "batch_sampler" in keywords:
            return f"{name} takes its batches from a sampler"
        if "*" in keywords or ("**" in keywords and given is None):
            return f"some arguments of {name} are only known at run time"
        if given is not None and given.text == "None":
            return f"{name} does not form batches"
        if given is not None and given.text == size:
            return f"{name} already takes batches of {size}"
        return ""

    def no_effect(self, before: Witness, after: Witness) -> str:
        """It took effect when batches of another size reached the model."""
        return "the model got batches of the same size" if after.batch_sizes <= before.batch_sizes else ""


def _batch_size(loader: DataLoader) -> Argument | None:
    """The argument that sets the batch size, by keyword or by position."""
    for argument in loader.arguments:
        if argument.keyword == "batch_size":
            return argument
    if loader.qualified_name != TORCH_LOADER or any(argument.keyword == "*" for argument in loader.arguments):
        return None
    positional = [argument for argument in loader.arguments if argument.keyword is None]
    return positional[POSITION] if len(positional) > POSITION else None
