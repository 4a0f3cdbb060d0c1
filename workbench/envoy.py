"""Envoy: the tree of a model's modules, where every module's input and output can be named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from difflib import get_close_matches
from keyword import iskeyword
from typing import Any, Self

from torch import Tensor, nn

from workbench.errors import InputError, NotTracingError, PathError
from workbench.graph import operations as ops
from workbench.proxy import Proxy
from workbench.recorder import CURRENT, Recorder, require
from workbench.source import Source


class Envoy:
    """One module of a wrapped model. Children are attributes, as on the module; `envoy["name"]` reaches those whose
    name an Envoy uses itself.

    Inside a trace: `output` is exactly what the module returned, `input` its first tensor input, `inputs` the
    `(args, kwargs)` of its call; each can be read, edited in place and assigned.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> with model.trace(torch.ones(1, 2)):
        ...     model[0].output[:, 0] = 0
        ...     hidden = model[1].input.save()
        >>> hidden[0, 0]
        tensor(0.)
    """

    _module: nn.Module
    _path: str
    _root: Envoy
    _children: dict[str, Envoy]
    _sealed = False
    """It stands inside a module that torch.compile made into one: its hooks need not be called."""

    def __init__(self, module: nn.Module, path: str = "", root: Envoy | None = None, sealed: bool = False) -> None:
        own = self.__dict__
        if sealed:
            own["_sealed"] = True
        own["_module"] = module
        own["_path"] = path
        own["_root"] = self if root is None else root
        own["_children"] = {}
        if root is None:
            own["_by_module"] = {}
            own["_by_path"] = {}
            own["_attached"] = []
            own["_apart"] = set()  # paths of modules that stand beside the model, not in it
        self._grow()

    def _grow(self) -> None:
        """Make the children's Envoys; a module that stands in two places is one Envoy, under its first path."""
        root = self._root.__dict__
        by_module: dict[nn.Module, Envoy] = root["_by_module"]
        by_path: dict[str, Envoy] = root["_by_path"]
        by_module[self._module] = by_path[self._path] = self
        prefix = f"{self._path}." if self._path else ""
        sealed = self._sealed or is_compiled(self._module)
        for name, child in self._module._modules.items():
            if child is None:
                continue
            envoy = by_module.get(child)
            if envoy is None:
                envoy = Envoy(child, prefix + name, self._root, sealed)
            else:
                by_path[prefix + name] = envoy
            self._children[name] = envoy
            if not hasattr(type(self), name):
                self.__dict__[name] = envoy

    def _alias(self, names: Mapping[str, str]) -> None:
        """Other names for modules: by path from here, or by a name wherever it stands."""
        for old, new in names.items():
            if not new.isidentifier() or hasattr(Envoy, new):
                raise InputError(f"{new!r} cannot be another name for {old!r}: it is no Python name, or one of ours")
            if "." in old:
                places = [(self, self.find(old))]
            else:
                places = [(each, each._children[old]) for each in self.walk() if old in each._children]
            if not places:
                raise InputError(f"{old!r} cannot be renamed: {_no_module(old, list(self.__dict__['_by_path']))}")
            for parent, child in places:
                if new in parent._children or new in parent.__dict__:
                    raise InputError(f"{old!r} cannot be renamed: {parent._path or 'the model'} already has {new!r}")
                parent.__dict__[new] = child

    def _rebind(self, module: nn.Module) -> None:
        """Stand for another module of the same structure: the same model with its weights loaded."""
        by_path: dict[str, Envoy] = self.__dict__["_by_path"]
        by_module: dict[nn.Module, Envoy] = self.__dict__["_by_module"]
        by_module.clear()
        for path, envoy in by_path.items():  # parents come before their children
            parent, _, name = path.rpartition(".")
            if envoy._module in self.__dict__["_attached"]:
                module.get_submodule(parent).add_module(name, envoy._module)
            if envoy._path not in self.__dict__["_apart"]:
                envoy.__dict__["_module"] = module.get_submodule(path)
            by_module[envoy._module] = envoy

    # ---- the tree

    @property
    def path(self) -> str:
        """The module's path below the root, as in `named_modules()`; "" is the root."""
        return self._path

    @property
    def module(self) -> nn.Module:
        """The wrapped module itself."""
        return self._module

    @property
    def children(self) -> dict[str, Envoy]:
        """Direct children by name."""
        return dict(self._children)

    def walk(self) -> Iterator[Envoy]:
        """This Envoy and all below it, parents first; a shared module comes once."""
        seen: set[int] = set()
        stack: list[Envoy] = [self]
        while stack:
            envoy = stack.pop()
            if id(envoy) in seen:
                continue
            seen.add(id(envoy))
            yield envoy
            stack.extend(reversed(envoy._children.values()))

    def find(self, path: str) -> Envoy:
        """The Envoy at a path below this one. Raises `PathError` that names near ones."""
        full = f"{self._path}.{path}" if self._path and path else self._path or path
        found = self._root.__dict__["_by_path"].get(full)
        if found is None:
            raise PathError(_no_module(full, list(self._root.__dict__["_by_path"])))
        return found

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is neither an Envoy's own nor a child: the module's other attributes, as they are.
        try:
            value = getattr(self.__dict__["_module"], name)
            recorder = CURRENT.get()
            if recorder is not None and isinstance(value, Tensor):
                return recorder.add(ops.WEIGHT, (self._root_in(recorder), self._path, name))
            return value
        except (AttributeError, KeyError):
            if name.startswith("__") or "_module" not in self.__dict__:
                raise AttributeError(name) from None
        kind = type(self._module).__name__
        near = get_close_matches(name, list(self._children), 3)
        known = (
            f"near: {', '.join(near)}" if near else f"it has {', '.join(list(self._children)[:12]) or 'no children'}"
        )
        raise PathError(f"{self._path or 'the model'} ({kind}) has no submodule or attribute {name!r}; {known}")

    def __getitem__(self, index: int | slice | str) -> Any:
        if isinstance(index, str):
            if index in self._children:
                return self._children[index]
            raise PathError(_no_module(index, list(self._children)))
        return list(self._children.values())[index]

    def __len__(self) -> int:
        return len(self._children)

    def __bool__(self) -> bool:
        return True  # a module without children is still a module

    def __iter__(self) -> Iterator[Envoy]:
        return iter(list(self._children.values()))

    def __repr__(self) -> str:
        return repr(self._module)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *(name for name in self._children if name.isidentifier())})

    # ---- the sites

    def _recorder(self, what: str) -> Recorder:
        recorder = CURRENT.get() or require(f"{self._path or 'model'}.{what}")
        if self._sealed or self._module._compiled_call_impl is not None:
            raise InputError(
                f"{self._path or 'model'}.{what} is inside what torch.compile made into one, where no hooks are "
                "called; wrap the module as it was before, such as compiled._orig_mod, or compile after looking inside"
            )
        root = recorder.root
        if root is self._root:
            return recorder
        if not isinstance(root, Envoy):
            raise NotTracingError(
                f"{self._path or 'model'}.{what} only means something inside a forward pass: "
                "write `with model.trace(...):` around it, inside the session"
            )
        if root._root is not self._root:
            raise InputError(
                f"{self._path or 'model'}.{what} belongs to another model than this trace; "
                f"use the model that .trace() was called on"
            )
        return recorder

    @property
    def output(self) -> Any:
        """What the module returned, as a traced value."""
        return self._recorder("output").site(self._path, "output")

    @output.setter
    def output(self, value: Any) -> None:
        self._recorder("output").swap(self._path, "output", value)

    @property
    def inputs(self) -> Any:
        """`(args, kwargs)` of the module's call, as a traced value."""
        return self._recorder("inputs").site(self._path, "input")

    @inputs.setter
    def inputs(self, value: Any) -> None:
        self._recorder("inputs").swap(self._path, "input", value)

    @property
    def input(self) -> Any:
        """The first tensor among the module's inputs, as a traced value."""
        recorder = self._recorder("input")
        return recorder.part(self._path, "input", ops.FIRST_INPUT)

    @input.setter
    def input(self, value: Any) -> None:
        recorder = self._recorder("input")
        if recorder.is_part(self._path, "input", ops.FIRST_INPUT, value):
            return
        whole = recorder.site(self._path, "input")
        recorder.swap(self._path, "input", recorder.add(ops.WITH_FIRST_INPUT, (whole, value)))

    @property
    def source(self) -> Source:
        """The calls made inside this module's forward, by name, each with an `input` and `output` of its own.

        Print it to see the module's source with the names beside its lines. Raises `SourceError` for a forward that
        has no Python source.

        Example:
            >>> import workbench as wb
            >>> model = wb.demo("llama")
            >>> with model.trace("The Eiffel Tower"):
            ...     gate = model.model.layers[0].mlp.source.act_fn.output.save()
            >>> gate.shape[:2]
            torch.Size([1, 3])
        """
        return Source(self)

    def skip(self, value: Any) -> None:
        """Leave this module out of the pass: it gives `value` at once, and nothing inside it is run.

        Args:
            value: of the module's output's shape; it may be computed from what comes before the module, as its input.
        """
        self._recorder("skip(...)").skip(self._path, value)

    def all(self) -> AbstractContextManager[Any]:
        """A block that is run in every step of a generation, as `tracer.all()`; it gives the step's number."""
        return self._recorder("all()").in_steps(0, None, 1)

    def next(self, calls: int = 1) -> Self:
        """Move on to a later call: a module that runs several times in one forward pass has a site for each.

        In a generation, move on to a later step: 0 reads the whole prompt, each later one a new token.

        Example:
            >>> import torch, workbench as wb
            >>> twice = torch.nn.Linear(2, 2)
            >>> model = wb.NNsight(torch.nn.Sequential(twice, twice))
            >>> with model.trace(torch.ones(1, 2)):
            ...     first = model[0].output.save()
            ...     second = model[0].next().output.save()
            >>> torch.equal(twice(first.value), second.value)
            True
        """
        self._recorder("next()").next_call(self._path, calls)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        elif isinstance(value, nn.Module):
            self._attach(name, value)
        else:
            raise AttributeError(
                f"{self._path or 'model'}.{name} cannot be assigned; inside a trace assign .output, .input or .inputs, "
                "and a torch.nn.Module to attach it"
            )

    def _attach(self, name: str, module: nn.Module) -> None:
        """Add a module of the user's to the model; nothing calls it but what a trace writes."""
        if name in self._module._modules or hasattr(self._module, name) or hasattr(type(self), name):
            raise InputError(f"{self._path or 'model'} already has a {name!r}; attach the module under another name")
        self._module.add_module(name, module)
        root = self._root.__dict__
        root["_attached"].append(module)
        root["_by_module"].pop(module, None)
        envoy = Envoy(module, f"{self._path}.{name}" if self._path else name, self._root)
        self._children[name] = envoy
        self.__dict__[name] = envoy

    def __call__(self, *args: Any, hook: bool = False, **kwargs: Any) -> Any:
        """Run this module on values of the trace, outside its place in the model: `lm_head(ln_f(hidden))`.

        Args:
            args: for the module's forward, as are `kwargs`.
            hook: let this call count as one of the module's: its `input`, `output` and inside can then be read.
        """
        recorder = require(f"calling {self._path or 'the model'}")
        return recorder.add(ops.HOOKED if hook else ops.MODULE, (self._root_in(recorder), self._path, *args), kwargs)

    def _root_in(self, recorder: Recorder) -> Any:
        """This model as the first argument of a call: None in a pass of its own."""
        root = recorder.root
        return None if isinstance(root, Envoy) and root._root is self._root else self._root


def expression(name: str, path: str) -> str:
    """The Python that reaches a path: `expression("model", "h.2.mlp") == "model.h[2].mlp"`."""
    for part in path.split(".") if path else ():
        if part.isdigit():
            name += f"[{part}]"
        elif part.isidentifier() and not iskeyword(part) and not _taken(part):
            name += f".{part}"
        else:
            name += f"[{part!r}]"
    return name


def _taken(name: str, kind: type = Envoy) -> bool:
    """Whether a kind of model has an attribute of this name, so that a module of that name is reached by index."""
    return hasattr(kind, name) or any(_taken(name, each) for each in kind.__subclasses__())


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile made one function of all that is below this module."""
    return type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None


def _no_module(path: str, known: list[str]) -> str:
    near = get_close_matches(path, known, 3, 0.5)
    return f"no module at {path!r}" + (f"; near: {', '.join(near)}" if near else "")


class ModulePaths(Mapping[str, nn.Module]):
    """Each path's module, looked up when it is asked for."""

    def __init__(self, root: Envoy) -> None:
        self._envoys: dict[str, Envoy] = root.__dict__["_by_path"]

    def __getitem__(self, path: str) -> nn.Module:
        return self._envoys[path]._module

    def __iter__(self) -> Iterator[str]:
        return iter(self._envoys)

    def __len__(self) -> int:
        return len(self._envoys)


__all__ = ["Envoy", "ModulePaths", "Proxy", "expression"]
