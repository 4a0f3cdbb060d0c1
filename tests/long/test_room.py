"""What takes long to see of a cluster, run by `make soak`: models that do not fit at once, and one open to anyone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.raycluster import cluster
from tests.serving import GPT2, LLAMA
from tests.test_cluster import PROMPT, Gate, served

pytestmark = pytest.mark.timeout(600)


def test_models_that_do_not_fit_at_once_make_room(tmp_path: Path) -> None:
    gpt2, llama = (wb.LanguageModel(name, dispatch=True) for name in (GPT2, LLAMA))
    with cluster(nodes=1) as ring:
        server = served(ring, tmp_path, LLAMA)
        try:
            server.ready(seconds=200)
            for _ in range(2):
                for model in (gpt2, llama):
                    with model.trace(PROMPT, remote=server.host):
                        logits = model.lm_head.output[:, -1].save()
                    with model.trace(PROMPT):
                        here = model.lm_head.output[:, -1].save()
                    torch.testing.assert_close(logits.value, here.value, rtol=1e-4, atol=1e-4)
                    assert ring.nodes[0] is not None
                    assert len(ring.nodes[0].processes("workbench.server.worker")) == 1
        finally:
            server.stop()


def test_a_cluster_that_lets_in_anyone_is_not_joined() -> None:
    with cluster(0, mode="disabled") as open_to_all:
        gate = Gate(open_to_all.address, {**open_to_all.surroundings, "RAY_AUTH_MODE": "token"})
        try:
            said = gate.hear()
        finally:
            gate.close()
    assert said["event"] == "refused"
    assert "lets in anyone" in said["why"]
