"""App: the HTTP side of a server: jobs come in, their news and results go out, to those whose they are."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException as AnyHTTPException

from workbench.graph.schema import REQUEST
from workbench.remote import protocol
from workbench.remote.protocol import Event, Hosted, Job, ModelView, Problem
from workbench.server.answers import Told, invalid, refused
from workbench.server.desk import Desk
from workbench.server.pages import api_page, status_page
from workbench.server.settings import LOOPBACK, Settings
from workbench.server.workers import Workers

router = APIRouter()
_bearer = HTTPBearer(auto_error=False, description="The key, as the operator gave it.")
_ID = "^[0-9a-f]{32}$"
_EVENT = {
    name: each
    for name, each in Event.model_json_schema(ref_template="#/components/schemas/{model}").items()
    if name != "$defs"
}
_NEWS = {"type": "string", "contentSchema": {"$ref": "#/components/schemas/Event"}}
_SMALL = 1 << 18
"""Bytes of a result that is read at once, which is quicker than by pieces on another thread."""
_UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""What keeps a proxy from holding back events."""


def make_app(settings: Settings, workers: Workers | None = None, end: Callable[[], None] = lambda: None) -> FastAPI:
    """The app of one server.

    Args:
        settings: what its operator decided.
        workers: who runs the jobs; child processes unless others are given.
        end: called when the server cannot go on; `app.state.desk.fault` then says why.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk = app.state.desk = Desk(settings, workers)
        desk.end = end
        await desk.start()
        yield
        await desk.stop()

    app = FastAPI(
        title="workbench server",
        version=version("workbench"),
        description="Traces of hosted models: a graph comes in, values go out. Jobs live outside requests.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages come from another address, which a closed network does not reach
        redoc_url=None,
    )
    app.include_router(router)
    describe = app.openapi

    def described() -> dict[str, Any]:
        schema = describe()
        schema["components"]["schemas"].setdefault("Event", _EVENT)
        return schema

    app.openapi = described
    app.add_middleware(Told)
    app.add_exception_handler(AnyHTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    return app


async def _desk(request: Request) -> Desk:
    return request.app.state.desk


At = Annotated[Desk, Depends(_desk)]


async def _asker(
    request: Request, desk: At, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """Who asks."""
    why = protocol.mismatch(request.headers.get(protocol.HEADER), "server")
    if why is not None:
        raise HTTPException(400, why)
    if not desk.keys.needed:
        _of_this_machine(request)
    who = desk.keys.who(request.headers.get("authorization"))
    if who is None:
        found = "this one is not known here" if credentials else "none was sent"
        raise HTTPException(
            401,
            f"this server asks for a key, and {found}: workbench.CONFIG.set_default_api_key(...)",
            {"WWW-Authenticate": "Bearer"},
        )
    return who


def _of_this_machine(request: Request) -> None:
    """Without keys, no page of another site is let in, which a browser on this machine could be made to ask for."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if request.url.hostname not in LOOPBACK or (origin is not None and origin.partition("://")[2] != host):
        raise HTTPException(
            403,
            f"without keys this server answers this machine alone, and this came from {(origin or host)[:200]}; its "
            "operator can give it keys: workbench serve --keys FILE",
        )


Owner = Annotated[str, Depends(_asker)]
Inline = Annotated[
    str | None,
    Header(description="Any word: a small result is then the last of the news, as `event: result`, its sha256 and it."),
]
JobId = Annotated[str, Path(pattern=_ID, description="The job's id.")]

_REFUSALS = {
    400: "Not understood; the sentence says what and why.",
    401: "No key, or a wrong one.",
    403: "Not from this machine, and the server has no keys.",
    404: "No such job or model, or not yours.",
    408: "The job took longer than is allowed.",
    409: "Not now: the job has not ended, or was cancelled, or its id is taken.",
    410: "It was there, and is no more.",
    413: "Too large.",
    416: "The result has no such bytes.",
    422: "Understood, and not allowed or not possible.",
    429: "Too many jobs are queued.",
}


def _refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem, "description": _REFUSALS[code]} for code in (400, 401, 403, 422, *codes)}


def _links() -> dict[str, Any]:
    """Where one goes from a job that was accepted."""
    ways = {"job": "get", "events": "get", "result": "get", "delete": "delete"}
    return {
        name: {
            "operationRef": f"#/paths/~1v1~1jobs~1{{id}}{'' if name in ('job', 'delete') else f'~1{name}'}/{method}",
            "parameters": {"id": "$response.body#/id"},
        }
        for name, method in ways.items()
    }


@router.get("/", response_class=HTMLResponse, summary="Status page", response_description="The page.")
async def page(desk: At, request: Request) -> str:
    """Hosted models, the queue, and what runs, for a person."""
    return status_page(desk, str(request.base_url))


@router.get("/v1/schema", summary="A request's form", response_description="A JSON Schema.")
async def schema() -> dict[str, Any]:
    """What the JSON at the head of a request looks like, as JSON Schema."""
    return REQUEST


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs(request: Request) -> str:
    """The API, for a person."""
    return api_page(request.app.openapi())


@router.get("/v1/models", responses=_refusals(), summary="Hosted models", response_description="What is hosted.")
async def models(desk: At, owner: Owner) -> Hosted:
    """What this server hosts."""
    seats = desk.workers.loaded()
    alone = {key: seat["bytes"] for seat in seats for key in seat["models"] if len(seat["models"]) == 1}
    loaded = {key for seat in seats for key in seat["models"]}
    queued = [key for row in desk.scheduler.queued() for key in row.models]
    return Hosted(
        version=version("workbench"),
        models=[
            ModelView(key=key, loaded=key in loaded, bytes=alone.get(key), queued=queued.count(key))
            for key in (model.key for model in desk.settings.models)
        ],
        functions=sorted({name for seat in seats for name in seat.get("functions", ())}),
    )


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=Job,
    summary="Send a job",
    response_description="Accepted, and queued.",
    responses={202: {"links": _links()}, **_refusals(404, 409, 413, 429)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {protocol.REQUEST: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def send(
    request: Request,
    desk: At,
    owner: Owner,
    x_workbench_job: Annotated[
        str | None, Header(pattern=_ID, description="An id of the client's choice; the same again is the same job.")
    ] = None,
    x_workbench_inline: Inline = None,
) -> Any:
    """A request, as packed by the client; the form of its head is at `/v1/schema`. With `Accept: text/event-stream` the
    answer is the job's news."""
    data = await _body(request, desk.limits.body)
    row = await desk.accept(x_workbench_job or uuid.uuid4().hex, owner, data)
    headers = {"Location": f"{protocol.JOBS}/{row.id}", protocol.JOB_HEADER: row.id, **_UNBUFFERED}
    if protocol.EVENTS in request.headers.get("accept", ""):
        news = desk.news(row, 0, x_workbench_inline is not None)
        return StreamingResponse(news, media_type=protocol.EVENTS, headers=headers)
    return JSONResponse(desk.view(row).model_dump(), 202, headers)


@router.get("/v1/jobs", responses=_refusals(), summary="Your jobs", response_description="The jobs.")
async def jobs(
    desk: At, owner: Owner, limit: Annotated[int, Query(ge=1, le=1000, description="How many.")] = 100
) -> list[Job]:
    """The jobs of this key, newest first."""
    return [desk.view(row) for row in desk.store.of(owner, limit)]


@router.get("/v1/jobs/{id}", responses=_refusals(404), summary="A job", response_description="The job.")
async def job(desk: At, owner: Owner, id: JobId) -> Job:
    """How a job stands."""
    return desk.view(desk.job(id, owner))


@router.get(
    "/v1/jobs/{id}/events",
    summary="A job's news",
    response_description="The events, as they come.",
    response_class=StreamingResponse,
    responses={200: {"content": {protocol.EVENTS: {"schema": _NEWS}}}, **_refusals(404)},
)
async def events(
    desk: At,
    owner: Owner,
    id: JobId,
    last_event_id: Annotated[str | None, Header(description="Only what came after this event.")] = None,
    x_workbench_inline: Inline = None,
) -> StreamingResponse:
    """Server-sent events, each an `Event`, until the job ends. `Last-Event-ID` goes on behind a cut."""
    after = int(last_event_id) if last_event_id is not None and re.fullmatch("[0-9]{1,9}", last_event_id) else 0
    news = desk.news(desk.job(id, owner), after, x_workbench_inline is not None)
    return StreamingResponse(news, media_type=protocol.EVENTS, headers=_UNBUFFERED)


@router.get(
    "/v1/jobs/{id}/result",
    summary="A job's result",
    response_description="The values.",
    response_class=FileResponse,
    responses={
        200: {"content": {protocol.OUTCOME: {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "A part, as asked for by `Range`."},
        **_refusals(404, 408, 409, 410, 413, 416, 429),
    },
)
async def result(request: Request, desk: At, owner: Owner, id: JobId) -> Response:
    """The values, whole or by `Range`; the `ETag` is the sha256 of the whole."""
    row = desk.job(id, owner)
    if row.failure is not None:
        raise HTTPException(row.failure.status, f"{row.failure.kind}: {row.failure.message}")
    if row.status != "COMPLETED":
        raise HTTPException(409, f"this job has not ended, it is {row.status}; its events tell when it has")
    path = desk.files.result(row.id)
    headers = {"ETag": f'"{row.sha256}"', "Accept-Ranges": "bytes"}
    try:
        if (row.bytes or 0) <= _SMALL and "range" not in request.headers:
            return Response(path.read_bytes(), media_type=protocol.OUTCOME, headers=headers)
        return FileResponse(path, media_type=protocol.OUTCOME, headers=headers, stat_result=path.stat())
    except FileNotFoundError:
        raise HTTPException(410, "this result was deleted; run the job again") from None


@router.delete(
    "/v1/jobs/{id}",
    responses=_refusals(404),
    summary="Cancel, or delete, a job",
    response_description="The job, as it was, or as it is now.",
)
async def delete(desk: At, owner: Owner, id: JobId) -> Job:
    """A job that has not ended is cancelled; one that has is deleted."""
    row = desk.job(id, owner)
    if row.status in protocol.ENDED:
        desk.files.drop(row.id)
        desk.store.forget([row.id])
        return desk.view(row)
    desk.scheduler.cancel(row)
    return desk.view(desk.job(id, owner))


async def _body(request: Request, most: int) -> bytes:
    """A request's body, no more of it than is allowed."""
    parts: list[bytes] = []
    total = 0
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise HTTPException(413, f"the request has {int(length):,} bytes, and {most:,} are allowed here; send less")
    async for part in request.stream():
        total += len(part)
        if total > most:
            raise HTTPException(413, f"the request has more than the {most:,} bytes that are allowed here; send less")
        parts.append(part)
    return b"".join(parts)
