"""Answers: what all answers of a server have in common: the version they are of, and a sentence where they refuse."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from workbench.remote import protocol


async def refused(request: Request, error: Any) -> JSONResponse:
    """The answer to what was refused by raising."""
    said = error.detail
    if said == HTTPStatus(error.status_code).phrase:  # the framework's own: no sentence yet
        if error.status_code == 404:
            said = f"there is nothing at {request.url.path[:200]}; what there is stands at /docs"
        elif error.status_code == 405:
            said = f"{request.method} is not for {request.url.path[:200]}; what is stands at /docs"
    return JSONResponse({"error": said}, error.status_code, error.headers)


async def invalid(request: Request, error: Any) -> JSONResponse:
    """The answer to a parameter that is none."""
    first = error.errors()[0]
    return JSONResponse({"error": f"{' '.join(map(str, first['loc']))}: {first['msg']}"}, 422)


_UNSAID = {400: "this was not understood", 416: "the result has no such bytes; its size is in Content-Range"}


class Told:
    """Says in each answer which version of the protocol it is of, and puts a refusal that is bare text into words."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._header = (protocol.HEADER.lower().encode(), str(protocol.VERSION).encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: list[Any] = []

        async def tell(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), self._header]}
                if message["status"] >= 400 and _kind(message) != b"application/json":
                    held.append(message)
                    return
            elif held and message["type"] == "http.response.body":
                held.append(message.get("body", b""))
                if message.get("more_body", False):
                    return
                start, *parts = held
                held.clear()
                said = b"".join(parts).decode(errors="replace") or _UNSAID.get(start["status"], "this was refused")
                body = json.dumps({"error": said}).encode()
                kept = [each for each in start["headers"] if each[0] not in (b"content-type", b"content-length")]
                about = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
                await send({**start, "headers": [*kept, *about]})
                message = {"type": "http.response.body", "body": body}
            await send(message)

        await self._app(scope, receive, tell)


def _kind(message: Any) -> bytes:
    return dict(message["headers"]).get(b"content-type", b"").partition(b";")[0]
