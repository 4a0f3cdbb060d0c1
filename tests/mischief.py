"""An operator's functions that do what none should: what a worker then does is tested with them."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from workbench.graph.allowed import offer

_LIBC = ctypes.CDLL(None)


def _head() -> Any:
    heads = (each for each in gc.get_objects() if isinstance(each, nn.Linear) and each.out_features == 12)
    return next(each for each in heads if not isinstance(each.weight, FakeTensor))  # the scan keeps a shadow


@offer("socket")
def _socket(x: Any) -> Any:
    socket.create_connection(("127.0.0.1", 9), 1)
    return x


@offer("raw socket")
def _raw_socket(x: Any) -> Any:
    return torch.tensor(float(_LIBC.socket(2, 1, 0)))


@offer("program")
def _program(x: Any) -> Any:
    subprocess.run(["true"], check=True)
    return x


@offer("file")
def _file(x: Any) -> Any:
    Path(os.environ["HOME"], "left-behind").write_text("x")
    return x


@offer("signal")
def _signal(x: Any) -> Any:
    os.kill(os.getppid(), signal.SIGTERM)
    return x


@offer("hook")
def _hook(x: Any) -> Any:
    _head().register_forward_hook(lambda module, args, output: output * 0)
    return x


@offer("data")
def _data(x: Any) -> Any:
    _head().weight.data.zero_()
    return x


@offer("dtype")
def _dtype(x: Any) -> Any:
    torch.set_default_dtype(torch.float64)
    return x


@offer("training")
def _training(x: Any) -> Any:
    _head().train()
    torch.set_grad_enabled(True)
    torch.manual_seed(0)
    return x


@offer("crash")
def _crash(x: Any) -> Any:
    os.abort()
