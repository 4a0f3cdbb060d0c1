"""Guard: what a worker looks at before a request is run, and what it watches while it runs.

The request was read already: its operations, names and references are those that may be. Here it meets the models:
its paths are looked up, its options are from a list, and what it would allocate is worked out on fake tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from workbench.engine.divided import local
from workbench.engine.execution import Execution
from workbench.engine.frame import MISSING, Frame
from workbench.engine.plan import Plan, plan
from workbench.engine.scan import Inside, Scan
from workbench.engine.values import tensors
from workbench.errors import WorkbenchError
from workbench.graph import operations as ops
from workbench.graph.guarded import guarded
from workbench.graph.limits import Limits, Refused, size_text
from workbench.graph.node import Argument, Node, Ref, call_text
from workbench.graph.package import ModelName, Request
from workbench.graph.source import text
from workbench.models.base import NNsight
from workbench.tracing.shapes import Shapes

Models = Mapping[str, NNsight]

GENERATION = frozenset(
    """max_new_tokens max_length min_length min_new_tokens do_sample num_beams num_return_sequences temperature top_k
    top_p min_p typical_p epsilon_cutoff eta_cutoff repetition_penalty encoder_repetition_penalty length_penalty
    no_repeat_ngram_size bad_words_ids forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens
    early_stopping use_cache eos_token_id pad_token_id bos_token_id decoder_start_token_id output_scores output_logits
    output_attentions output_hidden_states return_dict_in_generate remove_invalid_values renormalize_logits
    exponential_decay_length_penalty seed""".split()
)
"""What may be asked of a generation: nothing that loads code, opens files or keeps state."""

PREPARING = frozenset("max_length truncation padding add_special_tokens add_generation_prompt".split())
"""What may be asked of a tokenizer."""


# ---- before the run


class Checked:
    """A request that may be run: its plan, with guarded operations, and its bindings, with models in their places."""

    def __init__(self, request: Request, models: Models, limits: Limits) -> None:
        missing = [key for key in request.models if key not in models]
        if missing:
            raise Refused(f"the model {missing[0]!r} is not in this worker", 404)
        self.request = request
        self.limits = limits
        self.model = models[request.models[0]]
        self.bindings = {
            name: models[value.key] if isinstance(value, ModelName) else value
            for name, value in request.bindings.items()
        }
        self.models = [models[key] for key in request.models]
        self._by_block = self._models_of_blocks()
        self._paths()
        for args, kwargs in request.inputs:
            check_input(self.model, args, kwargs)
        check_options(request.options, request.kind == "generate", limits)
        try:
            ordinary = plan(request.graph)
        except (WorkbenchError, ArithmeticError):
            raise
        except Exception as error:  # a graph that no trace writes: a reference where the planner looks for another kind
            raise Refused(f"this graph cannot be planned: {type(error).__name__}: {error}") from error
        nodes = tuple(map(guarded, request.graph.nodes))
        self.plan: Plan = replace(ordinary, graph=replace(request.graph, nodes=nodes))

    @property
    def doubtful(self) -> bool:
        """Whether it has the model's own weights in its hands and writes into something."""
        nodes = self.request.graph.nodes
        return any(node.op is ops.WEIGHT for node in nodes) and any(
            node.op.writes or "inplace" in node.kwargs or node.op is ops.OPTIMIZER for node in nodes
        )

    def _models_of_blocks(self) -> dict[int, NNsight]:
        found: dict[int, NNsight] = {0: self.model} if self.request.kind != "session" else {}
        for node in self.request.graph.nodes:
            if node.op is ops.TRACE:
                found[node.args[0]] = self.bindings[node.args[1].name]
        for id, block in enumerate(self.request.graph.blocks):
            if block.kind == "steps" and block.parent in found:
                found[id] = found[block.parent]
        return found

    def model_of(self, node: Node) -> NNsight:
        """The model that a node is about: that of its pass, or the one that it names."""
        root = node.args[0] if node.args else None
        if type(root) is Argument and isinstance(self.bindings.get(root.name), NNsight):
            return self.bindings[root.name]
        model = self._by_block.get(node.block)
        if model is None:
            raise Refused(f"this is about no model ({text(node.line)})")
        return model

    def _paths(self) -> None:
        """Each module that is named is one that there is; each weight is a parameter or a buffer of it."""
        for node in self.request.graph.nodes:
            if node.op in (ops.SITE, ops.SWAP, ops.SKIP):
                path = node.args[0].path
            elif node.op in (ops.MODULE, ops.HOOKED, ops.WEIGHT):
                path = node.args[1]
            else:
                continue
            module = self._module(node, path)
            if node.op is ops.WEIGHT and not isinstance(_own_tensor(module, node.args[2]), Tensor):
                where = path or "the model"
                raise Refused(f"{where} has no parameter or buffer {node.args[2][:60]!r} ({text(node.line)})")

    def _module(self, node: Node, path: str) -> nn.Module:
        modules = self.model_of(node)._live()
        if path not in modules:
            near = get_close_matches(path, list(modules), 3, 0.5)
            known = f"; near: {', '.join(near)}" if near else ""
            raise Refused(f"the server's model has no module at {path[:200]!r}{known} ({text(node.line)})")
        return modules[path]

    # ---- what it would allocate

    def predict(self) -> None:
        """Run the graph on fake tensors. Raises `Refused` for what would not fit; what only the run can tell passes."""
        nodes, saved = self.plan.graph.nodes, self.request.graph.saved
        spans = {node.args[0]: node.args[1:4] for node in nodes if node.op is ops.STEPS}
        as_recorded = SimpleNamespace(
            nodes=nodes, blocks=self.request.graph.blocks, bindings=self.bindings, spans=spans
        )
        shapes = Shapes(as_recorded)  # type: ignore[arg-type]
        for block, model in self._by_block.items():
            generates = self.request.graph.blocks[block].kind == "generate"
            scans = _Scans(model, self._inputs(block), self.request.options if generates else None)
            shapes.register(block, scans)
        alive, most, kept = 0, self.limits.memory, 0
        sizes: dict[int, int] = {}
        uses = self.plan.uses.copy()
        try:
            for node in nodes:
                if node.op in _UNSIZED:
                    continue
                try:
                    size = logical(shapes.fake(node.id))
                except Exception:  # it is known only in the run, or the run will raise the same, with more words
                    size = 0
                if size > most:
                    raise Refused(f"{_call(node)} would have {size_text(size)}; {size_text(most)} are allowed", 413)
                if node.id in saved:
                    kept += size
                    if kept > self.limits.result:
                        raise Refused(
                            f"what is saved would have more than {size_text(self.limits.result)}, which is all that is "
                            f"allowed here; save less, as the part of a value that you need: {_call(node)}",
                            413,
                        )
                if not node.op.views and node.op is not ops.SITE:
                    sizes[node.id] = size
                    alive += size
                    if alive > most:
                        raise Refused(
                            f"the values alive at {_call(node)} would have {size_text(alive)}; "
                            f"{size_text(most)} are allowed",
                            413,
                        )
                for ref in self.plan.drops[node.id]:
                    uses[ref] -= 1
                    if not uses[ref]:
                        alive -= sizes.pop(ref, 0)
        finally:
            shapes.release()

    def _inputs(self, block: int) -> list[Any]:
        """The invokes' inputs of a pass, where they are known before the run."""
        if self.request.kind != "session":
            return self.request.inputs
        node = next(each for each in self.request.graph.nodes if each.op is ops.TRACE and each.args[0] == block)
        resolved = [self._bound(call) for call in node.args[2]]
        return [(args, kwargs) if ready and _known((args, kwargs)) else None for ready, args, kwargs in resolved]

    def _bound(self, value: Any) -> Any:
        if type(value) is Argument:
            return self.bindings[value.name]
        if type(value) in (tuple, list):
            return type(value)(self._bound(item) for item in value)
        if type(value) is dict:
            return {name: self._bound(item) for name, item in value.items()}
        return value


class _Scans:
    """The scans of one pass, by invoke; of a generation, which has options, also by step."""

    def __init__(self, model: NNsight, inputs: list[Any], generation: Mapping[str, Any] | None) -> None:
        self._model = model
        self._inputs = inputs
        self._generation = generation

    def __call__(self, invoke: int, inside: Inside, step: int) -> Scan:
        given = self._inputs[min(invoke, len(self._inputs) - 1)]
        if given is None:
            raise Refused("shapes are known only in the run here")
        if self._generation is not None:
            return self._model._scan_step(given, dict(self._generation), step, inside)
        args, kwargs = self._model._batch([given])
        return self._model._scan(args, kwargs, inside)


_UNSIZED = frozenset({ops.LOG, ops.STOP, ops.SWAP, ops.SKIP, ops.TRACE, ops.LOOP, ops.STEPS, ops.EXIT, ops.ITEM})


def _known(value: Any) -> bool:
    if type(value) is Ref:
        return False
    if isinstance(value, (tuple, list)):
        return all(map(_known, value))
    return all(map(_known, value.values())) if isinstance(value, dict) else True


def _own_tensor(module: nn.Module, name: str) -> Any:
    for own in (module._parameters, module._buffers, vars(module)):
        if name in own:
            return own[name]
    return None


def _call(node: Node) -> str:
    return f"{call_text(node)} ({text(node.line)})"


def logical(value: Any) -> int:
    """Bytes of a value by its logical size: an expanded tensor counts as if it were written out."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(value))


# ---- options


def check_options(options: Mapping[str, Any], generate: bool, limits: Limits) -> None:
    """The further arguments of a forward, or of a generation. Raises `Refused` for one that may not be given."""
    for name, value in options.items():
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise Refused(f"{str(name)[:60]!r} is no name of an argument")
        if generate and name not in GENERATION:
            raise Refused(f"a generation on a server may not be given {name}=")
        if generate and not isinstance(value, (bool, int, float, type(None), Tensor, list)):
            raise Refused(f"{name}= may not be a {type(value).__name__}")
        if name in _COUNTS and value is not None and (type(value) is not int or not 0 <= value <= limits.steps):
            raise Refused(f"{name}= is a count of at most {limits.steps}, not {str(value)[:40]}")
        if name in _FEW and value is not None and (type(value) is not int or not 1 <= value <= limits.inputs):
            raise Refused(f"{name}= is a count of at most {limits.inputs}, not {str(value)[:40]}")


_COUNTS = frozenset({"max_new_tokens", "max_length", "min_length", "min_new_tokens"})
_FEW = frozenset({"num_beams", "num_return_sequences"})


def check_input(model: NNsight, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """One invoke's prepared input. Raises `Refused` for names that no argument has, and for tokens that are none."""
    check_options(kwargs, False, Limits())
    size = getattr(getattr(model._module, "config", None), "vocab_size", None)
    ids = kwargs.get("input_ids")
    if isinstance(ids, Tensor) and isinstance(size, int):
        if ids.is_floating_point() or ids.ndim != 2 or not ids.numel():
            raise Refused(f"input_ids are whole numbers of shape (batch, position), not {tuple(ids.shape)}")
        if int(ids.min()) < 0 or int(ids.max()) >= size:
            raise Refused(f"input_ids are tokens from 0 to {size - 1}, not {int(ids.min())} to {int(ids.max())}")


def check_preparing(model: NNsight, args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """What a tokenizer is given in the run. Raises `Refused` for settings that may not be given."""
    if getattr(model, "tokenizer", None) is None or any(isinstance(each, Tensor) for each in options.values()):
        check_options(options, False, Limits())
        return
    for name, value in options.items():
        if name not in PREPARING or not isinstance(value, (bool, int, type(None))):
            raise Refused(f"a tokenizer on a server may not be given {str(name)[:60]}=")


# ---- while it runs


class Watched(Execution):
    """A run that is counted: statements, rounds of loops, and the size of each value."""

    def __init__(self, checked: Checked, log: Callable[[str], None]) -> None:
        super().__init__(checked.plan, checked.bindings, log)
        self._limits = checked.limits
        self._trips = 0
        self._executed = 0
        self._most = checked.limits.memory

    def execute_all(self, ids: Sequence[int], frame: Frame) -> None:
        """Run nodes one by one: none goes by without being looked at."""
        for id in ids:
            self.execute(id, frame)

    def execute(self, id: int, frame: Frame) -> None:
        """Run one node, and look at what it gave."""
        self._executed += 1
        if self._executed > self._limits.executed:
            raise Refused(f"this runs more than {self._limits.executed} statements, loops' rounds counted")
        super().execute(id, frame)
        env = self.env
        value = env[id] if env else MISSING
        if isinstance(value, Tensor) and value.numel() * value.element_size() > self._most:
            node = self._nodes[id]
            raise Refused(f"{_call(node)} has {size_text(logical(value))}; {size_text(self._most)} are allowed", 413)

    def _loop(self, block: int, items: Iterable[Any]) -> None:
        super()._loop(block, self._counted(items))

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._trips += 1
            if self._trips > self._limits.trips:
                raise Refused(
                    f"this makes more than {self._limits.trips} rounds of its loops, which is all that is allowed"
                )
            yield item

    def _trace(self, block: int, model: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not isinstance(model, NNsight):
            raise Refused("a pass is of a model")
        check_options(kwargs, self.plan.blocks[block].kind == "generate", self._limits)
        for ready, args, options in inputs:
            if ready:
                check_input(model, args, options)
            else:
                check_preparing(model, args, options)
        super()._trace(block, model, inputs, kwargs)


def parameters_of(models: Iterable[NNsight]) -> int:
    """Bytes of the models' parameters and buffers, shared ones once."""
    found: dict[int, Tensor] = {}
    for model in models:
        found |= {id(each): local(each) for each in (*model._module.parameters(), *model._module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())
