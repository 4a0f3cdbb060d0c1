"""Schema hooks: what schemathesis has to know of our API: how a request looks, so that some of what it sends is one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import schemathesis

from scripts.fuzz import changed
from workbench.remote import protocol

REQUESTS = "WORKBENCH_SOAK_REQUESTS"
"""The environment variable that names a folder with requests as a client packs them."""

schemathesis.serializer.alias(protocol.REQUEST, "application/octet-stream")


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """A third of the bodies are requests, a third changed ones, and a third whatever schemathesis made."""
    known = [path.read_bytes() for path in Path(os.environ[REQUESTS]).iterdir()]
    chance = random.Random(repr(body))
    kind = chance.randrange(3)
    return body if not kind else chance.choice(known) if kind == 1 else changed(chance.choice(known), chance)
