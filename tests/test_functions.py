"""Any function, and Python's own types, in a trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import workbench as wb
from tests.nets import two_layers
from workbench.errors import NotTracingError

X = torch.linspace(-1, 1, 10).reshape(2, 5)


def test_a_function_is_called_in_the_run() -> None:
    net = two_layers()
    model = wb.NNsight(net)
    calls: list[type] = []

    def scaled(tensor: torch.Tensor, by: float, *, plus: torch.Tensor) -> torch.Tensor:
        calls.append(type(tensor))
        return tensor * by + plus

    with model.trace(X):
        made = wb.apply(scaled, model.layer1.output, 2.0, plus=model.layer1.output.mean()).save()
        assert calls == []
    assert calls == [torch.Tensor]
    hidden = net.layer1(X)
    torch.testing.assert_close(made.value, hidden * 2 + hidden.mean())


def test_what_a_function_changes_in_place_is_not_the_users() -> None:
    model = wb.NNsight(nn.Identity())
    x = X.clone()
    with model.trace(x):
        out = wb.apply(torch.Tensor.add_, model.output, 1).save()
    torch.testing.assert_close(out.value, X + 1)
    assert torch.equal(x, X)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (wb.bool, (1,), True),
        (wb.bytes, (3,), b"\0\0\0"),
        (wb.int, ("7",), 7),
        (wb.float, (2,), 2.0),
        (wb.str, (5,), "5"),
        (wb.complex, (1, 2), 1 + 2j),
        (wb.bytearray, (b"ab",), bytearray(b"ab")),
        (wb.tuple, ([1, 2],), (1, 2)),
        (wb.list, ((1, 2),), [1, 2]),
        (wb.set, ([1, 1],), {1}),
        (wb.dict, ([("a", 1)],), {"a": 1}),
    ],
)
def test_pythons_own_types(kind: object, given: tuple[object, ...], expected: object) -> None:
    model = wb.NNsight(nn.Identity())
    with model.trace(X):
        made = kind(*given).save()  # type: ignore[operator]
    assert made.value == expected
    assert type(made.value) is type(expected)


def test_a_list_grows_over_a_loop() -> None:
    model = wb.NNsight(nn.Identity())
    with model.session() as session:
        rows = wb.list()
        for number in range(3):
            rows.append([number])
        flat = wb.list().save()
        with session.iter(rows) as row, session.iter(row) as item:
            flat.append(item)
    assert flat.value == [0, 1, 2]


@pytest.mark.parametrize("call", [lambda: wb.apply(len, [1]), lambda: wb.list()])
def test_outside_a_trace_there_is_nothing_to_record(call: object) -> None:
    with pytest.raises(NotTracingError, match="only means something inside a trace"):
        call()  # type: ignore[operator]


def test_what_is_no_function() -> None:
    model = wb.NNsight(nn.Identity())
    with pytest.raises(TypeError, match="takes a function first; this is a int"), model.trace(X):
        wb.apply(3, model.output)  # type: ignore[arg-type]
