"""Naming: the same words for the parts of every language model, beside the model's own names.

`model.layers[i].attn.heads` is the same thing in every family. These are views: nothing of the model is renamed, what a
view does not know itself it asks the module's own Envoy, and a model's own name always wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from workbench.engine.values import first_tensor, shape_text
from workbench.envoy import Envoy
from workbench.errors import InputError, PathError
from workbench.graph.operations import Operation, register
from workbench.models.attention import PATTERN, can_be_eager, eager


class Family(NamedTuple):
    """Where one architecture has what; paths in a layer begin at the layer, "" is what it does not have.

    `out` is the projection that puts the heads together and `down` the one that reads the neurons. `qkv` are the three
    projections, or a single one that makes all three: then `fused` says how they lie in its output: one behind the
    other ("blocks"), or head by head ("heads"). `pattern` is the module whose forward computes the attention.
    """

    layers: str
    embed: str
    final_norm: str
    unembed: str
    attn: str
    mlp: str
    out: str
    down: str
    qkv: tuple[str, ...] = ()
    fused: str = ""
    pattern: str = ""


_TABLE = """
gpt2        transformer.h wte ln_f lm_head                    attn mlp c_proj c_proj c_attn blocks
gpt_neox    gpt_neox.layers embed_in final_layer_norm lm_head attention mlp dense dense_4h_to_h query_key_value heads
opt         model.decoder.layers embed_tokens final_layer_norm lm_head self_attn - out_proj fc2 q_proj,k_proj,v_proj
llama       model.layers embed_tokens norm lm_head            self_attn mlp o_proj down_proj q_proj,k_proj,v_proj
mistral     model.layers embed_tokens norm lm_head            self_attn mlp o_proj down_proj q_proj,k_proj,v_proj
qwen2       model.layers embed_tokens norm lm_head            self_attn mlp o_proj down_proj q_proj,k_proj,v_proj
qwen3       model.layers embed_tokens norm lm_head            self_attn mlp o_proj down_proj q_proj,k_proj,v_proj
gemma       model.layers embed_tokens norm lm_head            self_attn mlp o_proj down_proj q_proj,k_proj,v_proj
gemma2      model.layers embed_tokens norm lm_head            self_attn mlp o_proj down_proj q_proj,k_proj,v_proj
gemma3_text model.layers embed_tokens norm lm_head            self_attn mlp o_proj down_proj q_proj,k_proj,v_proj
phi         model.layers embed_tokens final_layernorm lm_head self_attn mlp dense fc2 q_proj,k_proj,v_proj
phi3        model.layers embed_tokens norm lm_head            self_attn mlp o_proj down_proj qkv_proj blocks
mixtral     model.layers embed_tokens norm lm_head            self_attn mlp o_proj - q_proj,k_proj,v_proj
mamba       backbone.layers embeddings norm_f lm_head
bert        bert.encoder.layer ^embeddings - cls.predictions.decoder attention - output.dense output.dense q,k,v
t5          decoder.block ^shared final_layer_norm lm_head    layer.0.SelfAttention layer.2.DenseReluDense o wo q,k,v
llava       model.language_model.layers embed_tokens norm lm_head self_attn mlp o_proj down_proj q_proj,k_proj,v_proj
vit         vit.layers embeddings layernorm classifier        attention mlp o_proj fc2 q_proj,k_proj,v_proj
"""
"""One line a family, by `config.model_type`: layers; beside them embedding (`^`: one floor up) and final norm;
unembedding; in a layer attention and MLP; in the attention its output projection, in the MLP its last one; queries,
keys and values in the attention, and how they are fused."""


def _read(line: str) -> tuple[str, Family]:
    kind, layers, embed, norm, unembed, *inner = ["" if word == "-" else word for word in line.split()]
    attn, mlp, out, down, qkv, fused = [*inner, *[""] * 6][:6]
    body = layers.rpartition(".")[0]
    embed = _under(body.rpartition(".")[0], embed[1:]) if embed.startswith("^") else _under(body, embed)
    projections = tuple(_under(attn, each) for each in qkv.split(",")) if qkv else ()
    family = Family(
        layers, embed, _under(body, norm), unembed, attn, mlp, _under(attn, out), _under(mlp, down), projections, fused
    )
    return kind, family


def _under(parent: str, path: str) -> str:
    return f"{parent}.{path}" if parent and path else path


FAMILIES: dict[str, Family] = dict(_read(line) for line in _TABLE.split("\n") if line)
_BERT = FAMILIES["bert"]
FAMILIES["bert"] = _BERT._replace(  # where queries are made and used stands a floor below what is called attention
    qkv=tuple(f"attention.self.{each}" for each in ("query", "key", "value")), pattern="attention.self"
)

STANDARD = ("layers", "embed", "final_norm", "unembed", "names")
_OUTSIDE = Family._fields[:4]


@dataclass(frozen=True)
class Names:
    """Which of a model's own names the standard ones stand for, and how that is known."""

    family: Family
    how: str

    def __repr__(self) -> str:
        lines = [f"standard names, {self.how}"]
        for name, path in zip(self.family._fields, self.family, strict=True):
            if path and name != "fused":
                inner = name in ("attn", "mlp", "out", "down", "qkv", "pattern")
                places = path if isinstance(path, tuple) else (path,)
                lines.append(f"  {name:<11} {', '.join(('layers[i].' if inner else '') + each for each in places)}")
        return "\n".join(lines)


def base_of(module: nn.Module) -> tuple[str, nn.Module]:
    """The model inside what peft puts around it, with its path; of any other model itself."""
    inside = getattr(module, "get_base_model", None)
    base = inside() if callable(inside) else module
    if not isinstance(base, nn.Module):
        return "", module
    return next((path, base) for path, each in module.named_modules() if each is base)


def names_of(module: nn.Module) -> Names:
    """The names of a model's architecture: from the table, else guessed by its structure.

    Raises:
        InputError: no stack of layers can be found.
    """
    around, base = base_of(module)
    kind = str(getattr(getattr(base, "config", None), "model_type", ""))
    family = FAMILIES.get(kind)
    why = f"{kind or type(base).__name__} is not in the table"
    if family is not None:
        family = family._replace(**{name: _under(around, getattr(family, name)) for name in _OUTSIDE})
        try:
            for path in family[:4]:
                module.get_submodule(path)
            return Names(family, f"from the table for {kind!r}")
        except AttributeError:  # another head than the table's, such as a classifier's
            why = f"a {type(base).__name__} has not all that the table says of {kind!r}"
    return Names(guessed(module), f"guessed by structure: {why}")


def guessed(module: nn.Module) -> Family:
    """A family by structure: the longest list of layers of one class, and what is named as is usual in it."""
    stacks = [(p, m) for p, m in module.named_modules() if isinstance(m, nn.ModuleList) and len({*map(type, m)}) == 1]
    if not stacks:
        raise InputError(
            f"{type(module).__name__} has no list of layers, so standard names mean nothing here; use its own names"
        )
    layers, stack = max(stacks, key=lambda pair: (len(pair[1]), -pair[0].count(".")))
    layer = stack[0]
    above = layers.rpartition(".")[0]
    body = module.get_submodule(above)
    prefix = f"{above}." if above else ""
    norms = [name for name, child in body.named_children() if _named(name, child, ("norm", "ln"))]
    attn = _child(layer, ("attn", "attention"))
    mlp = _child(layer, ("mlp", "feed_forward", "ffn", "ff"))
    return Family(
        layers,
        next((f"{prefix}{name}" for name, child in body.named_children() if isinstance(child, nn.Embedding)), ""),
        f"{prefix}{norms[-1]}" if norms else "",
        next((name for name, child in reversed([*module.named_children()]) if isinstance(child, nn.Linear)), ""),
        attn,
        mlp,
        _last_linear(layer, attn),
        _last_linear(layer, mlp),
        _projections(layer, attn),
    )


def _named(name: str, child: nn.Module, words: tuple[str, ...]) -> bool:
    return any(word in f"{name} {type(child).__name__}".lower() for word in words)


def _child(layer: nn.Module, words: tuple[str, ...]) -> str:
    found = [name for name, child in layer.named_children() if _named(name, child, words) and [*child.children()]]
    return found[0] if found else ""


def _last_linear(layer: nn.Module, path: str) -> str:
    children = layer.get_submodule(path).named_modules() if path else ()
    inside = [name for name, child in children if _linear(child) and ".base_layer" not in name and "lora_" not in name]
    return f"{path}.{inside[-1]}" if inside else ""


def _projections(layer: nn.Module, attn: str) -> tuple[str, ...]:
    inside = dict(layer.get_submodule(attn).named_children()) if attn else {}
    for names in (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v")):
        if inside.keys() >= {*names}:
            return tuple(f"{attn}.{name}" for name in names)
    return ()


def _linear(module: nn.Module) -> bool:
    module = getattr(module, "base_layer", module)
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


# ---- views


class View:
    """A module under its standard name. What is not named here is the module's own: `.output`, `.source`, children."""

    _own: frozenset[str] = frozenset()

    def __init__(self, envoy: Envoy, family: Family, config: Any) -> None:
        self.__dict__.update(_envoy=envoy, _family=family, _config=config)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_envoy"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            setattr(self._envoy, name, value)

    def __getitem__(self, index: Any) -> Any:
        return self._envoy[index]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._envoy(*args, **kwargs)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *dir(self._envoy)})

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self._envoy.path}>"

    def _at(self, path: str, what: str) -> Envoy:
        if not path:
            raise InputError(f"{self._layer.path} ({type(self._layer.module).__name__}) has no {what}")
        return self._layer.find(path)

    @property
    def _layer(self) -> Envoy:
        return self._envoy


class Layer(View):
    """One block of a model: `attn`, `mlp`, and the residual stream before and after it."""

    @property
    def attn(self) -> Attention:
        """The attention module."""
        return Attention(self._at(self._family.attn, "attention"), self._family, self._config, self._envoy)

    @property
    def mlp(self) -> MLP:
        """The feed-forward module."""
        if not self._family.mlp and self._family.down:
            return MLP(self._envoy, self._family, self._config, self._envoy)
        return MLP(self._at(self._family.mlp, "feed-forward module"), self._family, self._config, self._envoy)

    @property
    def resid_pre(self) -> Any:
        """The residual stream before the block, `(batch, position, d_model)`."""
        return self._envoy.input

    @resid_pre.setter
    def resid_pre(self, value: Any) -> None:
        self._envoy.input = value

    @property
    def resid_post(self) -> Any:
        """The residual stream after the block, `(batch, position, d_model)`, whatever else the block returns."""
        envoy = self._envoy
        return envoy._recorder("resid_post").part(envoy.path, "output", FIRST)

    @resid_post.setter
    def resid_post(self, value: Any) -> None:
        envoy = self._envoy
        recorder = envoy._recorder("resid_post")
        if not recorder.is_part(envoy.path, "output", FIRST, value):
            envoy.output = recorder.add(WITH_FIRST, (envoy.output, value))


class Part(View):
    """A part of a layer."""

    def __init__(self, envoy: Envoy, family: Family, config: Any, layer: Envoy) -> None:
        super().__init__(envoy, family, config)
        self.__dict__["_whole"] = layer

    @property
    def _layer(self) -> Envoy:
        return self.__dict__["_whole"]


class Attention(Part):
    """Attention, head by head. Heads count from 0; with grouped queries there are fewer keys and values than queries,
    and query head `i` reads key and value head `i // (n_heads // n_kv_heads)`."""

    @property
    def n_heads(self) -> int:
        """How many heads."""
        return int(_setting(self._config, "num_attention_heads", "num_heads", "n_head"))

    @property
    def n_kv_heads(self) -> int:
        """How many heads of keys and values."""
        return int(_setting(self._config, "num_key_value_heads", default=None) or self.n_heads)

    @property
    def d_head(self) -> int:
        """Features of one head."""
        projection: Any = self._at(self._family.out, "output projection").module
        projection = getattr(projection, "base_layer", projection)  # inside what peft puts around it
        width = getattr(projection, "in_features", None)  # quantised weights have another shape
        if width is None:
            width = projection.weight.shape[0 if type(projection).__name__ == "Conv1D" else 1]
        return int(width) // self.n_heads

    @property
    def heads(self) -> Any:
        """What each head gives, before the output projection puts them together: `(batch, position, head, d_head)`."""
        return self._at(self._family.out, "output projection").input.unflatten(-1, (self.n_heads, self.d_head))

    @heads.setter
    def heads(self, value: Any) -> None:
        self.heads[:] = value

    @property
    def query(self) -> Any:
        """Each head's queries, `(batch, position, head, d_head)`, before any rotation or norm of them."""
        return self._projected(0)

    @query.setter
    def query(self, value: Any) -> None:
        self._projected(0)[:] = value

    @property
    def key(self) -> Any:
        """Keys, `(batch, position, kv_head, d_head)`, before any rotation or norm of them."""
        return self._projected(1)

    @key.setter
    def key(self, value: Any) -> None:
        self._projected(1)[:] = value

    @property
    def value(self) -> Any:
        """Values, `(batch, position, kv_head, d_head)`."""
        return self._projected(2)

    @value.setter
    def value(self, value: Any) -> None:
        self._projected(2)[:] = value

    @property
    def pattern(self) -> Any:
        """How much each position attends to each, `(batch, head, query, key)`; rows sum to 1.

        A pass that looks at it is run with eager attention, which makes it; other passes are not.

        Raises:
            InputError: the model never makes the pattern, and cannot be told to for one pass.
        """
        return self._pattern.output

    @pattern.setter
    def pattern(self, value: Any) -> None:
        self._pattern.output = value

    @property
    def _pattern(self) -> Any:
        root = self._envoy._root.module
        used = getattr(self._config, "_attn_implementation", None)
        if used not in ("eager", None) and not can_be_eager(root):
            raise InputError(
                f"attention patterns are never made by {used!r} attention, and a {type(root).__name__} chooses it when "
                'it is made: open the model with attn_implementation="eager"'
            )
        envoy = self._layer.find(self._family.pattern) if self._family.pattern else self._envoy
        with eager(root):
            found: Any = envoy.source
            *around, last = PATTERN.split(".")
            for name in around:
                found = getattr(found, name).source
            return getattr(found, last)

    def _projected(self, which: int) -> Any:
        paths, fused = self._family.qkv, self._family.fused
        if not paths:
            raise PathError(
                f"{self._envoy.path}: where this architecture makes its queries, keys and values is not known"
            )
        heads, shared, size = self.n_heads, self.n_kv_heads, self.d_head
        if not fused:
            return self._at(paths[which], "projection").output.unflatten(-1, (shared if which else heads, size))
        whole = self._at(paths[0], "projection").output
        if fused == "heads":  # each head's query, key and value behind one another
            return whole.unflatten(-1, (heads, 3 * size))[..., which * size : (which + 1) * size]
        widths = [heads * size, shared * size, shared * size]
        start = sum(widths[:which])
        return whole[..., start : start + widths[which]].unflatten(-1, (widths[which] // size, size))


class MLP(Part):
    """The feed-forward part of a layer."""

    @property
    def neurons(self) -> Any:
        """Each neuron's activation, `(batch, position, neuron)`: what the last projection reads."""
        return self._at(self._family.down, "one set of neurons: its experts have their own").input

    @neurons.setter
    def neurons(self, value: Any) -> None:
        self._at(self._family.down, "one set of neurons: its experts have their own").input = value


class Layers:
    """A model's blocks, by number."""

    def __init__(self, envoy: Envoy, family: Family, config: Any) -> None:
        self._layers = [Layer(each, family, config) for each in envoy]
        self._path = envoy.path

    def __getitem__(self, index: int | slice) -> Any:
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    def __repr__(self) -> str:
        return f"<{len(self)} layers: {self._path}>"


def standard(root: Envoy, name: str) -> Any:
    """What a standard name means in a model: `layers`, `embed`, `final_norm`, `unembed`, `names`."""
    module = root.module
    names = names_of(module)
    if name == "names":
        return names
    path = getattr(names.family, name)
    if not path:
        raise PathError(f"{type(module).__name__} has no {name}")
    envoy = root.find(path)
    config: Any = getattr(module, "config", None)
    if hasattr(config, "get_text_config"):  # of a model that sees, the part that reads
        config = config.get_text_config()
    return Layers(envoy, names.family, config) if name == "layers" else envoy


def _setting(config: Any, *names: str, default: Any = ...) -> Any:
    for name in names:
        found = getattr(config, name, None)
        if found is not None:
            return found
    if default is ...:
        raise InputError(f"this model's configuration does not say {names[0]}")
    return default


# ---- the first tensor of what a module returns


def _first(value: Any) -> Tensor:
    found = first_tensor(value)
    if found is None:
        raise ValueError(f"there is no tensor here to change, only {shape_text(value)}; choose another module")
    return found


def _with_first(value: Any, new: Any) -> Any:
    if isinstance(value, Tensor):
        return new
    if type(value) in (tuple, list) and value and isinstance(value[0], Tensor):
        return type(value)([new, *value[1:]])
    raise ValueError(f"the first tensor of {shape_text(value)} cannot be replaced; assign .output")


FIRST = register(Operation("first_tensor", _first, views=True))
WITH_FIRST = register(Operation("with_first_tensor", _with_first))
