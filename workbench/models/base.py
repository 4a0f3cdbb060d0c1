"""NNsight: any `torch.nn.Module`, wrapped so that its inside can be read and changed."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from threading import RLock
from typing import Any, Self

import torch
from torch import Tensor, nn

from workbench.engine.axes import LARGE, SMALL, Known, Layout, Sizes
from workbench.engine.batching import Rows
from workbench.engine.divided import Divided, Parallel
from workbench.engine.execution import Passing
from workbench.engine.scan import NOWHERE, Inside, Scan, Scanner
from workbench.engine.shadow import FAKING
from workbench.engine.values import map_tensors, signature, tensors
from workbench.envoy import Envoy, ModulePaths
from workbench.errors import InputError, TrainModeWarning
from workbench.graph.modes import state
from workbench.graph.source import warn
from workbench.models.parallel import parallel_of, undivided
from workbench.models.suitable import dropouts, refuse
from workbench.recorder import CURRENT, not_recording
from workbench.site import Site
from workbench.tracing import edits
from workbench.tracing.editor import Editor
from workbench.tracing.elsewhere import Where
from workbench.tracing.session import Session
from workbench.tracing.tracer import ScanContext, Tracer

_KEPT_SCANS = 64

Prepared = list[tuple[tuple[Any, ...], dict[str, Any]]]
"""Each invoke's input, as the model takes it."""


class NNsight(Envoy):
    """Wraps a module; nothing of it is changed, and untraced calls run as before.

    Args:
        module: any `torch.nn.Module`.
        rename: other names for modules, beside their own: `{"transformer.h": "layers"}` makes `model.layers`, and
            `{"mlp": "ff"}`, a name that stands in many places, makes an `.ff` beside each `.mlp`.

    Raises:
        InputError: something that is no module; a name that no module has, or that is taken.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Sequential(torch.nn.Linear(5, 10), torch.nn.Linear(10, 2)))
        >>> with model.trace(torch.rand(1, 5)):
        ...     hidden = model[0].output.save()
        >>> hidden.shape
        torch.Size([1, 10])
    """

    _edits: tuple[edits.Edit, ...]

    def __init__(self, module: nn.Module, rename: Mapping[str, str] | None = None) -> None:
        if not isinstance(module, nn.Module):
            raise InputError(f"a torch.nn.Module is wrapped here, not a {type(module).__name__}")
        refuse(module)
        self.__dict__["_scans"] = {}
        self.__dict__["_axes"] = {}  # signature of an input → which axes the batch and positions lie along, by site
        self.__dict__["_lock"] = RLock()
        self.__dict__["_edits"] = ()
        super().__init__(module)
        if rename:
            self._alias(rename)

    # ---- running

    def trace(
        self,
        *inputs: Any,
        trace: bool = True,
        scan: bool = False,
        validate: bool = False,
        batch_size: int | None = None,
        invoker_args: Mapping[str, Any] | None = None,
        remote: Where = False,
        blocking: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Open a trace: the body is recorded, and runs with the model when the `with` block ends.

        Args:
            inputs: what the model is called on; none to give inputs by `tracer.invoke(...)`.
            trace: False runs at once and returns the model's output.
            scan: find every site's shape on entering, rather than when the first shape is asked for.
            validate: run each statement on fake values as it is written, so that an error points at its line.
            batch_size: rows of the input that are run at once; what is saved is joined. Half as many where memory runs
                out.
            invoker_args: arguments for preparing the input, such as `max_length`.
            remote: run it on a server, the one that CONFIG names or the one of this address; no weights are needed.
            blocking: False does not wait for the server: `tracer.job` is asked, awaited, cancelled.
            kwargs: further arguments of the model's forward.
        """
        self._say_training()
        options = dict(invoker_args or {})
        made = Tracer(
            self, inputs, kwargs, options, scan=scan, validate=validate, batch_size=batch_size,
            remote=remote, blocking=blocking,
        )  # fmt: skip
        if trace:
            return made
        with made:
            result = self._root.output.save()
        return result.value if blocking else made.job

    def _say_training(self) -> None:
        """Warn of dropout that is at work, except in a session, where it may be trained."""
        module = self._root._module
        if module.training and CURRENT.get() is None:
            kept = self.__dict__.get("_dropouts")
            if kept is None or kept[0] is not module:
                kept = self.__dict__["_dropouts"] = module, dropouts(module)
            path = next((path for path, each in kept[1] if each.training and each.p), None)
            if path is not None:
                warn(
                    f"the model is in train mode, so {path} drops values at random and each run differs; call "
                    f"{type(module).__name__}.eval() on it first, unless that is meant",
                    TrainModeWarning,
                )

    def scan(self, *inputs: Any, remote: Where = False, **kwargs: Any) -> ScanContext:
        """A context that knows shapes and runs nothing real: `with model.scan(x): width = model.h.output.shape[-1]`.

        It needs no weights, so with `remote=` too it is done here.
        """
        return ScanContext(self, inputs, kwargs, {}, scan=True, validate=False)

    def scanned(self, *inputs: Any, **kwargs: Any) -> Scan:
        """The scan for these inputs, kept for inputs of the same shapes and dtypes."""
        args, named = self._batch([self._prepare(*inputs)]) if inputs else ((), {})
        return self._scan(args, {**named, **kwargs})

    def _scanner(self) -> Scanner:
        """What scans the model as it is now; another when its weights were loaded. One that is divided over processes
        is scanned as it would be whole."""
        module = self._root._module
        kept = self.__dict__.get("_scanner_kept")
        if kept is None or kept[0] is not module:
            seen = module if self._parallel() is None else undivided(module)
            kept = self.__dict__["_scanner_kept"] = module, Scanner(seen)
        return kept[1]

    def _parallel(self) -> Parallel | None:
        """How the model is divided over processes; None if it is whole."""
        module = self._root._module
        kept = self.__dict__.get("_parallel_kept")
        if kept is None or kept[0] is not module:
            kept = self.__dict__["_parallel_kept"] = module, parallel_of(module)
        return kept[1]

    def _divided(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Divided | None:
        """What puts the values of a pass together, of a model that is divided."""
        parallel = self._parallel()
        if parallel is None:
            return None

        def scans(site: Site) -> tuple[Scan, Scan]:
            inside = frozenset({(site.path, site.inside)}) if site.inside else NOWHERE
            small, large = (self._scan(*self._sized(args, kwargs, sizes), inside) for sizes in self._sizes())
            return small, large

        return Divided(parallel, scans, self.__dict__.setdefault("_division", {}))

    def _scan(self, args: tuple[Any, ...], kwargs: dict[str, Any], inside: Inside = NOWHERE) -> Scan:
        key = signature((args, kwargs, self._root._module.training)), inside, state().autocast
        with FAKING, not_recording():
            found = self._scans.get(key)
            if found is None:
                found = self._scanner().scan(self._forward, args, kwargs, inside=inside)
                if len(self._scans) >= _KEPT_SCANS:
                    self._scans.pop(next(iter(self._scans)))
                self._scans[key] = found
        return found

    def _scan_step(self, prepared: Any, options: dict[str, Any], step: int, inside: Inside = NOWHERE) -> Scan:
        """The scan of a step of a generation."""
        raise InputError(f"{type(self._module).__name__} makes no tokens; run it with .trace(...)")

    def session(self, remote: Where = False, blocking: bool = True) -> Session:
        """Open a session: traces that run one after the other and share their values, without saving them.

        Args:
            remote: run all of it on a server, as one job; values that are not saved stay there.
            blocking: False does not wait for the server: `session.job` is asked, awaited, cancelled.
        """
        return Session(self, remote, blocking)

    def edit(self, inplace: bool = False, remote: Where = False) -> Editor:
        """Open an edit: what its block writes is done in every later trace of the edited model.

        Args:
            inplace: edit this model itself; else the block gives a new one, `with model.edit() as edited:`, which
                shares all modules and weights with this one, and has this one's edits too.
            remote: refuse, on its line, what could not be sent to a server with a later trace.

        Example:
            >>> import torch, workbench as wb
            >>> model = wb.NNsight(torch.nn.Identity())
            >>> with model.edit() as edited:
            ...     model.output = model.output * 2
            >>> edited.trace(torch.ones(2), trace=False), model.trace(torch.ones(2), trace=False)
            (tensor([2., 2.]), tensor([1., 1.]))
        """
        return Editor(self, inplace, remote)

    def clear_edits(self) -> None:
        """Take back all edits of this model."""
        self.__dict__["_edits"] = ()

    def save_edits(self, path: str | Path) -> None:
        """Keep this model's edits in a file: no code and no pickle, only names of operations, and tensors.

        Args:
            path: the file, by custom `….safetensors`.

        Raises:
            InputError: the model has no edits.
            WireError: an edit uses something that no file can hold, such as a function of your own.

        Example:
            >>> import tempfile, torch, workbench as wb
            >>> model = wb.NNsight(torch.nn.Identity())
            >>> with model.edit() as edited:
            ...     model.output = model.output * 2
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     edited.save_edits(f"{folder}/doubled.safetensors")
            ...     again = model.load_edits(f"{folder}/doubled.safetensors")
            >>> again.trace(torch.ones(2), trace=False)
            tensor([2., 2.])
        """
        if not self._edits:
            raise InputError("this model has no edits to save; write some in `with model.edit() as edited:`")
        edits.write(self._edits, Path(path))

    def load_edits(self, path: str | Path, inplace: bool = False) -> Self:
        """The model with the edits of a file, after its own.

        Args:
            path: what `save_edits` wrote.
            inplace: edit this model itself; else it stays as it is, and the edited one shares its modules.

        Raises:
            WireError: the file holds no edits, or what is not allowed.
            PathError: it edits a module that this model does not have.
        """
        found = edits.read(Path(path))
        for site in {site for edit in found for site in edit.sites}:
            self._root.find(site.path)
        edited = self if inplace else self._view()
        edited.__dict__["_edits"] += tuple(found)
        return edited

    def _view(self) -> Self:
        """The same model under another name, to have edits of its own."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        return view

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A model of its own, with copied weights and the same edits."""
        copied = memo[id(self)] = object.__new__(type(self))
        for name, value in self.__dict__.items():
            if name == "_lock":
                copied.__dict__[name] = RLock()
            elif name == "_scans":
                copied.__dict__[name] = {}
            elif name == "_edits":
                copied.__dict__[name] = value  # frozen, and its operations are known by identity
            elif name not in ("_scanner_kept", "_parallel_kept"):
                copied.__dict__[name] = deepcopy(value, memo)
        return copied

    # ---- where it is

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or convert the model's parameters, as `torch.nn.Module.to` does."""
        self._base._ready().to(*args, **kwargs)
        return self

    def cpu(self) -> Self:
        """Move the model to the CPU."""
        return self.to("cpu")

    def cuda(self, device: int | torch.device | None = None) -> Self:
        """Move the model to a GPU."""
        return self.to(torch.device("cuda", device) if isinstance(device, int) else device or "cuda")

    @property
    def devices(self) -> list[torch.device]:
        """The devices that hold its parameters, each once."""
        return list(dict.fromkeys(p.device for p in self._root._module.parameters()))

    @property
    def _key(self) -> str | None:
        """The name under which a server hosts it; None for a module that was made here."""
        return self._root.__dict__.get("_opened_as")

    @property
    def _base(self) -> NNsight:
        """The model that an edited one is a view of."""
        assert isinstance(self._root, NNsight)
        return self._root

    # ---- what an execution asks for

    def _passing(self, prepared: Prepared, kwargs: dict[str, Any], generate: bool = False) -> Passing:
        """The forward pass on these inputs."""
        if generate:
            raise InputError(f"{type(self._module).__name__} makes no tokens; run it with .trace(...)")
        module = self.__dict__["_module"] = self._base._ready()
        args, named = self._batch(prepared)
        named = {**named, **kwargs}

        def trained() -> list[Tensor]:
            attached = [p for each in self._root.__dict__["_attached"] for p in each.parameters()]
            return attached + [tensor for tensor in tensors((args, named)) if tensor.requires_grad]

        rows = self._rows(prepared)
        return Passing(
            lambda: self._forward(module, *args, **named),
            ModulePaths(self._root),
            rows,
            trained,
            None if rows is None else self._layout(args, named),
            divided=self._divided(args, named),
        )

    def _layout(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: Mapping[Site, Known] | None = None,
        times: int = 1,
    ) -> Layout:
        """Which axes the batch and the positions lie along, at every site of a pass of this kind."""

        def scan(sizes: Sizes, site: Site) -> Scan:
            inside = frozenset({(site.path, site.inside)}) if site.inside else NOWHERE
            return self._scan(*self._sized(args, kwargs, sizes), inside)

        known = None
        if given is None:
            key = signature((args, kwargs, self._root._module.training))
            known = self._axes.get(key)
            if known is None:
                if len(self._axes) >= _KEPT_SCANS:
                    self._axes.pop(next(iter(self._axes)))
                known = self._axes[key] = {}
        return Layout(scan, self._sizes(), given, times, known)

    def _sizes(self) -> tuple[Sizes, Sizes]:
        """Two sizes of input by which axes are told apart."""
        return SMALL, LARGE

    def _sized(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], sizes: Sizes
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same kind of input at another size."""

        def sized(tensor: Tensor) -> Tensor:
            return tensor.new_zeros((sizes.batch, *tensor.shape[1:])) if tensor.ndim else tensor

        return map_tensors(sized, args), map_tensors(sized, kwargs)

    def _written(self, options: dict[str, Any]) -> Any:
        """How what several generations write is put together."""
        raise InputError(f"{type(self._module).__name__} makes no tokens")

    def _generated(self) -> Any:
        """What a generation gave, as a traced value."""
        raise InputError(f"{type(self._module).__name__} makes no tokens")

    def _live(self) -> Mapping[str, nn.Module]:
        """Each path's module, with real weights."""
        self._base._ready()
        return ModulePaths(self._root)

    # ---- what a kind of model may do its own way

    def _ready(self) -> nn.Module:
        """The module with real weights."""
        return self._module

    def _prepare(self, *inputs: Any, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """One invoke's input as `(args, kwargs)` of the forward."""
        return inputs, options

    def _batch(self, prepared: Prepared) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """All invokes' inputs as one call: tensors joined along their first axis."""
        if len(prepared) == 1:
            return prepared[0]
        first_args, first_kwargs = prepared[0]
        if any(len(args) != len(first_args) or kwargs.keys() != first_kwargs.keys() for args, kwargs in prepared):
            raise InputError("the invokes of one trace must all be given the same arguments")
        args = tuple(_joined([args[index] for args, _ in prepared]) for index in range(len(first_args)))
        kwargs = {name: _joined([kwargs[name] for _, kwargs in prepared]) for name in first_kwargs}
        return args, kwargs

    def _rows(self, prepared: Prepared) -> list[Rows] | None:
        """Which rows of the batch each invoke has; None when there is only one."""
        if len(prepared) == 1:
            return None
        sizes = [_batch_size(args, kwargs) for args, kwargs in prepared]
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        return [Rows(start, start + size, sum(sizes)) for start, size in zip(starts, sizes, strict=True)]

    def _forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return module(*args, **kwargs)


def _batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    for tensor in tensors((args, kwargs)):
        if tensor.ndim:
            return tensor.shape[0]
    raise InputError("an invoke needs a tensor with a batch axis among its inputs when there are several invokes")


def _joined(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        shapes = {tuple(value.shape[1:]) for value in values}
        if len(shapes) > 1:
            raise InputError(
                f"the inputs of several invokes are run as one batch and must agree in all axes but the first; "
                f"here they have shapes {', '.join(str(tuple(value.shape)) for value in values)}"
            )
        return torch.cat(values)
    return first
