"""torch's functions, methods and operators on traced values give what they give on tensors."""

from __future__ import annotations

import inspect
import itertools
import operator
import warnings
from collections.abc import Callable
from typing import Any

import einops
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import get_ignored_functions, get_overridable_functions

import workbench as wb
from tests.nets import traced
from workbench.graph import operations

SQUARE = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
CUBE = torch.linspace(0.1, 0.9, 8).reshape(2, 2, 2)
WHOLE = torch.tensor([[3, 1], [0, 2]])
TRUE = torch.tensor([[True, False], [True, True]])
COMPLEX = torch.complex(SQUARE, SQUARE.T)

# What a function may be called with; the first that it takes is used. The first argument is the traced one.
ARGUMENTS: list[tuple[Any, ...]] = [
    (SQUARE,), (SQUARE, SQUARE), (SQUARE, 1), (SQUARE, 0, 1), (SQUARE, SQUARE, SQUARE), (WHOLE,), (WHOLE, WHOLE),
    (WHOLE, 1), (TRUE,), (TRUE, TRUE), (CUBE,), (CUBE, CUBE), (CUBE, CUBE, CUBE), (CUBE, 1), (CUBE, 1, 2),
    (SQUARE, (2, 2)), (SQUARE, [0]), (SQUARE, (0, 1)), (SQUARE, 0, WHOLE.clamp(max=1)), (SQUARE, TRUE),
    (SQUARE, TRUE, 0.5),
    (SQUARE, TRUE, SQUARE), (SQUARE, 0, WHOLE.clamp(max=1), SQUARE), (SQUARE[0], SQUARE[0]), (SQUARE[0],),
    (SQUARE, SQUARE[0]), (SQUARE, SQUARE, SQUARE[0]), (SQUARE[0], SQUARE, SQUARE[0]), (COMPLEX,), (COMPLEX, COMPLEX),
    (SQUARE, torch.float64), (CUBE, 2, 1, 1), (SQUARE, 0, torch.tensor([1, 0])), (SQUARE, 0.5), (SQUARE, -1.0, 1.0),
    (CUBE, SQUARE[:, :, None].expand(2, 2, 2)), (SQUARE, "fro"), (SQUARE, torch.tensor([0, 1])), (CUBE[None], 1),
    (CUBE[None], CUBE[None]), (CUBE[None], 2), (CUBE[None], (1, 1)), (torch.tensor([0, 1]), SQUARE), (WHOLE, SQUARE),
]  # fmt: skip

NAMESPACES: dict[str, Any] = {
    "torch": torch, "functional": F, "linalg": torch.linalg, "fft": torch.fft, "special": torch.special,
}  # fmt: skip

# Functions that ask about or change tensors as objects, need hardware, or give what nobody set; einsum has a test.
NO_SENSE = frozenset(
    """set_ resize_ resize_as_ resize_as_sparse_ share_memory_ retain_grad register_hook backward requires_grad_
    storage data_ptr untyped_storage apply_ map_ map2_ pin_memory record_stream rename rename_ refine_names
    align_to __dlpack__ __dlpack_device__ module_load dtype_to empty empty_like new_empty empty_permuted
    new_empty_strided empty_strided storage_offset is_shared is_pinned get_device __array__ __array_wrap__
    __reduce_ex__ __setstate__ __deepcopy__ __dir__ register_post_accumulate_grad_hook storage_type __repr__
    __format__ __iter__ __len__ __contains__ __hash__ __bool__ __int__ __float__ __index__ __complex__
    __cuda_array_interface__ unify_dim numpy tolist item size stride numel dim nelement element_size
    is_floating_point is_complex ndimension type to_dlpack save detach_ names grad_sample __getattr__ __long__
    new vmap resolve_conj is_conj is_neg resolve_neg is_inference has_names is_contiguous is_coalesced is_set_to
    is_same_size is_distributed is_signed is_nonzero is_leaf fake_quantize_per_channel_affine cuda xpu ipu hpu
    mtia geqrf_ dtype as_subclass rand_like randn_like randint_like const_data_ptr einsum
    fbgemm_pack_gemm_matrix_fp16""".split()
)


def functions() -> list[tuple[str, Callable[..., Any]]]:
    """Every overridable function of torch's with arguments that it takes, and how it is called on its first one."""
    found: list[tuple[str, Callable[..., Any]]] = []
    ignored = get_ignored_functions()
    overridable = get_overridable_functions()
    for space, module in NAMESPACES.items():
        for name in dir(module):
            fn: Any = getattr(module, name, None)
            public = not name.startswith("_") and name not in NO_SENSE and callable(fn) and not inspect.isclass(fn)
            if public and fn not in ignored and any(fn in each for each in overridable.values()):
                found.append((f"{space}.{name}", fn))
    for fn in overridable[torch.Tensor]:
        name = getattr(fn, "__name__", "")
        if name and name not in NO_SENSE and name != "__get__" and not name.startswith("_"):
            found.append((f"Tensor.{name}", lambda value, *rest, name=name: getattr(value, name)(*rest)))
    return found


def fresh(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.clone() if isinstance(arg, Tensor) else arg for arg in args)


def plain(fn: Callable[..., Any]) -> tuple[tuple[Any, ...], Any] | None:
    """The first arguments that the function takes, and what it gives."""
    for args in ARGUMENTS:
        for first in (args[0], [args[0], args[0]]):
            given = first, *args[1:]
            try:
                torch.manual_seed(0)
                value = fn(
                    *(fresh(given) if isinstance(first, Tensor) else ([*fresh((first[0], first[1]))], *args[1:]))
                )
            except Exception:
                continue
            if value is not None and value is not NotImplemented:
                return given, value
    return None


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, Tensor):
        return isinstance(ours, Tensor) and ours.dtype == theirs.dtype and torch.allclose(
            ours.to_dense(), theirs.to_dense(), equal_nan=True
        )  # fmt: skip
    if isinstance(theirs, (tuple, list)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs or (ours != ours and theirs != theirs)


def test_every_function_that_can_be_called_gives_the_same() -> None:
    model = wb.NNsight(nn.Identity())
    wrong: list[str] = []
    called = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        for name, fn in functions():
            found = plain(fn)
            if found is None:
                continue
            (first, *rest), expected = found
            called += 1
            try:
                with model.trace(first if isinstance(first, Tensor) else first[0]):
                    torch.manual_seed(0)
                    value = model.output if isinstance(first, Tensor) else [model.output, model.output]
                    ours = fn(value, *rest)
                    ours = ours.save() if hasattr(type(ours), "save") else ours
                    torch.manual_seed(0)
                ours = getattr(ours, "value", ours)
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}")
                continue
            if not same(ours, expected):
                wrong.append(f"{name}: {ours} is not {expected}")
    assert not wrong, "\n".join(wrong)
    assert called > 900, called


# ---- operators

BOTH_WAYS = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
    operator.matmul, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
]  # fmt: skip
WHOLE_NUMBERS = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]


@pytest.mark.parametrize("op", BOTH_WAYS + WHOLE_NUMBERS, ids=lambda op: op.__name__)
def test_operators_both_ways(op: Any) -> None:
    tensor = WHOLE if op in WHOLE_NUMBERS else SQUARE
    others: list[Any] = [tensor] if op is operator.matmul else [tensor, 2]
    model = wb.NNsight(nn.Identity())
    for other in others:
        with model.trace(tensor):
            here, there = op(model.output, other).save(), op(other, model.output).save()
            both = op(model.output, model.output).save()
        assert torch.equal(here.value, op(tensor, other))
        assert torch.equal(there.value, op(other, tensor))
        assert torch.equal(both.value, op(tensor, tensor))


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"])
def test_augmented_assignment_changes_the_site_and_not_the_input(name: str) -> None:
    op = getattr(operator, name)
    x = SQUARE.clone()
    model = wb.NNsight(nn.Sequential(nn.Identity(), nn.Identity()))
    with model.trace(x):
        value = model[0].output
        value = op(value, 2)
        out = model.output.save()
    assert torch.equal(out.value, op(SQUARE.clone(), 2))
    assert torch.equal(x, SQUARE)


def test_unary_operators_and_indexing_both_ways() -> None:
    model = wb.NNsight(nn.Identity())
    with model.trace(SQUARE):
        v: Any = model.output
        kept = [each.save() for each in (-v, +v, abs(v), v[v > 0.7], v[0, 1:], v[..., None], v.T)]
        order = v.argsort(-1)
        picked = traced(SQUARE[order[0]]).save()
        inverted = (~(v > 0.7)).save()
    expected = [-SQUARE, SQUARE, SQUARE.abs(), SQUARE[SQUARE > 0.7], SQUARE[0, 1:], SQUARE[..., None], SQUARE.T]
    assert all(torch.equal(ours.value, theirs) for ours, theirs in zip(kept, expected, strict=True))
    assert torch.equal(picked.value, SQUARE[SQUARE.argsort(-1)[0]])
    buffer = torch.zeros(2, 2)
    with model.trace(SQUARE):
        buffer[1] = model.output[0]
    assert torch.equal(buffer, torch.stack([torch.zeros(2), SQUARE[0]]))
    assert torch.equal(inverted.value, ~(SQUARE > 0.7))


def test_functions_of_lists_of_modules_and_creation() -> None:
    torch.manual_seed(3)
    layer, norm = nn.Linear(2, 3), nn.LayerNorm(3)
    model = wb.NNsight(nn.Identity())
    torch.manual_seed(4)
    with model.trace(SQUARE):
        v: Any = model.output
        stacked = traced(torch.stack([v, v * 2])).save()
        mixed = traced(torch.einsum("ij,jk->ik", v, SQUARE)).save()
        layered = traced(norm(layer(v))).save()
        noise = traced(torch.randn(v.shape)).save()
        like = torch.zeros_like(v).save()  # type: ignore[attr-defined]
        chosen = traced(torch.where(v > 0.7, v, torch.full((2, 2), 9.0))).save()
        made = traced(torch.tensor([1.0, 2.0]) + v).save()
    assert torch.equal(stacked.value, torch.stack([SQUARE, SQUARE * 2]))
    torch.testing.assert_close(mixed.value, SQUARE @ SQUARE)
    torch.testing.assert_close(layered.value, norm(layer(SQUARE)))
    torch.manual_seed(4)
    assert torch.equal(noise.value, torch.randn(2, 2))
    assert torch.equal(like.value, torch.zeros(2, 2))
    assert torch.equal(chosen.value, torch.where(SQUARE > 0.7, SQUARE, 9.0))
    assert torch.equal(made.value, torch.tensor([1.0, 2.0]) + SQUARE)


def test_einops() -> None:
    model = wb.NNsight(nn.Identity())
    with model.trace(CUBE):
        v: Any = model.output
        moved = einops.rearrange(v, "a b c -> c (a b)").save()
        mean = einops.reduce(v, "a b c -> a", "mean").save()
        again = einops.repeat(v, "a b c -> a b c r", r=3).save()
        summed = einops.einsum(v, v, "a b c, a d c -> b d").save()
    torch.testing.assert_close(moved.value, CUBE.permute(2, 0, 1).reshape(2, 4))
    torch.testing.assert_close(mean.value, CUBE.mean((1, 2)))
    torch.testing.assert_close(again.value, CUBE[..., None].expand(2, 2, 2, 3))
    torch.testing.assert_close(summed.value, torch.einsum("abc,adc->bd", CUBE, CUBE))
    torch.testing.assert_close(einops.rearrange(moved, "c ab -> ab c"), moved.value.T)


def test_every_name_of_an_operation_is_the_way_to_its_function() -> None:
    aliases = {"torch.Tensor.pow", "torch.Tensor.pow_", "property.__get__"}  # torch lists them under another function
    wrong = []
    for fn in itertools.chain(*get_overridable_functions().values()):
        name = operations.name_of(fn)
        if not name.startswith("getset_descriptor") and name not in aliases and eval(name, {"torch": torch}) != fn:
            wrong.append(name)
    assert not wrong
