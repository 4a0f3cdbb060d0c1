"""What is refused when it is wrapped or asked for, what is warned of, and copies of a wrapped model."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import workbench as wb
from workbench.errors import InputError, TrainModeWarning


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()


def test_a_compiled_module_gives_its_output_and_refuses_its_inside() -> None:
    plain = net()
    model: Any = wb.NNsight(torch.compile(plain, backend="eager"))  # type: ignore[arg-type]
    x = torch.ones(1, 4)
    with model.trace(x):
        out = model.output.save()
    assert torch.equal(out.value, plain(x))
    with (
        pytest.raises(
            InputError, match=r"_orig_mod\.0\.output is inside what torch\.compile made into one, where no hook"
        ),
        model.trace(x),
    ):
        model._orig_mod[0].output.save()


def test_a_part_compiled_in_place_is_refused() -> None:
    plain = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 2))
    plain[0].compile(backend="eager")
    model: Any = wb.NNsight(plain)
    for path in ("0", "0.0"):
        with (
            pytest.raises(InputError, match=rf"{path}\.output is inside what torch\.compile"),
            model.trace(torch.ones(1, 4)),
        ):
            model.find(path).output.save()
    with model.trace(torch.ones(1, 4)):
        out = model[1].output.save()
    assert torch.equal(out.value, plain(torch.ones(1, 4)))


def test_dropout_at_work_is_warned_of_on_the_line_of_the_trace() -> None:
    model: Any = wb.NNsight(net().train())
    with pytest.warns(TrainModeWarning, match="in train mode, so 1 drops values at random") as told:
        with model.trace(torch.ones(1, 4)):
            model[0].output.save()
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.module.eval()
        model.trace(torch.ones(1, 4), trace=False)
        model.module.train()
        model.module[1].p = 0.0
        model.trace(torch.ones(1, 4), trace=False)


def test_fsdp_is_refused(tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        sharded: Any = fully_shard(net(), mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(InputError, match="this module is wrapped by FSDP"):
            wb.NNsight(sharded)
    finally:
        torch.distributed.destroy_process_group()


def test_a_deep_copy_is_a_model_of_its_own() -> None:
    model: Any = wb.demo()
    with model.edit() as edited:
        model.transformer.h[0].mlp.output[:] = 0
    text = "The Eiffel Tower is in the city of"
    for each in (model, edited):
        other: Any = copy.deepcopy(each)
        before = each.trace(text, trace=False).logits
        assert torch.equal(other.trace(text, trace=False).logits, before)
        with torch.no_grad():
            other.module.lm_head.weight.zero_()
        assert torch.equal(each.trace(text, trace=False).logits, before)
        with other.trace(text):
            hidden = other.transformer.h[0].mlp.output.save()
            after = other.lm_head.output.save()
        assert not after.value.any()
        assert hidden.value.any() == (each is model)
