"""Allowed: the operations that may stand in a file or a request, kept by hand, each looked up by name.

Nothing outside this table is reached, whatever a name says: no attribute of torch, no module, no function of Python's.
Left out of it on purpose: what opens files or devices, loads code, changes torch's settings, gives memory that was
another's (`empty`, `as_strided`, `resize_`, `set_`, `.data`), makes arrays of numpy, or writes where no version counter
sees it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from workbench.errors import WireError
from workbench.graph import operations as ops
from workbench.graph.node import Argument, Ref
from workbench.graph.operations import Operation
from workbench.site import Site

# ---- the names

# Elementwise, reductions, indexing, shapes: functions of `torch` that are methods of a tensor as well.
_BOTH = """
abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr adjoint all allclose amax amin aminmax angle any
arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort argwhere asin asinh atan atan2 atanh baddbmm
bernoulli bincount bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm
broadcast_to ceil cholesky cholesky_inverse cholesky_solve chunk clamp clamp_max clamp_min clip clone conj conj_physical
copysign corrcoef cos cosh count_nonzero cov cross cummax cummin cumprod cumsum deg2rad det detach diag diag_embed
diagflat diagonal diagonal_scatter diff digamma dist div divide dot dsplit eq equal erf erfc erfinv exp exp2 expm1 fix
flatten flip fliplr flipud float_power floor floor_divide fmax fmin fmod frac frexp gather gcd ge ger greater
greater_equal gt hardshrink heaviside histc hsplit hypot i0 igamma igammac index_add index_copy index_fill index_put
index_reduce index_select inner inverse is_complex is_conj is_floating_point is_nonzero is_same_size is_signed isclose
isfinite isinf isnan isneginf isposinf isreal kron kthvalue lcm ldexp le lerp less less_equal lgamma log log10 log1p
log2 log_softmax logaddexp logaddexp2 logcumsumexp logdet logical_and logical_not logical_or logical_xor logit logsumexp
lt masked_fill masked_scatter masked_select matmul matrix_exp matrix_power max maximum mean median min minimum mm mode
moveaxis movedim msort mul multinomial multiply mv mvlgamma nan_to_num nanmean nanmedian nanquantile nansum narrow
narrow_copy ne neg negative nextafter nonzero norm not_equal numel outer permute pinverse polygamma positive pow prelu
prod qr quantile rad2deg ravel real imag reciprocal relu remainder renorm repeat_interleave reshape resolve_conj
resolve_neg roll rot90 round rsqrt scatter scatter_add scatter_reduce select select_scatter sgn sigmoid sign signbit sin
sinc sinh slice_scatter slogdet softmax sort split split_with_sizes sqrt square squeeze std stft istft sub subtract sum
svd swapaxes swapdims t take take_along_dim tan tanh tensor_split tile topk trace transpose triangular_solve tril triu
true_divide trunc unbind unflatten unique unique_consecutive unsqueeze var vdot vsplit where xlogy
"""

_TORCH = """
alpha_dropout arange atleast_1d atleast_2d atleast_3d batch_norm bilinear binary_cross_entropy_with_logits binomial
block_diag broadcast_tensors bucketize cartesian_prod cat cdist celu chain_matmul channel_shuffle column_stack
combinations complex concat concatenate constant_pad_nd conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d cosine_embedding_loss cosine_similarity cumulative_trapezoid dropout dstack einsum embedding empty
empty_like eye feature_dropout full full_like gradient grid_sampler group_norm hinge_embedding_loss hstack isin kl_div
layer_norm linspace logspace margin_ranking_loss max_pool1d max_pool2d max_pool3d avg_pool1d adaptive_avg_pool1d
meshgrid native_layer_norm normal ones ones_like pairwise_distance pdist pixel_shuffle pixel_unshuffle poisson
poisson_nll_loss polar rand rand_like randint randint_like randn randn_like randperm rms_norm row_stack rrelu rsub
searchsorted selu stack std_mean tensor tensordot threshold trapezoid trapz tril_indices triu_indices
triplet_margin_loss unravel_index var_mean view_as_complex view_as_real vstack zeros zeros_like lobpcg pca_lowrank
svd_lowrank instance_norm
"""

_FUNCTIONAL = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
adaptive_max_pool3d affine_grid alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm bilinear
binary_cross_entropy binary_cross_entropy_with_logits celu conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d cosine_embedding_loss cosine_similarity cross_entropy dropout dropout1d dropout2d dropout3d elu
embedding fold gaussian_nll_loss gelu glu grid_sample group_norm gumbel_softmax hardshrink hardsigmoid hardswish
hardtanh hinge_embedding_loss huber_loss instance_norm interpolate kl_div l1_loss layer_norm leaky_relu linear
local_response_norm log_softmax logsigmoid lp_pool1d lp_pool2d margin_ranking_loss max_pool1d max_pool2d max_pool3d
mish mse_loss multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss nll_loss normalize one_hot pad
pairwise_distance pdist pixel_shuffle pixel_unshuffle poisson_nll_loss prelu relu relu6 rms_norm rrelu
scaled_dot_product_attention selu sigmoid silu smooth_l1_loss soft_margin_loss softmax softmin softplus softshrink
softsign tanh tanhshrink threshold triplet_margin_loss unfold
"""

_LINALG = """
cholesky cholesky_ex cond cross det diagonal eig eigh eigvals eigvalsh householder_product inv inv_ex ldl_factor lstsq
lu lu_factor lu_solve matmul matrix_exp matrix_norm matrix_power matrix_rank multi_dot norm pinv qr slogdet solve
solve_ex solve_triangular svd svdvals tensorinv tensorsolve vander vecdot vector_norm
"""

_SPECIAL = """
airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 digamma entr erf erfc erfcx erfinv exp2 expit expm1 gammainc gammaincc
gammaln i0 i0e i1 i1e log1p log_ndtr log_softmax logit logsumexp multigammaln ndtr ndtri polygamma psi round sinc
softmax xlog1py xlogy zeta
"""

_FFT = """
fft fft2 fftfreq fftn fftshift hfft hfft2 hfftn ifft ifft2 ifftn ifftshift ihfft ihfft2 ihfftn irfft irfft2 irfftn rfft
rfft2 rfftfreq rfftn
"""

# Methods of a tensor, and of nothing else.
_METHODS = """
bfloat16 bool byte cdouble cfloat chalf char contiguous copy_ cpu cuda dim double element_size expand expand_as
exponential_ fill_ fill_diagonal_ float geometric_ get_device half index index_add_ index_copy_ index_fill_ index_put_
index_reduce_ int is_contiguous is_set_to item log_normal_ long masked_fill_ masked_scatter_ ndimension nelement
new_empty new_full new_ones new_tensor new_zeros normal_ put_ random_ repeat requires_grad_ reshape_as retain_grad
scatter_ scatter_add_ scatter_reduce_ short size stride sum_to_size to tolist type type_as uniform_ unfold view view_as
cauchy_ bernoulli_ zero_ squeeze_ unsqueeze_ swapaxes_ swapdims_ t_ transpose_ detach_ renorm_
"""

# Functions that also come with an underscore, which write into their tensor.
_IN_PLACE = """
abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr arccos arccosh arcsin arcsinh arctan arctan2 arctanh
asin asinh atan atan2 atanh baddbmm bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
bitwise_xor ceil clamp clamp_max clamp_min clip conj_physical copysign cos cosh cumprod cumsum deg2rad digamma div
divide eq erf erfc erfinv exp exp2 expm1 fix float_power floor floor_divide fmod frac gcd ge greater greater_equal gt
heaviside hypot i0 igamma igammac lcm ldexp le lerp less less_equal lgamma log log10 log1p log2 logical_and logical_not
logical_or logical_xor logit lt mul multiply mvlgamma nan_to_num ne neg negative nextafter not_equal polygamma pow
rad2deg reciprocal relu remainder round rsqrt sgn sigmoid sign sin sinc sinh sqrt square sub subtract tan tanh tril triu
true_divide trunc xlogy
"""

_DUNDERS = """
__add__ __and__ __eq__ __floordiv__ __ge__ __getitem__ __gt__ __iadd__ __iand__ __ifloordiv__ __ilshift__ __imod__
__imul__ __invert__ __ior__ __ipow__ __irshift__ __isub__ __itruediv__ __ixor__ __le__ __lshift__ __lt__ __matmul__
__mod__ __mul__ __ne__ __neg__ __or__ __pow__ __radd__ __rand__ __rdiv__ __rfloordiv__ __rlshift__ __rmatmul__ __rmod__
__rmul__ __ror__ __rpow__ __rrshift__ __rshift__ __rsub__ __rtruediv__ __rxor__ __setitem__ __sub__ __truediv__ __xor__
"""

# What may be read of a value, and what it may be told to do, by the kind of value.
_TENSOR_ATTRIBUTES = "shape ndim dtype device layout T mT H mH real imag grad is_leaf requires_grad itemsize nbytes"
# Names of parts of what torch's functions return, as `x.max(0).values`.
_FIELDS = """
values indices sign logabsdet eigenvalues eigenvectors Q R U S Vh V LU pivots P L info solution residuals rank
singular_values mantissa exponent cloned_coefficient output counts inverse_indices min max
"""
_CONTAINER_METHODS: dict[type, str] = {
    list: "append extend insert pop remove clear index count copy reverse sort",
    tuple: "index count",
    dict: "keys values items get pop popitem setdefault update clear copy",
    set: "add discard remove union intersection difference clear copy",
    str: "lower upper strip lstrip rstrip split startswith endswith",
    torch.Size: "numel",
    torch.optim.Optimizer: "step zero_grad",
}
_CONTAINER_ATTRIBUTES: dict[type, str] = {
    complex: "real imag",
    slice: "start stop step",
    torch.optim.Optimizer: "param_groups",
}

# Operations that take a word, such as a way of rounding, or a device; any other is given none.
_WORDED = frozenset(
    """einsum norm div divide pad interpolate grid_sample gelu meshgrid scatter_reduce index_reduce searchsorted
    bucketize to type cpu cuda zeros ones full empty rand randn randint arange eye linspace logspace tensor randperm
    tensordot zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones
    new_full new_empty new_tensor quantile nanquantile cov stft istft fft fft2 fftn ifft ifft2 ifftn rfft rfft2
    rfftn irfft irfft2 irfftn hfft ihfft hfft2 ihfft2 hfftn ihfftn linalg_norm linalg_matrix_norm linalg_cond
    linalg_qr linalg_svd linalg_svdvals linalg_eigh linalg_eigvalsh linalg_lstsq lstsq qr svd cdist cross_entropy
    nll_loss mse_loss l1_loss kl_div smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits
    bce_with_logits soft_margin_loss poisson_nll_loss gaussian_nll_loss hinge_embedding_loss margin_ranking_loss
    triplet_margin_loss multi_margin_loss cosine_embedding_loss multilabel_margin_loss multilabel_soft_margin_loss
    conv1d conv2d conv3d scatter_reduce_ index_reduce_ div_ divide_ tril_indices triu_indices""".split()
)
_WORD = re.compile(r"[A-Za-z0-9_,.:>\- ]{0,200}")

_KEYWORDS = frozenset(
    """A a abs accumulate align_corners align_to_windows alpha anchor antialias append approximate assume_unique
    atol attn_mask axes axis B b base batch1 batch2 beta bias bins bool_only boundaries C ceil_mode center
    check_errors chunks compute_mode compute_uv copy correction count_include_pad counter create_graph ddof
    decimals default delta descending device diagonal dilation dim dim0 dim1 dim2 dims divisor_override driver
    dropout_p dst dtype dx edge_order elements enable_gqa end end_dim eps epsilon equal_nan equation exponent
    fill_value first full full_matrices full_output fweights gradient grid groups H hard hermitian high
    hop_length ignore_index include_self increasing index indexing indices inplace input input1 input2
    interpolation invert is_causal k keepdim kernel_size key label_smoothing lambd largest layout left length
    lengths log_input log_target logits low lower lr M margin mask mat mat1 mat2 max max_val maximize maxsplit
    mean memory_format min min_lr min_val minlength mode momentum N n n_fft nan negative negative_slope neginf
    niter non_blocking norm norm_type normalized normalized_shape num_classes num_groups num_heads num_samples
    offset onesided operands ord other out_int32 output_size P p p1 p2 pad pad_mode padding padding_idx
    padding_mode pivot pos_weight posinf positive prepend prob q r recompute_scale_factor reduce reduction
    repeats replacement requires_grad retain_graph return_complex return_counts return_indices return_inverse
    return_solution right rounding_mode rtol s scale scale_factor scatter_dim self set_to_none shape shifts side
    size size_average sizes slope some sort sorted sorted_sequence sorter source spacing sparse split_size
    split_size_or_sections src stable start start_dim step steps stride swap t target tau tensor tensor1 tensor2
    tensors test_elements theta threshold to to_dtype tol training unbiased unit_variance upper upscale_factor
    use_input_stats _stacklevel value values var vec1 vec2 weight weights win_length window X x x1 x2 y Y""".split()
)


# ---- the table


@cache
def table() -> dict[str, Operation]:
    """The operations that may stand in a file or request, by name."""
    found = dict(ops.registered())
    del found["call"]
    for name, fn in _functions():
        found.setdefault(name, ops.of(fn))
    return found


def _functions() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def take(where: Any, names: str, prefix: str) -> None:
        for name in names.split():
            fn = getattr(where, name, None)  # a name of ours, which an older torch may not have
            if fn is not None:
                own = ops.name_of(fn)
                found.append((f"{prefix}.{name}" if "<locals>" in own else own, fn))

    in_place = " ".join(f"{name}_" for name in _IN_PLACE.split())
    take(torch, f"{_BOTH} {_TORCH} {in_place}", "torch")
    take(torch.nn.functional, _FUNCTIONAL, "torch.nn.functional")
    take(torch.linalg, _LINALG, "torch.linalg")
    take(torch.special, _SPECIAL, "torch.special")
    take(torch.fft, _FFT, "torch.fft")
    take(torch.Tensor, f"{_BOTH} {_METHODS} {in_place} {_DUNDERS}", "torch.Tensor")
    return found


@cache
def _names() -> dict[Any, str]:
    return {op.fn: name for name, op in table().items() if name not in _OWN}


def name_in_table(op: Operation) -> str | None:
    """The name under which an operation may stand in a file; None for one that may not."""
    if op.name == "method" or op.name.startswith(FUNCTION):
        return op.name
    found = table().get(op.name)
    if found is op or (found is not None and found.fn is op.fn):
        return op.name
    try:
        return _names().get(op.fn)
    except TypeError:  # a function that has no hash
        return None


@cache
def methods() -> dict[type, dict[str, Callable[..., Any]]]:
    """What a value may be told to do, by its type."""
    in_place = " ".join(f"{name}_" for name in _IN_PLACE.split())
    names: dict[type, str] = {Tensor: f"{_BOTH} {_METHODS} {in_place} {_DUNDERS}", **_CONTAINER_METHODS}
    return {kind: {name: getattr(kind, name) for name in _.split() if hasattr(kind, name)} for kind, _ in names.items()}


@cache
def attributes() -> dict[type, frozenset[str]]:
    """What may be read of a value, by its type."""
    named = {Tensor: _TENSOR_ATTRIBUTES, **_CONTAINER_ATTRIBUTES}
    return {kind: frozenset(names.split()) for kind, names in named.items()}


def open_kind(kind: type, attributes_: str, methods_: str) -> None:
    """Let attributes and methods of one more type of value be used, such as a cache of keys and values."""
    _known_names.cache_clear()
    attributes()[kind] = frozenset(attributes_.split())
    methods()[kind] = {name: getattr(kind, name) for name in methods_.split() if hasattr(kind, name)}


# ---- functions of whoever runs the server

FUNCTION = "function:"
_offered: dict[str, Operation] = {}


def offer(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: whoever runs a server lets the function be used in traces, by its name.

    Example:
        >>> from workbench.graph.allowed import offer, offered
        >>> @offer("twice")
        ... def twice(x):
        ...     return 2 * x
        >>> offered()["twice"].fn(21)
        42
    """

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        _offered[name] = Operation(FUNCTION + name, fn, views=True)
        return fn

    return register


def offered() -> dict[str, Operation]:
    """The functions that were offered, by name."""
    return dict(_offered)


def function(name: str) -> Operation:
    """A function that a server offers, to be recorded: it is there only on the server."""

    def elsewhere(*args: Any, **kwargs: Any) -> Any:
        raise WireError(f"the function {name!r} is the server's; it can only be run there, with remote=True")

    return _offered.get(name) or Operation(FUNCTION + name, elsewhere, views=True)


# ---- one node's schema

_OWN: dict[str, str] = {
    # What the operations of ours are given: x any value, r a reference, s a site, i a count, n a text, b a block,
    # m a model or nothing, t a type of optimizer, ? may be missing, * any number more.
    "site": "s", "swap": "sx", "skip": "sx", "stop": "r", "log": "*", "module": "mn*", "hooked module": "mn*",
    "weight": "mnn", "grad": "ri", "swap_grad": "rix", "backward": "ri*", "cond": "xx?", "either": "xr",
    "trace": "bmcd", "loop": "bx", "steps": "bioi", "item": "", "exit": "b", "getattr": "xn", "setattr": "xnx",
    "getitem": "xx", "setitem": "xxx", "delitem": "xx", "constant": "x", "parameter": "x", "optimizer": "txd",
    "first_input": "x", "with_first_input": "xx", "method": "xn*",
}  # fmt: skip

_FITS: dict[str, Callable[[Any], bool]] = {
    "x": lambda value: True,
    "r": lambda value: type(value) is Ref,
    "s": lambda value: type(value) is Site,
    "i": lambda value: type(value) is int and 0 <= value < 1 << 31,
    "o": lambda value: value is None or (type(value) is int and 0 <= value < 1 << 31),
    "n": lambda value: type(value) is str and len(value) <= 1000,
    "b": lambda value: type(value) is int and value >= 0,
    "m": lambda value: value is None or type(value) is Argument,
    "t": lambda value: type(value) is Argument,
    "c": lambda value: type(value) is tuple and all(type(call) is tuple and len(call) == 3 for call in value),
    "d": lambda value: type(value) is dict,
}
_SAID = {
    "r": "a reference", "s": "a site", "i": "a count", "o": "a count or None", "n": "a text", "b": "a block",
    "m": "a model", "t": "a kind of optimizer", "c": "calls", "d": "a dict",
}  # fmt: skip


def check(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Whether an operation may be given this. Raises `WireError` that says what it may not."""
    schema = _OWN.get(name)
    if schema is not None:
        _check_own(name, schema, args)
    if name in _NAMING:
        _check_name(name, args[1])
    if name in ("module", "hooked module", "trace", "optimizer", "backward") or name.startswith(FUNCTION):
        wrong = [key for key in kwargs if not key.isidentifier() or key.startswith("_")]
    else:
        wrong = [key for key, value in kwargs.items() if key not in _KEYWORDS and value is not None]
    if wrong:
        raise WireError(f"{name} may not be given {wrong[0]}=")
    last = str(args[1]) if name == "method" and len(args) > 1 else name.rpartition(".")[2]
    if name in _OWN and name != "method":
        return
    if name.startswith(("torch.", "method")):
        if len(args) > 16:
            raise WireError(f"{name} may not be given {len(args)} arguments")
        for value in (*args[2 if name == "method" else 0 :], *kwargs.values()):
            _check_words(last, value)
    elif name in ("operator.mod", "operator.imod", "operator.mul", "operator.imul") and any(
        isinstance(value, (str, bytes, list, tuple)) for value in args
    ):
        raise WireError(f"{name} is for numbers and tensors; a text is not formatted or repeated in a trace")


def _check_own(name: str, schema: str, args: tuple[Any, ...]) -> None:
    least = len(schema.replace("x?", "").rstrip("*"))
    most = None if schema.endswith("*") else len(schema.replace("?", ""))
    if len(args) < least or (most is not None and len(args) > most):
        raise WireError(
            f"{name} takes {least if most in (least, None) else f'{least} or {most}'} values, not {len(args)}"
        )
    for letter, value in zip(schema.replace("?", "").replace("*", ""), args, strict=False):
        if not _FITS[letter](value):
            raise WireError(f"{name} takes {_SAID[letter]} where {type(value).__name__} stands")


_NAMING = frozenset({"method", "getattr", "setattr"})


@cache
def _known_names() -> dict[str, frozenset[str]]:
    return {
        "method": frozenset(name for each in methods().values() for name in each),
        "getattr": frozenset(name for each in attributes().values() for name in each) | frozenset(_FIELDS.split()),
        "setattr": frozenset({"requires_grad"}),
    }


def _check_name(name: str, attribute: Any) -> None:
    """Private names are never touched. A name that is no tensor's may be a field of a model's output: whether it is one
    is seen in the run, by the value itself."""
    if attribute in _known_names()[name]:
        return
    field = isinstance(attribute, str) and attribute.isidentifier() and not attribute.startswith("_")
    if not field or name != "getattr" or hasattr(Tensor, attribute) or hasattr(str, attribute):
        raise WireError(f"the attribute {attribute!r} may not be used by what comes from elsewhere")


def _check_words(last: str, value: Any) -> None:
    if isinstance(value, (str, bytes)):
        if last in _container_methods():
            return
        if last not in _WORDED and f"{last.removeprefix('linalg_').removeprefix('fft_')}" not in _WORDED:
            raise WireError(f"{last} may not be given a text")
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            raise WireError(f"{last} may not be given the text {str(value)[:40]!r}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_words(last, item)


@cache
def _container_methods() -> frozenset[str]:
    return frozenset(name for names in _CONTAINER_METHODS.values() for name in names.split())


def settled(op: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with `inplace` by its name, where the planner looks for it."""
    at = _inplace_at(op.fn) if op.name.startswith("torch.nn.functional.") else None
    if at is None or len(args) <= at:
        return args, kwargs
    names = list(inspect.signature(op.fn).parameters)
    return args[:at], {**dict(zip(names[at:], args[at:], strict=False)), **kwargs}


@cache
def _inplace_at(fn: Callable[..., Any]) -> int | None:
    try:
        names = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return None
    return names.index("inplace") if "inplace" in names else None
