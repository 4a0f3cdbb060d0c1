"""Graph: a recorded program as frozen data, ready to be run any number of times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from workbench.graph.node import Node, call_text
from workbench.graph.printer import Plot, Printer, module_text, plot


class Block(NamedTuple):
    """Nodes that run together: one forward pass or generation, the steps of one, a loop's body, a session in a row."""

    kind: Literal["trace", "generate", "steps", "session", "loop"]
    parent: int | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in the order they were written, which of them are kept, and the blocks they stand in, outermost first.

    It holds no values: tensors and functions are `Argument` names in the nodes, bound for each run, so one graph can
    be run again and again, by two threads, on two machines. `_plan` is where the engine keeps what it worked out.
    """

    nodes: tuple[Node, ...]
    saved: frozenset[int]
    arguments: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = (Block("trace"),)
    _plan: list[Any] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        """The graph as readable code, each statement with the user's own line behind it."""
        return Printer(self, module_text, comments=True).write()

    def to_python(self, module: Callable[[str, str], str] = module_text) -> str:
        """Python that makes the same graph when it is run, over names for what the graph does not hold.

        Inputs are called `input` (or `input_0`, …), the model `model`, this package `wb`, other values as in
        `arguments`, and functions as in `functions`.

        Args:
            module: `module(model, path)` gives the Python of a module; `workbench.envoy.expression` knows which names
                an Envoy keeps for itself.

        Example:
            >>> import torch, workbench as wb
            >>> model = wb.NNsight(torch.nn.Sequential(torch.nn.Linear(2, 3)))
            >>> with model.trace(torch.ones(1, 2)) as tracer:
            ...     kept = (model[0].output[:, 0] * 2).save()
            >>> print(tracer.graph.to_python())
            with model.trace(input) as tracer:
                v0 = model[0].output
                v1 = v0[:, 0]
                v2 = (v1 * 2).save()
        """
        return Printer(self, module, comments=False).write()

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions that `apply` was given, by the names they have in `to_python()`.

        Example:
            >>> import torch, workbench as wb
            >>> model = wb.NNsight(torch.nn.Identity())
            >>> def largest(tensor):
            ...     return tensor.max().item()
            >>> with model.trace(torch.ones(2)) as tracer:
            ...     kept = wb.apply(largest, model.output).save()
            >>> tracer.graph.functions == {"largest": largest}
            True
        """
        printer = Printer(self, module_text, comments=False)
        printer.write()
        return printer.functions

    def plot(self) -> Plot:
        """The graph as a drawing, in JupyterLab; its text in the Mermaid language elsewhere."""
        return plot(self, call_text)
