"""Remotes: a server with two models, and the models as they are opened here and from their configuration alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import workbench as wb
from tests.serving import GPT2, LLAMA, Serving, serving
from workbench.remote.connection import close_all

PROMPT = "The Eiffel Tower is in the city of"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("remote")
    (folder / "offered.py").write_text(
        "from workbench.graph.allowed import offer\n\n\n@offer('halved')\ndef halved(x, by=2):\n    return x / by\n"
    )
    with serving(folder, GPT2, LLAMA, "--functions", str(folder / "offered.py")) as running:
        yield running
    close_all()


@pytest.fixture(autouse=True)
def _asked(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOST", server.host)
    monkeypatch.delenv("WORKBENCH_API_KEY", raising=False)


@pytest.fixture(scope="module")
def away() -> Any:
    """The model opened from its configuration only."""
    return wb.LanguageModel(GPT2)


@pytest.fixture(scope="module")
def here() -> Any:
    return wb.LanguageModel(GPT2, dispatch=True)


@pytest.fixture(scope="module")
def llama() -> Any:
    return wb.LanguageModel(LLAMA)


@pytest.fixture(autouse=True)
def _no_weights(away: Any, llama: Any) -> Iterator[None]:
    yield
    assert all(parameter.is_meta for model in (away, llama) for parameter in model.module.parameters())


def same(one: Any, other: Any) -> None:
    one, other = getattr(one, "value", one), getattr(other, "value", other)
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):  # two processes may add up in another order
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    else:
        assert one == other
