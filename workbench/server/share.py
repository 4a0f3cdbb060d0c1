"""Share: how a worker's process joins the others with which it shares its models, and keeps their connections alone."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from workbench.models.base import NNsight

Rank = tuple[int, int, str]
"""This process's number, how many there are, and the file by which they find each other."""


def join(rank: Rank) -> None:
    """Meet the others: over the GPUs' own links, or this machine's loopback."""
    import torch
    import torch.distributed as dist

    number, world, meet = rank
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world)}
    if sys.platform.startswith("linux"):
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(number)
    dist.init_process_group(backend, f"file://{meet}", rank=number, world_size=world, timeout=timedelta(hours=2))


def shares(world: int) -> dict[str, Any]:
    """What `from_pretrained` is told."""
    from transformers.distributed.configuration_utils import DistributedConfig

    return {"distributed_config": DistributedConfig(tp_size=world, tp_plan="auto")}


def connections() -> set[int]:
    """The sockets that are open: after joining and a first pass, those to the others."""
    found = set()
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
        except OSError:
            continue
    return found


def agree(models: Iterable[NNsight]) -> None:
    """The same random numbers in all processes, for a job that makes some outside a pass."""
    parallel = next((each for each in (model._parallel() for model in models) if each is not None), None)
    if parallel is not None:
        parallel.agree()
