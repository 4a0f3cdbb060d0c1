"""Printer: a graph as Python that a person reads, and that makes the same graph when it is traced again."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import Any

from workbench.graph import operations as ops
from workbench.graph.modes import MODELESS, Modes, mode_text
from workbench.graph.node import Argument, Node, Ref
from workbench.graph.operations import Operation
from workbench.graph.source import text

WIDE = 72
"""Columns of code; the user's line follows behind."""


def module_text(model: str, path: str) -> str:
    """`model.h[2].mlp` for the path `h.2.mlp`."""
    for part in path.split(".") if path else ():
        model += f"[{part}]" if part.isdigit() else f".{part}" if part.isidentifier() else f"[{part!r}]"
    return model


class Printer:
    """Writes one graph's statements. `module` gives the Python of a module's path."""

    def __init__(self, graph: Any, module: Callable[[str, str], str], comments: bool) -> None:
        self.graph = graph
        self.module = module
        self.comments = comments
        self.lines: list[str] = []
        self.model = "model"
        self.names: dict[int, str] = {}
        self.functions: dict[str, Callable[..., Any]] = {}  # the names it uses for functions
        self.around: Modes = ()  # what the block that is being written stands in
        self.calls: dict[tuple[int, int, str], int] = {}
        self.openers = {node.args[0]: node for node in graph.nodes if node.op in (ops.TRACE, ops.LOOP, ops.STEPS)}

    def write(self) -> str:
        """All statements, as a `with` block."""
        if self.graph.blocks[0].kind == "session":
            self._line(0, "with model.session() as session:")
            self._block(0, 1, "session")
        else:
            self._trace(0, 0, None)
        return "\n".join(self.lines)

    # ---- blocks

    def _trace(self, block: int, depth: int, node: Node | None) -> None:
        nodes = [each for each in self.graph.nodes if each.block == block]
        invokes = sorted({each.invoke for each in nodes})
        inputs: list[str] = []
        more = ""
        method = self.graph.blocks[block].kind
        if node is not None:
            self.model = self._value(node.args[1])
            for ready, args, options in node.args[2]:
                given = [self._value(each) for each in args]
                inputs.append(", ".join(given + [f"{k}={self._value(v)}" for k, v in options.items()] * ready))
            more = "".join(f", {name}={self._value(value)}" for name, value in node.kwargs.items())
        if len(inputs) > 1 or len(invokes) > 1:
            self._line(depth, f"with {self.model}.{method}({more.removeprefix(', ')}) as tracer:", node)
            for invoke in range(max(len(inputs), max(invokes, default=0) + 1)):
                given = inputs[invoke] if inputs else f"input_{invoke}"
                self._line(depth + 1, f"with tracer.invoke({given}):")
                self._nodes([each for each in nodes if each.invoke == invoke], depth + 2, "tracer")
        else:
            given = inputs[0] if inputs else "input"
            self._line(depth, f"with {self.model}.{method}({given}{more}) as tracer:", node)
            self._nodes(nodes, depth + 1, "tracer")

    def _block(self, block: int, depth: int, context: str) -> None:
        self._nodes([each for each in self.graph.nodes if each.block == block], depth, context)

    def _nodes(self, nodes: list[Node], depth: int, context: str) -> None:
        before = len(self.lines)
        open_guards: list[int] = []
        open_modes: Modes = ()
        for node in nodes:
            wanted = self._guards(node)
            if node.op not in _ALWAYS and node.op is not ops.GUARD:
                while open_guards and open_guards != wanted[: len(open_guards)]:
                    open_guards.pop()
                    open_modes = ()
            if node.op in _CLOSING:
                open_modes = ()
            elif node.op not in MODELESS:
                modes = tuple(mode for mode in node.modes if mode not in self.around)
                if modes != open_modes:
                    open_modes = modes
                    if modes:
                        self._line(depth + len(open_guards), f"with {', '.join(map(mode_text, modes))}:", node)
            if node.op is ops.GUARD:
                outer: list[Any] = list(node.args[1:])
                parent = self._guards_of(outer[0].id) if outer else []
                open_guards = [*parent, node.id]
                self._line(depth + len(parent), f"with {context}.cond({self._value(node.args[0])}):", node)
            else:
                self._node(node, depth + len(open_guards) + bool(open_modes), context)
        if len(self.lines) == before or self.lines[-1].split("  #")[0].rstrip().endswith(":"):
            self._line(depth + len(open_guards) + bool(open_modes), "pass")

    def _guards(self, node: Node) -> list[int]:
        return [] if node.guard is None else self._guards_of(node.guard)

    def _guards_of(self, guard: int) -> list[int]:
        args = self.graph.nodes[guard].args
        return [*(self._guards_of(args[1].id) if len(args) > 1 else ()), guard]

    # ---- one node

    def _node(self, node: Node, depth: int, context: str) -> None:
        if node.op is ops.TRACE:
            around, self.around = self.around, (*self.around, *node.modes)
            self._trace(node.args[0], depth, node)
            self.around = around
        elif node.op is ops.LOOP:
            item = next(each for each in self.graph.nodes if each.op is ops.ITEM and each.block == node.args[0])
            self.names[item.id] = f"item{item.id}"
            loop = f"loop{node.id}"
            items = self._value(node.args[1])
            head = f"with session.iter({items}, return_context=True) as ({self.names[item.id]}, {loop}):"
            self._line(depth, head, node)
            self._block(node.args[0], depth + 1, loop)
        elif node.op is ops.STEPS:
            block, start, stop, stride = node.args
            item = next(each for each in self.graph.nodes if each.op is ops.ITEM and each.block == block)
            self.names[item.id] = f"step{item.id}"
            span = f"{start or ''}:{'' if stop is None else stop}" + (f":{stride}" if stride != 1 else "")
            self._line(depth, f"with tracer.iter[{span}] as {self.names[item.id]}:", node)
            self._block(block, depth + 1, "tracer")
        elif node.op in _SILENT:
            # A constant is written where it is assigned, and read later as what it was assigned to.
            if node.op is ops.EITHER:
                swap = self.graph.nodes[node.id - 1]
                self.names[node.id] = self._site(swap) if swap.op is ops.SWAP else f"{self._value(swap.args[0])}.grad"
        else:
            statement, gives = self._statement(node, context)
            name = f"v{node.id}"
            if gives:
                saved = ".save()" if node.id in self.graph.saved else ""
                self.names[node.id] = name
                if saved and node.op.symbol:
                    statement = f"({statement})"
                statement = f"{name} = {statement}{saved}"
            self._line(depth, statement, node)
            if not gives and node.id in self.graph.saved and node.id in self.names:
                self._line(depth, f"{self.names[node.id]}.save()")

    def _statement(self, node: Node, context: str) -> tuple[str, bool]:
        """The node's Python, and whether it gives a value."""
        op, args = node.op, node.args
        value = self._value
        if op is ops.SITE:
            return self._site(node), True
        if op is ops.FIRST_INPUT:
            return self._site(self.graph.nodes[args[0].id]).removesuffix("s"), True
        if op is ops.SWAP:
            source = self.graph.nodes[args[1].id] if type(args[1]) is Ref else None
            if source is not None and source.op is ops.WITH_FIRST_INPUT:
                return f"{self._site(node).removesuffix('s')} = {value(source.args[1])}", False
            return f"{self._site(node)} = {self._assigned(args[1], node)}", False
        if op is ops.SKIP:
            return f"{self.module(self.model, args[0].path)}.skip({value(args[1])})", False
        if op is ops.GRAD:
            return f"{value(args[0])}.grad", True
        if op is ops.SWAP_GRAD:
            return f"{value(args[0])}.grad = {self._assigned(args[2], node)}", False
        if op is ops.BACKWARD:
            return f"{value(args[0])}.backward({self._arguments(args[2:], node.kwargs)})", False
        if op is ops.STOP:
            return (f"{value(args[0])}.stop()" if args else f"{context}.stop()"), False
        if op is ops.LOG:
            return f"{context}.log({self._arguments(args, {})})", False
        if op is ops.EXIT:
            return f"{context}.exit()", False
        if op is ops.MODULE or op is ops.HOOKED:
            model = self.model if args[0] is None else value(args[0])
            hook = {"hook": True} if op is ops.HOOKED else {}
            return f"{self.module(model, args[1])}({self._arguments(args[2:], {**node.kwargs, **hook})})", True
        if op is ops.WEIGHT:
            return f"{self.module(self.model if args[0] is None else value(args[0]), args[1])}.{args[2]}", True
        if op is ops.PARAMETER:
            self.names[node.id] = value(args[0])
            return f"{value(args[0])}._is_param = True", False
        if op is ops.OPTIMIZER:
            return f"{value(args[0])}({self._arguments(args[1:2], args[2])})", True
        return self._expression(node)

    def _expression(self, node: Node) -> tuple[str, bool]:
        op, args = node.op, node.args
        value = self._value
        if op is ops.GETATTR:
            return f"{value(args[0])}.{args[1]}", True
        if op is ops.SETATTR:
            return f"{value(args[0])}.{args[1]} = {value(args[2])}", False
        if op is ops.GETITEM:
            return f"{value(args[0])}[{self._index(args[1])}]", True
        if op is ops.SETITEM:
            return f"{value(args[0])}[{self._index(args[1])}] = {value(args[2])}", False
        if op is ops.DELITEM:
            return f"del {value(args[0])}[{self._index(args[1])}]", False
        if op is ops.CALL:
            return f"{value(args[0])}({self._arguments(args[1:], node.kwargs)})", True
        if op.name == "method":
            return f"{value(args[0])}.{args[1]}({self._arguments(args[2:], node.kwargs)})", True
        if op.symbol and len(args) == 2 and op.symbol.endswith("=") and op.writes:
            name = f"v{node.id}"
            self.names[node.id] = name
            return f"{name} = {value(args[0])}; {name} {op.symbol} {value(args[1])}", False
        if op.symbol and len(args) == 2:
            left = value(args[0])
            return f"{f'({left})' if left.startswith('-') else left} {op.symbol} {value(args[1])}", True
        if op.symbol and len(args) == 1:
            return (f"abs({value(args[0])})" if op.symbol == "abs " else f"{op.symbol}{value(args[0])}"), True
        if op.fn in ops.BUILT_IN:
            return f"wb.{op.name}({self._arguments(args, node.kwargs)})", True
        if op.name.startswith("torch."):
            return f"{op.name}({self._arguments(args, node.kwargs)})", True
        return f"wb.apply({', '.join([self._function(op), self._arguments(args, node.kwargs)]).rstrip(', ')})", True

    def _function(self, op: Operation) -> str:
        """A name for a function that a node calls; Python's own stand for themselves."""
        if getattr(builtins, op.fn.__name__ if hasattr(op.fn, "__name__") else "", None) is op.fn:
            return op.fn.__name__
        name = op.name.rpartition(".")[2]
        name = name if name.isidentifier() and not iskeyword(name) else "function"
        while self.functions.setdefault(name, op.fn) is not op.fn:
            name += "_"
        return name

    # ---- values

    def _site(self, node: Node) -> str:
        site = node.args[0]
        place = self.module(self.model, site.path)
        if site.inside:
            place += "".join(f".source.{name}" for name in site.inside.split("."))
        key = (node.block, node.invoke, f"{site.path}/{site.inside}" if site.inside else site.path)
        count = site.call + site.step
        steps = count - self.calls.get(key, 0)
        self.calls[key] = count
        return f"{place}{f'.next({steps})' if steps else ''}.{'output' if site.port == 'output' else 'inputs'}"

    def _assigned(self, value: Any, node: Node) -> str:
        """What is put in a site's place; a container or a constant is afterwards read as the site."""
        source = self.graph.nodes[value.id] if type(value) is Ref else None
        if source is None or source.op is not ops.CONSTANT:
            return self._value(value)
        self.names[source.id] = self._site(node) if node.op is ops.SWAP else f"{self._value(node.args[0])}.grad"
        return self._value(source.args[0])

    def _index(self, index: Any) -> str:
        if isinstance(index, tuple) and index:
            return ", ".join(map(self._index, index)) + ("," if len(index) == 1 else "")
        if isinstance(index, slice):
            parts = ["" if each is None else self._value(each) for each in (index.start, index.stop)]
            return ":".join(parts) + ("" if index.step is None else f":{self._value(index.step)}")
        return "..." if index is Ellipsis else self._value(index)

    def _arguments(self, args: Any, kwargs: Mapping[str, Any]) -> str:
        return ", ".join([*map(self._value, args), *(f"{name}={self._value(each)}" for name, each in kwargs.items())])

    def _value(self, value: Any) -> str:
        if type(value) is Ref:
            return self.names.get(value.id, f"v{value.id}")
        if type(value) is Argument:
            return value.name
        if type(value) is tuple:
            return f"({', '.join(map(self._value, value))}{',' if len(value) == 1 else ''})"
        if type(value) is list:
            return f"[{', '.join(map(self._value, value))}]"
        if type(value) is dict:
            return "{" + ", ".join(f"{name!r}: {self._value(each)}" for name, each in value.items()) + "}"
        if type(value) is slice:
            return f"slice({self._value(value.start)}, {self._value(value.stop)}, {self._value(value.step)})"
        if value is Ellipsis:
            return "..."
        if isinstance(value, float) and value != value:
            return 'float("nan")'
        return f'float("{value}")' if value in (float("inf"), float("-inf")) else repr(value)

    def _line(self, depth: int, code: str, node: Node | None = None) -> None:
        code = "    " * depth + code
        self.lines.append(f"{code:<{WIDE}}  # {text(node.line)}" if self.comments and node is not None else code)


_CLOSING = frozenset({ops.GUARD, ops.LOOP, ops.STEPS})
_ALWAYS = frozenset({ops.SITE, ops.GRAD, ops.GETATTR, ops.FIRST_INPUT, ops.EITHER, ops.CONSTANT})
_SILENT = frozenset({ops.ITEM, ops.EITHER, ops.CONSTANT, ops.WITH_FIRST_INPUT})


class Plot:
    """A graph as a drawing: JupyterLab shows it, elsewhere its text in the Mermaid language."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/vnd.mermaid": self.text, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def plot(graph: Any, describe: Callable[[Node], str]) -> Plot:
    """Nodes as boxes, what each reads as arrows; kept ones are round."""
    lines = ["flowchart TD"]
    for node in graph.nodes:
        label = describe(node).replace('"', "'")
        lines.append(f'  n{node.id}(["{label}"])' if node.id in graph.saved else f'  n{node.id}["{label}"]')
        lines += [f"  n{ref} --> n{node.id}" for ref in dict.fromkeys(node.refs)]
    return Plot("\n".join(lines))
