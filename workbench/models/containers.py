"""Containers: how a model's outputs and its caches of keys and values travel, and what may be read of them.

Nothing of transformers is imported here: a type is known by the names of the types it is made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from workbench.errors import WireError
from workbench.graph.allowed import open_kind
from workbench.graph.codecs import Codec, Inner, register

_OUTPUT = "transformers.utils.generic.ModelOutput"
_CACHE = "transformers.cache_utils.Cache"
_PLAIN = (bool, int, float, str, type(None))


def _is(kind: type, name: str) -> bool:
    return any(f"{each.__module__}.{each.__qualname__}" == name for each in kind.__mro__)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


# ---- outputs


def _write_output(value: Mapping[str, Any], inner: Inner) -> dict[str, Any]:
    return {"class": _name(type(value)), "fields": {name: inner(item) for name, item in value.items()}}


def _read_output(data: Any, inner: Inner) -> Any:
    from transformers.utils.generic import ModelOutput

    kinds = {_name(kind): kind for kind in _below(ModelOutput)}
    if data["class"] not in kinds:
        import transformers.generation.utils
        import transformers.modeling_outputs  # noqa: F401  (most outputs; a model's own come with the model)

        kinds = {_name(kind): kind for kind in _below(ModelOutput)}
    kind = kinds.get(data["class"])
    if kind is None:
        raise WireError(f"the type {str(data['class'])[:80]} is not known here; another transformers made it")
    if not all(isinstance(name, str) and name.isidentifier() for name in data["fields"]):
        raise WireError("the fields of a model's output have names")
    return kind(**{name: inner(item) for name, item in data["fields"].items()})


def _below(kind: type) -> list[type]:
    return [each for sub in kind.__subclasses__() for each in (sub, *_below(sub))]


# ---- caches

_CACHES = ("DynamicCache", "StaticCache", "EncoderDecoderCache")
_LAYERS = (
    "DynamicLayer", "DynamicSlidingWindowLayer", "StaticLayer", "StaticSlidingWindowLayer", "LinearAttentionLayer",
    "LinearAttentionAndFullAttentionLayer", "LinearAttentionAndSlidingWindowAttentionLayer", "DummyLayer",
)  # fmt: skip


def _kinds(names: tuple[str, ...]) -> dict[str, type]:
    from transformers import cache_utils

    return {name: vars(cache_utils)[name] for name in names if name in vars(cache_utils)}


def _write_cache(value: Any, inner: Inner) -> dict[str, Any]:
    kind = type(value).__name__
    if kind not in _CACHES:
        raise WireError(f"a {kind} cannot travel")
    if kind == "EncoderDecoderCache":
        both = (value.self_attention_cache, value.cross_attention_cache)
        return {"class": kind, "caches": [inner(each) for each in both], "updated": inner(dict(value.is_updated))}
    return {"class": kind, "layers": [_write_layer(layer, inner) for layer in value.layers]}


def _write_layer(layer: Any, inner: Inner) -> dict[str, Any]:
    kind = type(layer).__name__
    if kind not in _LAYERS:
        raise WireError(f"a {kind} cannot travel")
    kept = {name: item for name, item in vars(layer).items() if _travels(item)}
    return {"class": kind, "state": {name: inner(item) for name, item in kept.items()}}


def _travels(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_travels, value))
    if isinstance(value, dict):
        return all(map(_travels, value.values()))
    return isinstance(value, (Tensor, *_PLAIN)) or type(value).__module__ == "torch"


def _read_cache(data: Any, inner: Inner) -> Any:
    kinds = _kinds(_CACHES)
    kind = kinds.get(data["class"])
    if kind is None:
        raise WireError(f"there is no cache {str(data['class'])[:40]!r} here")
    if data["class"] == "EncoderDecoderCache":
        made: Any = kind(*map(inner, data["caches"]))
        made.is_updated = inner(data["updated"])
        return made
    made = kinds["DynamicCache"]()
    made.__class__ = kind
    made.layers = [_read_layer(each, inner) for each in data["layers"]]
    return made


def _read_layer(data: Any, inner: Inner) -> Any:
    kind = _kinds(_LAYERS).get(data["class"])
    if kind is None:
        raise WireError(f"there is no layer of a cache {str(data['class'])[:40]!r} here")
    layer: Any = object.__new__(kind)
    for name, item in data["state"].items():
        own = name in _STATE or not (name.startswith("_") or hasattr(kind, name))
        if not own or not name.isidentifier():
            raise WireError(f"a cache has no {name[:40]!r}")
        vars(layer)[name] = inner(item)
    return layer


_STATE = frozenset({"_sliding_window_tensor", "is_sliding", "is_croppable", "is_compileable"})


register(Codec("output", lambda kind: _is(kind, _OUTPUT), _write_output, _read_output))
register(Codec("cache", lambda kind: _is(kind, _CACHE), _write_cache, _read_cache))


def open_containers() -> None:
    """Let a run on a server read what caches hold. Called where transformers is loaded anyway."""
    from transformers import cache_utils

    open_kind(cache_utils.Cache, "layers", "get_seq_length")
    open_kind(cache_utils.EncoderDecoderCache, "self_attention_cache cross_attention_cache", "get_seq_length")
    open_kind(cache_utils.CacheLayerMixin, "keys values", "get_seq_length")
