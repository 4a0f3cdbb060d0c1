"""Protocol: the messages between client and server, where they are sent, and which version they are of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

VERSION = 1
"""Raised when a client of the version before would be misunderstood."""

HEADER = "X-Workbench-Protocol"
"""Carries the version in each request and each answer."""

JOB_HEADER = "X-Workbench-Job"
"""The id that the client gives its job: a request that is sent again after a cut is then the same job."""

INLINE_HEADER = "X-Workbench-Inline"
"""Asks for a small result as the last of a job's news, which spares a request: `event: result`, its data the sha256 and
the bytes in base64."""

INLINE = 1 << 16
"""Bytes of a result that may come so."""

JOBS = "/v1/jobs"
MODELS = "/v1/models"
REQUEST = "application/x-workbench-request"
OUTCOME = "application/x-workbench-outcome"
EVENTS = "text/event-stream"

Status = Literal["RECEIVED", "APPROVED", "QUEUED", "RUNNING", "LOG", "COMPLETED", "ERROR"]
Stage = Literal["QUEUED", "RUNNING", "COMPLETED", "ERROR"]
ENDED = ("COMPLETED", "ERROR")


class Problem(BaseModel):
    """Why something was refused, in one sentence that names the cure."""

    error: str


class Failure(BaseModel):
    """What ended a job: the error as it would have been raised by a local run."""

    kind: str = Field(description="the error's class, as IndexError")
    message: str
    line: str | None = Field(default=None, description="the user's own line, as `cell line 4: …`")
    status: int = Field(default=422, description="the HTTP status by which the result is refused")


class Event(BaseModel):
    """One thing that happened to a job."""

    number: int = Field(description="counts a job's events from 1; 0 for a passing one that is not kept")
    at: float = Field(description="seconds since 1970")
    status: Status
    text: str = Field(default="", description="for a person; of a LOG event, the line that was logged")
    position: int | None = Field(default=None, description="how many jobs are before this one, while it is queued")
    failure: Failure | None = None


class Job(BaseModel):
    """A job as its owner may see it."""

    id: str
    models: list[str]
    status: Stage
    created: float
    started: float | None = None
    ended: float | None = None
    position: int | None = None
    failure: Failure | None = None
    bytes: int | None = Field(default=None, description="size of the result")
    sha256: str | None = Field(default=None, description="checksum of the result")
    expires: float | None = Field(default=None, description="when the result is deleted")


class ModelView(BaseModel):
    """A hosted model."""

    key: str
    loaded: bool
    bytes: int | None = None
    queued: int = 0


class Hosted(BaseModel):
    """What a server offers."""

    version: str
    protocol: int = VERSION
    models: list[ModelView]
    functions: list[str] = Field(default=[], description="functions of the operator's that a trace may name")


def mismatch(theirs: str | None, here: Literal["client", "server"]) -> str | None:
    """Why a client and a server do not understand each other, in words for the client's person; None if they do.

    Args:
        theirs: the other side's version.
        here: which of the two asks.
    """
    if theirs is None or theirs == str(VERSION):
        return None
    theirs = theirs[:20]
    client, server = (str(VERSION), theirs) if here == "client" else (theirs, str(VERSION))
    older_is_theirs = not (theirs.isdigit() and int(theirs) > VERSION)
    client_is_older = older_is_theirs == (here == "server")
    cure = (
        "update workbench on your machine: pip install --upgrade workbench"
        if client_is_older
        else "ask its operator to update workbench there, or install here the version that it has"
    )
    return f"this server speaks version {server} of the protocol, and your workbench version {client}; {cure}"
