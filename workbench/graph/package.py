"""Package: a request, and what came of it, each as one piece of bytes: a JSON head, and tensors as safetensors.

    "wbench1\\n" | length of the head, 8 bytes, little endian | head | safetensors        (all of it zstd, if smaller)

There is no pickle and no code in it. What is read is bounded before it is made: sizes, depth, names, references.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from workbench.errors import WireError
from workbench.graph import operations as ops
from workbench.graph.codecs import Codec, Reader, TooLarge, Writer, register
from workbench.graph.graph import Graph
from workbench.graph.limits import Limits, Refused, size_text
from workbench.graph.node import Argument
from workbench.graph.wire import from_wire, refusal, to_wire

VERSION = 1
MAGIC = b"wbench1\n"
_ZSTD = b"\x28\xb5\x2f\xfd"
_REQUEST, _OUTCOME = "workbench request", "workbench outcome"
_HEADER = 16 << 20
_ITEMS = 100_000


@dataclass(frozen=True)
class ModelName:
    """In the place of a model: the key by which a server knows it."""

    key: str


@dataclass(frozen=True)
class Request:
    """What is to be run.

    `models` are the keys of the models that occur, the one that is traced first; `inputs` the prepared input of each
    invoke, none for a session; `options` the further arguments of the forward or generation; `names` what the client
    calls the nodes it saves. `form` is the same for requests that differ in their tensors' values alone; `compressed`
    asks for an answer that is packed with zstd, as the request is.
    """

    graph: Graph
    bindings: Mapping[str, Any]
    models: tuple[str, ...]
    inputs: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    form: bytes = b""
    compressed: bool = False

    @property
    def kind(self) -> str:
        """ "trace", "generate" or "session"."""
        return self.graph.blocks[0].kind


@dataclass
class Outcome:
    """What came of a request: the saved nodes' values, why others have none, writes that did nothing: (site, why)."""

    values: dict[int, Any] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    idle: list[tuple[str, str, str]] = field(default_factory=list)


# ---- requests


def pack(request: Request) -> bytes:
    """A request as bytes, with zstd if it is to be compressed.

    Models among its bindings go by their `_key`, data loaders by what they give. Raises `WireError` for what cannot
    travel, naming the line and the cure.
    """
    bindings = _sendable(request)
    writer = Writer()
    graph, tensors = to_wire(request.graph, bindings, writer)
    head = {
        "models": list(request.models),
        "graph": graph,
        "inputs": [[writer.write(args), writer.write(kwargs)] for args, kwargs in request.inputs],
        "options": writer.write(request.options),
        "names": {str(id): name for id, name in request.names.items()},
    }
    if request.compressed:
        head["compressed"] = True
    return _packed(_REQUEST, head, {**tensors, **_inner(writer)}, request.compressed)


def unpack(data: bytes, limits: Limits | None = None) -> Request:
    """The request in these bytes. Raises `Refused`, with the sentence and the HTTP status, for what is not allowed."""
    return _unpacked(data, limits or Limits(), _tensors)


def look(data: bytes, limits: Limits | None = None) -> Request:
    """The request in these bytes, read and checked as by `unpack`, but for its tensors, in whose places is None.

    Raises:
        Refused: as `unpack`.
    """
    return _unpacked(data, limits or Limits(), _named)


def peek(data: bytes, limits: Limits | None = None) -> tuple[str, ...]:
    """The keys of the models that a request is for; it is looked at as by `look`."""
    return look(data, limits).models


def _unpacked(data: bytes, limits: Limits, tensors_of: Callable[[memoryview], Mapping[str, Any]]) -> Request:
    head, tail = _opened(data, _REQUEST, limits)
    try:
        tensors = tensors_of(tail)
        graph, bindings = from_wire(head["graph"], tensors, limits)
        reader = Reader(_of_inner(tensors))
        inputs = [_input(each, reader) for each in _list(head["inputs"])]
        options = reader.read(head["options"])
        if reader.refs or reader.arguments or type(options) is not dict:
            raise WireError("the inputs of a request are values, and its options a dict")
        if len(inputs) > limits.inputs:
            raise WireError(f"a pass may have {limits.inputs} invokes, not {len(inputs)}")
        models = tuple(_list(head["models"]))
        if not models or not all(isinstance(key, str) and 0 < len(key) <= 500 for key in models):
            raise WireError("a request names the models that it is for")
        names = {int(id): str(name)[:200] for id, name in head.get("names", {}).items()}
        packed = head.get("compressed", False) is True
        request = Request(graph, bindings, models, inputs, options, names, _form(tail), packed)
        _checked(request)
    except WireError as error:
        raise error if isinstance(error, Refused) else Refused(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise Refused(f"this is no request of a workbench: {type(error).__name__}: {error}") from error
    return request


def _form(tail: memoryview) -> bytes:
    """A hash of all but the values of tensors."""
    whole = memoryview(tail.obj)
    until = len(whole) - len(tail) + 8 + int.from_bytes(tail[:8], "little")
    return blake2b(whole[:until], digest_size=16).digest()


def _checked(request: Request) -> None:
    """What a request needs besides its graph."""
    if request.kind == "session" and (request.inputs or request.options):
        raise WireError("the inputs of a session stand in its graph")
    if request.kind != "session" and not request.inputs:
        raise WireError("a pass needs an input")
    for node in request.graph.nodes:
        if request.kind != "session" and node.invoke >= len(request.inputs):
            raise WireError(f"node {node.id} belongs to an invoke that there is not")
        if node.op in _ROOTED and type(node.args[at := node.op is ops.TRACE]) is Argument:
            model = request.bindings[node.args[at].name]
            if not isinstance(model, ModelName) or model.key not in request.models:
                raise WireError(f"node {node.id} is for a model that the request does not name")
        elif node.op is ops.TRACE:
            raise WireError(f"node {node.id} is a pass of no model")
        if node.op is ops.OPTIMIZER and not isinstance(request.bindings[node.args[0].name], type):
            raise WireError(f"node {node.id} makes no optimizer")
        if node.op is ops.TRACE:
            for ready, args, kwargs in node.args[2]:
                if type(ready) is not bool or type(args) is not tuple or type(kwargs) is not dict:
                    raise WireError(f"node {node.id} calls a model on what is no input")


_ROOTED = frozenset({ops.TRACE, ops.MODULE, ops.HOOKED, ops.WEIGHT})


def _input(data: Any, reader: Reader) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = map(reader.read, _list(data))
    if type(args) is not tuple or type(kwargs) is not dict:
        raise WireError("an input is a tuple of arguments and a dict of named ones")
    return args, kwargs


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise WireError("a list is missing")
    return value


def _sendable(request: Request) -> dict[str, Any]:
    """The bindings as they can travel."""
    bindings = dict(request.bindings)
    looped = {
        node.args[1].name: node
        for node in request.graph.nodes
        if node.op is ops.LOOP and type(node.args[1]) is Argument
    }
    for name, value in bindings.items():
        if hasattr(type(value), "_passing") or "_key" in getattr(value, "__dict__", {}):
            key = getattr(value, "_key", None)
            if not isinstance(key, str):
                raise WireError("this model was made here, so no server knows it; open it by its name on the hub")
            bindings[name] = ModelName(key)
        elif name in looped and not isinstance(value, (list, tuple, dict, range, Tensor)):
            bindings[name] = _read_out(value, looped[name])
    return bindings


def _read_out(items: Iterable[Any], node: Any) -> list[Any]:
    found: list[Any] = []
    for item in items:
        found.append(item)
        if len(found) > _ITEMS:
            cure = "Loop over fewer, or over a part of them in each of several jobs"
            raise refusal(node, f"a loop over more than {_ITEMS} items cannot travel", cure)
    return found


# ---- outcomes


def pack_outcome(
    outcome: Outcome, room: int | None = None, where: Callable[[int], str] = lambda id: "", compress: bool = False
) -> bytes:
    """What came of a request, as bytes.

    Args:
        outcome: the values, by node.
        room: how many bytes the values may have, by their logical size.
        where: names a node in messages.
        compress: with zstd.

    Raises:
        WireError: a value of a type that cannot travel.
        Refused: there is more than there is room for.
    """
    writer = Writer(room=room)
    values = {}
    for id, value in outcome.values.items():
        writer.refuse = lambda what, id=id: WireError(
            f"what was saved cannot be sent: {what}. Save its tensors, or what you need of them {where(id)}".rstrip()
        )
        try:
            values[str(id)] = writer.write(value)
        except TooLarge:
            raise Refused(
                f"what is saved has more than {size_text(room or 0)}, which is all that is allowed here: save less, as "
                f"the part of a value that you need {where(id)}".rstrip(),
                413,
            ) from None
    head = {
        "values": values,
        "reasons": {str(id): reason for id, reason in outcome.reasons.items()},
        "names": {str(id): name for id, name in outcome.names.items()},
        "idle": [list(each) for each in outcome.idle],
    }
    return _packed(_OUTCOME, head, _inner(writer), compress)


def unpack_outcome(data: bytes | bytearray) -> Outcome:
    """What came of a request. Raises `WireError` for bytes that are none."""
    big = replace(Limits(), body=1 << 62, unpacked=1 << 62, head=1 << 31)
    head, tail = _opened(data, _OUTCOME, big)
    reader = Reader(_of_inner(_tensors(tail)))
    return Outcome(
        {int(id): reader.read(value) for id, value in head["values"].items()},
        {int(id): reason for id, reason in head["reasons"].items()},
        {int(id): name for id, name in head["names"].items()},
        [(site, what, why) for site, what, why in head["idle"]],
    )


# ---- bytes


def _packed(schema: str, head: dict[str, Any], tensors: Mapping[str, Tensor], compress: bool) -> bytes:
    whole = {"schema": schema, "version": VERSION, "writer": _release(), **head}
    text = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()
    data = b"".join((MAGIC, len(text).to_bytes(8, "little"), text, _saved(tensors)))
    if compress:
        try:
            import zstandard
        except ImportError as error:
            raise WireError("to compress, zstandard is needed: pip install zstandard") from error

        smaller = zstandard.ZstdCompressor(level=3).compress(data)
        return smaller if len(smaller) < len(data) else data
    return data


def _opened(data: bytes | bytearray, schema: str, limits: Limits) -> tuple[dict[str, Any], memoryview]:
    """The head, and the tensors' bytes."""
    if len(data) > limits.body:
        raise Refused(f"this request has {size_text(len(data))}; {size_text(limits.body)} are allowed", 413)
    if data[:4] == _ZSTD:
        data = _decompressed(data, limits.unpacked)
    view = memoryview(data)
    if bytes(view[:8]) != MAGIC or len(view) < 16:
        raise Refused(f"this is no {schema}: its first bytes are not those of one", 400)
    length = int.from_bytes(view[8:16], "little")
    if length > limits.head or length > len(view) - 16:
        raise Refused("the head of this request is longer than it may be, or than the request", 400)
    head = read_json(bytes(view[16 : 16 + length]), limits.depth)
    if type(head) is not dict or head.get("schema") != schema:
        raise Refused(f"this is no {schema}", 400)
    version = head.get("version")
    if version != VERSION:
        theirs = f"this {schema} is of version {str(version)[:20]}, written by workbench {str(head.get('writer'))[:20]}"
        older = type(version) is int and version < VERSION
        where = "on your machine" if older == (schema == _REQUEST) else "on the server"
        raise Refused(
            f"{theirs}; workbench {_release()}, which reads it, knows version {VERSION}: update workbench {where} "
            "(pip install --upgrade workbench)",
            400,
        )
    return head, view[16 + length :]


def _decompressed(data: bytes | bytearray, most: int) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise Refused("this request is compressed, and the package zstandard is not here", 415) from error
    parts: list[bytes] = []
    size = 0
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as reader:
            while part := reader.read(1 << 20):
                size += len(part)
                if size > most:
                    raise Refused(f"this request has more than {size_text(most)} once it is unpacked", 413)
                parts.append(part)
    except zstandard.ZstdError as error:
        raise Refused(f"this request cannot be unpacked: {error}", 400) from error
    return b"".join(parts)


def read_json(text: bytes | str, depth: int = 64) -> Any:
    """Data from JSON, without duplicate keys, numbers that are none, or depth. Raises `Refused`."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            names = [name for name, _ in items]
            twice = next(name for name in names if names.count(name) > 1)
            raise Refused(f"the key {twice[:60]!r} stands twice in one object", 400)
        return made

    def constant(name: str) -> Any:
        raise Refused(f"{name} is no number of JSON", 400)

    def whole(digits: str) -> int:
        if len(digits) > 20:
            raise Refused(f"a whole number of {len(digits)} digits stands here", 400)
        return int(digits)

    try:
        found = json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_int=whole)
    except RecursionError:
        raise Refused(f"this JSON is nested deeper than {depth}", 400) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise error if isinstance(error, Refused) else Refused(f"this is no JSON: {error}", 400) from None
    _shallow(found, 4 * depth)
    return found


def _shallow(value: Any, depth: int) -> None:
    level = [value]
    for _ in range(depth):
        level = [
            item
            for each in level
            for item in (each.values() if type(each) is dict else each)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return
    raise Refused(f"this JSON is nested deeper than {depth}", 400)


def _inner(writer: Writer) -> dict[str, Tensor]:
    return {f"in/{name}": tensor for name, tensor in writer.tensors.items()}


def _of_inner(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("in/"): tensor for name, tensor in tensors.items() if name.startswith("in/")}


# ---- tensors


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():  # no two of them may have the same memory
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return save(apart)


def _tensors(tail: memoryview) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    _named(tail)
    try:
        return load(bytes(tail))
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise Refused(f"the tensors of this request cannot be read: {error}", 400) from error


@cache
def _widths() -> dict[str, int]:
    return {
        "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4,
        "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
    }  # fmt: skip


def _named(tail: memoryview) -> dict[str, Tensor | None]:
    """The names of the tensors, each with nothing; what is said of their sizes must be true."""
    length = int.from_bytes(tail[:8], "little") if len(tail) >= 8 else -1
    if not 0 <= length <= min(_HEADER, len(tail) - 8):
        raise Refused("the tensors' header is longer than what was sent", 400)
    header = read_json(bytes(tail[8 : 8 + length]), 8)
    if type(header) is not dict:
        raise Refused("the tensors have no header", 400)
    room, spans = len(tail) - 8 - length, []
    for name, each in header.items():
        if name == "__metadata__":
            continue
        try:
            shape, (begin, end) = each["shape"], each["data_offsets"]
            right = all(type(n) is int and n >= 0 for n in (*shape, begin, end)) and begin <= end <= room
            if not right or math.prod(shape) * _widths()[each["dtype"]] != end - begin:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise Refused(f"the header of the tensor {name[:60]!r} does not say what was sent", 400) from None
        spans.append((begin, end))
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise Refused("the tensors lie over each other, or have holes between them", 400)
        at = end
    if at != room:
        raise Refused("more bytes were sent than the tensors have", 400)
    return {name: None for name in header if name != "__metadata__"}


@cache
def _release() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("workbench")
    except PackageNotFoundError:
        return "of no release"


# ---- what else a graph is bound to

_OPTIMIZERS = frozenset(
    "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS Muon NAdam RAdam RMSprop Rprop SGD".split()
)


def _optimizer(kind: type, inner: Any) -> str:
    if kind.__name__ not in _OPTIMIZERS or vars(torch.optim).get(kind.__name__) is not kind:
        raise WireError(f"the type {kind.__name__} cannot travel; of types, only optimizers of torch.optim do")
    return kind.__name__


def _kind(name: Any, inner: Any) -> Any:
    if name not in _OPTIMIZERS or name not in vars(torch.optim):
        raise WireError(f"there is no optimizer {str(name)[:40]!r} here")
    return vars(torch.optim)[name]


register(Codec("optimizer", lambda kind: kind is type, _optimizer, _kind))
register(
    Codec("model", lambda kind: kind is ModelName, lambda name, inner: name.key, lambda key, inner: ModelName(str(key)))
)
