"""Proxy: a value that does not exist yet. What is done to it is recorded; after the run it stands for its value."""

from __future__ import annotations

import copy
import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from workbench.errors import DeferredError, NotSetError
from workbench.graph import operations as ops
from workbench.graph.node import Ref, call_text
from workbench.graph.source import location, text
from workbench.recorder import CURRENT, Pending, Recorder, _set_recorder, _set_ref

_MISSING = object()

NO_BRANCH = (
    "a traced value has no truth value before the run; use tracer.cond(value), or save it and branch after the trace"
)
NO_ITERATION = (
    "a traced value cannot be iterated before the run; index it (x[0], x[1]), loop with session.iter(x), "
    "or hand it to a function with workbench.apply(fn, x)"
)
NO_NUMBER = (
    "a traced value is not a number before the run; hand it to a function with workbench.apply(fn, x), "
    "or save it and convert it after the trace"
)
NO_ARRAY = (
    "a traced value cannot become a numpy array before the run; use torch functions on it, "
    "workbench.apply(fn, x) for numpy code, or save it and convert it after the trace"
)
NO_CONTAINS = (
    "`in` needs the values, which exist only in the run; use (x == value).any(), or save it and look after the trace"
)
# What the scan can answer while the trace is still being written.
SHAPE_ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "layout", "itemsize", "nbytes"})
SHAPE_METHODS = frozenset({"size", "dim", "numel", "nelement", "element_size", "is_floating_point", "is_complex"})


class Proxy(Pending):
    """A value of a trace. Inside the trace it records; after the run a saved one behaves as its value.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Linear(2, 3))
        >>> with model.trace(torch.ones(1, 2)):
        ...     doubled = (model.output * 2).save()
        >>> doubled.shape
        torch.Size([1, 3])
    """

    __slots__ = ()
    __array_ufunc__ = None  # numpy operators give way to ours

    _recorder: Recorder
    _ref: Ref
    _value: Any

    # ---- the value

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """After the run, what the value is: libraries that ask `isinstance(x, dict)` then take it as one.

        Of a tensor this is told only to Python that is known to do no more than ask: torch's C++ would believe it too,
        and read the memory of a tensor where there is none.
        """
        value = self._value
        if value is _MISSING:
            return type(self)
        if isinstance(value, _IN_C) and sys._getframe(1).f_globals.get("__name__") not in _ASKING:
            return type(self)
        return type(value)

    @property
    def value(self) -> Any:
        """The value, after the run. Raises `NotSetError` (a `ValueError`) that says why there is none."""
        if self._value is _MISSING:
            raise NotSetError(f"Accessing value before it's been set. {self._why()}")
        return self._value

    def save(self) -> Proxy:
        """Keep the value after the run, for as long as this name lives."""
        recorder = self._recorder
        if not recorder.finished:
            recorder.save(self._node_id(), self)
        elif self._value is _MISSING:
            raise NotSetError(f"Accessing value before it's been set. {self._why()}")
        return self

    def stop(self) -> None:
        """End the forward pass as soon as this value exists; what comes later is never computed."""
        self._record(ops.STOP, (self,))

    @property
    def grad(self) -> Any:
        """The gradient of this value, same shape, in the next `.backward()` written, else in the last one before.

        It can be read, edited in place and assigned; what was computed before this value gets the edited gradient.
        """
        if not self._recording():
            return self.value.grad
        return self._recorder.grad(self)

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients that the trace asks for, as `torch.Tensor.backward` does for a whole model.

        Parameters of the model keep their `.grad` as it is, unless nothing was asked for; those that were made in the
        trace, attached or passed in have theirs summed up.
        """
        if self._recording():
            self._recorder.backward(self, args, kwargs)
        else:
            self.value.backward(*args, **kwargs)

    def _set_value(self, value: Any) -> None:
        _set(self, "_value", value)

    def _why(self) -> str:
        recorder = self._recorder
        id = self._node_id()
        node = recorder.nodes[id]
        what = f"{call_text(node)} ({text(node.line)})"
        if not recorder.finished:
            return f"{what}: {recorder.reason(id)}"
        if id not in recorder.saved:
            return f"{what} was not saved: write .save() behind it inside the trace"
        return f"{what}: {recorder.reason(id)}"

    # ---- recording

    def _node_id(self) -> int:
        return self._ref.id

    def _ref_in(self, recorder: Recorder) -> Any:
        """This proxy as an argument there: a reference in its own trace, its value anywhere else."""
        if self._recorder is recorder:
            return self._ref
        return self.value

    def _record(self, op: ops.Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        recorder = CURRENT.get()
        if recorder is not None:
            return recorder.add(op, args, kwargs)
        return op.fn(*values_of(args), **values_of(kwargs or {}))

    def _recording(self) -> bool:
        return not self._recorder.finished

    def __getattr__(self, name: str) -> Any:
        if name[0] == "_":
            if name == "_value":  # the slot is empty until there is one
                return _MISSING
            raise AttributeError(f"a traced value has no attribute {name!r}; private attributes are never recorded")
        recorder = self._recorder
        if recorder.finished:
            return getattr(self.value, name)
        if name in SHAPE_ATTRIBUTES:
            return getattr(self._fake(f".{name}"), name)
        made = _new(Attribute)
        _set_recorder(made, recorder)
        _set_ref(made, None)
        _set_owner(made, self)
        _set_name(made, name)
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_is_param":  # how torch marks what nn.Parameter(...) makes of something that is no tensor
            made = self._record(ops.PARAMETER, (self,))
            _set(self, "_ref", made._ref)
        elif not self._recording():
            setattr(self.value, name, value_of(value))
        elif name == "grad":
            self._recorder.swap_grad(self, value)
        else:
            self._record(ops.SETATTR, (self, name, value))

    def __getitem__(self, index: Any) -> Any:
        recorder = CURRENT.get()
        if recorder is not None:
            return recorder.add(ops.GETITEM, (self, index))
        return self.value[values_of(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._record(ops.SETITEM, (self, index, value))

    def __delitem__(self, index: Any) -> None:
        self._record(ops.DELITEM, (self, index))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._record(ops.CALL, (self, *args), kwargs)

    @classmethod
    def __torch_function__(
        cls, fn: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        recorder = CURRENT.get()
        if recorder is not None:
            return recorder.add(ops.of(fn), args, kwargs)
        return fn(*values_of(args), **values_of(kwargs or {}))

    # ---- what only a value can answer

    def _fake(self, what: str) -> Any:
        """What the scan says this value will look like."""
        fake = self._recorder.fake
        if fake is None:
            raise DeferredError(f"{what} is known only in the run here; save the value and ask after the trace")
        return fake(self._node_id())

    def _answer(self, ask: Callable[[Any], Any], why_not: str) -> Any:
        if self._recording():
            line = location(self._recorder.nodes[self._node_id()].line)
            raise DeferredError(f"{why_not} [{line.text}]").at(line)
        return ask(self.value)

    def __bool__(self) -> bool:
        return self._answer(bool, NO_BRANCH)

    def __len__(self) -> int:
        value = self._fake("len()") if self._recording() else self.value
        if isinstance(value, torch.Tensor) and not value.ndim:
            raise TypeError("len() of a 0-d tensor; where a list of saved values is converted, give x.value of each")
        return len(value)

    def __iter__(self) -> Iterator[Any]:
        if self._recording() and self._recorder.fake is not None:
            fake = self._fake("iteration")
            if isinstance(fake, (tuple, list)):  # `a, b = block.output`
                return iter([self[index] for index in range(len(fake))])
        return self._answer(iter, NO_ITERATION)

    def __contains__(self, item: Any) -> bool:
        return self._answer(lambda value: item in value, NO_CONTAINS)

    def __index__(self) -> int:
        return self._answer(operator.index, NO_NUMBER)

    def __int__(self) -> int:
        return self._answer(int, NO_NUMBER)

    def __float__(self) -> float:
        return self._answer(float, NO_NUMBER)

    def __complex__(self) -> complex:
        return self._answer(complex, NO_NUMBER)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        def as_array(value: Any) -> Any:
            return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=dtype)

        return self._answer(as_array, NO_ARRAY)

    def __dlpack__(self, **options: Any) -> Any:
        """The memory of a tensor: how `torch.as_tensor` and `torch.tensor` read what is not one itself."""
        return self._answer(lambda value: value.detach().__dlpack__(**options), NO_ARRAY)

    def __dlpack_device__(self) -> Any:
        return self._answer(lambda value: value.__dlpack_device__(), NO_ARRAY)

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        return self._answer(lambda value: func(*values_of(args), **values_of(kwargs)), NO_ARRAY)

    def __format__(self, spec: str) -> str:
        return repr(self) if self._recording() else format(self.value, spec)

    def __str__(self) -> str:
        return repr(self) if self._recording() else str(self.value)

    def __repr__(self) -> str:
        if self._value is not _MISSING:
            return repr(self._value)
        if not self._recording():
            return f"<no value: {self._why()}>"
        return f"<traced {call_text(self._recorder.nodes[self._node_id()])}>"

    def __hash__(self) -> int:
        return id(self)

    def __dir__(self) -> list[str]:
        own = ["save", "stop", "value"]
        return own if self._recording() or self._value is _MISSING else [*own, *dir(self._value)]

    def __copy__(self) -> Any:
        return copy.copy(self.value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.value, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled as its value."""
        value = self.value
        return value.__reduce_ex__(protocol) if isinstance(value, torch.Tensor) else (_identity, (value,))


_set = object.__setattr__
_IN_C = (torch.Tensor, torch.UntypedStorage, torch.TypedStorage, torch.Generator, torch.Size)
_ASKING = frozenset({"torch.testing._comparison", "transformers.utils.generic"})


def _identity(value: Any) -> Any:
    return value


class Attribute(Proxy):
    """`x.name` inside a trace: a node only if it is used as a value, so that `x.sum()` is one node, not two."""

    __slots__ = ("_name", "_owner")

    def _settle(self) -> Ref:
        if self._ref is None:
            if not self._recording():
                raise NotSetError(
                    f"Accessing value before it's been set. .{self._name} was never used inside its trace"
                )
            _set(self, "_ref", self._recorder.always(ops.GETATTR, (self._owner, self._name))._ref)
        return self._ref

    def _node_id(self) -> int:
        return self._settle().id

    def _ref_in(self, recorder: Recorder) -> Any:
        return self._settle() if self._recorder is recorder else self.value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        owner, name = self._owner, self._name
        if self._recorder.finished:
            return getattr(owner.value, name)(*args, **kwargs)
        if name in SHAPE_METHODS:
            return getattr(owner._fake(f".{name}()"), name)(*args, **kwargs)
        recorder = CURRENT.get()
        if recorder is not None:
            return recorder.add(ops.method(name), (owner, name, *args), kwargs)
        return getattr(owner.value, name)(*values_of(args), **values_of(kwargs))


_new = object.__new__
_set_owner = Attribute._owner.__set__
_set_name = Attribute._name.__set__


def value_of(value: Any) -> Any:
    """The value of a finished proxy; anything else as it is."""
    return value.value if isinstance(value, Proxy) else value


def settled(value: Any) -> Any:
    """The value of a proxy of an earlier trace; a value that is still to come, and anything else, as it is."""
    return value.value if issubclass(type(value), Proxy) and not value._recording() else value


def values_of(container: Any) -> Any:
    """A container of arguments with every finished proxy replaced by its value."""
    kind = type(container)
    if issubclass(kind, Proxy):
        return container.value
    if kind is tuple or kind is list:
        return kind([values_of(item) for item in container])
    if kind is dict:
        return {name: values_of(item) for name, item in container.items()}
    if kind is slice:
        return slice(values_of(container.start), values_of(container.stop), values_of(container.step))
    return container


def _install_operators() -> None:
    """One method an operator, both ways round, written from the table so that none is forgotten."""
    current = CURRENT.get

    def binary(op: ops.Operation) -> Callable[[Proxy, Any], Any]:
        def method(self: Proxy, other: Any) -> Any:
            recorder = current()
            if recorder is not None:
                return recorder.add(op, (self, other))
            return op.fn(value_of(self), value_of(other))

        return method

    def reflected(op: ops.Operation) -> Callable[[Proxy, Any], Any]:
        def method(self: Proxy, other: Any) -> Any:
            return self._record(op, (other, self))

        return method

    def unary(op: ops.Operation) -> Callable[[Proxy], Any]:
        def method(self: Proxy) -> Any:
            return self._record(op, (self,))

        return method

    for name in ops.BINARY:
        short = name.rstrip("_")
        setattr(Proxy, f"__{short}__", binary(ops.OPERATORS[name]))
        setattr(Proxy, f"__r{short}__", reflected(ops.OPERATORS[name]))
        setattr(Proxy, f"__i{short}__", binary(ops.OPERATORS[f"i{short}"]))
    for name in ops.COMPARE:
        setattr(Proxy, f"__{name}__", binary(ops.OPERATORS[name]))
    for name in ops.UNARY:
        setattr(Proxy, f"__{name}__", unary(ops.OPERATORS[name]))


_install_operators()
