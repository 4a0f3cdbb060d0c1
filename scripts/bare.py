"""Bare: the least that a remote trace could be: one FastAPI endpoint that runs hooks written by hand.

`python -m scripts.bare PORT`. No queue, no key, no limits, no other process, no proof: what `scripts.bench_remote`
measures a server against.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from safetensors.torch import save
from torch import Tensor

import workbench as wb

BLOCK = 2


def hooked(net: Any, ids: Tensor) -> dict[str, Tensor]:
    """A block's output and the logits, with one position of the block's output set to nothing."""
    seen: dict[str, Tensor] = {}

    def ablate(module: Any, args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, -1] = 0
        seen["hidden"] = output
        return output

    def keep(module: Any, args: Any, output: Tensor) -> None:
        seen["logits"] = output[:, -1]

    handles = [
        net.transformer.h[BLOCK].register_forward_hook(ablate),
        net.lm_head.register_forward_hook(keep),
    ]
    try:
        with torch.no_grad():
            net(ids)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def app(big: Path) -> FastAPI:
    """The endpoint, and a file to download."""
    made = FastAPI()
    net = wb.LanguageModel("workbench/demo-gpt2", dispatch=True).module

    @made.post("/run")
    async def run(request: Request) -> Response:
        ids = torch.tensor((await request.json())["ids"])
        return Response(save({name: value.contiguous() for name, value in hooked(net, ids).items()}))

    @made.get("/file")
    async def file() -> FileResponse:
        return FileResponse(big)

    return made


def main(port: int, size: int = 50_000_000) -> None:
    """Serve until ended."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        big = Path(folder) / "big"
        big.write_bytes(torch.rand(size // 4).numpy().tobytes())
        uvicorn.run(app(big), host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
