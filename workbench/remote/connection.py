"""Connection: requests to one server, made again behind a cut, so that what was begun is finished."""

from __future__ import annotations

import hashlib
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx

from workbench.errors import RemoteError
from workbench.remote import protocol
from workbench.remote.config import CONFIG, address
from workbench.remote.protocol import Event, Hosted, Job

_CUT = (httpx.TransportError,)
_UNREACHED = (httpx.ConnectError, httpx.ConnectTimeout)


class Connection:
    """One server.

    Args:
        host: its address.
        key: the key that is shown.
        patience: seconds for which a server that was there, and does not answer, is asked again.
    """

    def __init__(self, host: str, key: str | None = None, patience: float = 120.0) -> None:
        self.host = address(host)
        self.patience = patience
        headers = {protocol.HEADER: str(protocol.VERSION)} | ({"Authorization": f"Bearer {key}"} if key else {})
        timeout = httpx.Timeout(60.0, connect=10.0)
        self._http = httpx.Client(base_url=self.host, headers=headers, timeout=timeout, trust_env=False)
        self._met = False

    # ---- what a server is asked

    def hosted(self) -> Hosted:
        """What it hosts."""
        return Hosted.model_validate_json(self._ask("GET", protocol.MODELS).content)

    def jobs(self) -> list[Job]:
        """This key's jobs, newest first."""
        return [Job.model_validate(each) for each in self._ask("GET", protocol.JOBS).json()]

    def job(self, id: str) -> Job:
        """How a job stands."""
        return Job.model_validate_json(self._ask("GET", f"{protocol.JOBS}/{id}").content)

    def cancel(self, id: str) -> Job:
        """End a job, or delete what one that has ended left."""
        return Job.model_validate_json(self._ask("DELETE", f"{protocol.JOBS}/{id}").content)

    def send(self, data: bytes, id: str) -> Job:
        """Send a job, and wait for nothing."""
        headers = {protocol.JOB_HEADER: id, "Content-Type": protocol.REQUEST}
        return Job.model_validate_json(self._ask("POST", protocol.JOBS, content=data, headers=headers).content)

    def follow(
        self, id: str, data: bytes | None = None, after: int = 0, take: Callable[[bytes], None] | None = None
    ) -> Iterator[Event]:
        """A job's news until it ends. With `data` the job is sent first, and its news are the answer to that.

        With `take` a small result may come with them, and is given to it.
        """
        more = {} if take is None else {protocol.INLINE_HEADER: "yes"}
        asked = {"Accept": protocol.EVENTS, protocol.JOB_HEADER: id, "Content-Type": protocol.REQUEST, **more}
        give_up = _Patience(self)
        ended = False
        while True:
            sending = data is not None and not after
            try:
                if sending:
                    request = self._http.stream("POST", protocol.JOBS, content=data, headers=asked)
                else:
                    headers = {"Last-Event-ID": str(after), "Accept": protocol.EVENTS, **more}
                    request = self._http.stream("GET", f"{protocol.JOBS}/{id}/events", headers=headers)
                with request as answer:
                    self._look(answer)
                    for event in _events(answer.iter_bytes(), take):
                        give_up.again()
                        after = max(after, event.number)
                        ended = event.status in protocol.ENDED
                        yield event
                if ended:  # and the stream with it, so that its connection can be used again
                    return
            except _CUT as cut:
                if ended:
                    return
                give_up.wait(cut, after > 0)
            else:
                give_up.wait(None, True)

    def fetch(self, id: str, progress: Callable[[int, int], None] = lambda done, total: None) -> bytearray:
        """A job's result, gone on with behind a cut, and proved by its checksum. `progress(bytes, total)` is told."""
        for _ in range(2):
            data, came, checksum = self._fetch(id, progress)
            if not checksum or came == checksum:
                return data
        raise RemoteError(f"the result of job {id} came over damaged, twice; ask for it again with remote.job({id!r})")

    def _fetch(self, id: str, progress: Callable[[int, int], None]) -> tuple[bytearray, str, str]:
        """The bytes, their sha256, which is worked out while they come, and what it should be."""
        data, digest = bytearray(), hashlib.sha256()
        checksum = ""
        give_up = _Patience(self)
        while True:
            headers = {"Accept-Encoding": "identity"}
            if data:
                headers |= {"Range": f"bytes={len(data)}-", "If-Range": f'"{checksum}"'}
            try:
                with self._http.stream("GET", f"{protocol.JOBS}/{id}/result", headers=headers) as answer:
                    self._look(answer)
                    if answer.status_code != 206:
                        data.clear()
                        digest = hashlib.sha256()
                    checksum = answer.headers.get("ETag", "").strip('"')
                    total = len(data) + int(answer.headers.get("Content-Length", 0))
                    for part in answer.iter_raw():
                        give_up.again()
                        data += part
                        digest.update(part)
                        progress(len(data), total)
                if len(data) >= total:
                    return data, digest.hexdigest(), checksum
            except _CUT as cut:
                give_up.wait(cut, True)

    # ---- how

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        give_up = _Patience(self)
        while True:
            try:
                answer = self._http.request(method, path, **more)
            except _CUT as cut:
                give_up.wait(cut, False)
                continue
            self._look(answer)
            return answer

    def _look(self, answer: httpx.Response) -> None:
        """Raise what a server says in words."""
        self._met = True
        if answer.status_code < 400:
            why = protocol.mismatch(answer.headers.get(protocol.HEADER), "client")
            if why is not None or protocol.HEADER not in answer.headers:
                raise RemoteError(f"{self.host}: {why or 'this is no workbench server; see CONFIG.API.HOST'}")
            return
        answer.read()
        try:
            said = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            said = f"the server answered {answer.status_code} {answer.reason_phrase}"
        raise RemoteError(str(said), answer.status_code)

    def close(self) -> None:
        """Close what is open."""
        self._http.close()


class _Patience:
    """For how long a server that does not answer is asked again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._since: float | None = None
        self._pause = 0.05

    def again(self) -> None:
        """It answers."""
        self._since, self._pause = None, 0.05

    def wait(self, cut: Exception | None, begun: bool) -> None:
        """Wait a moment, or give up. A server that was never met is not waited for."""
        it = self._connection
        if isinstance(cut, _UNREACHED) and not begun and not it._met:
            raise RemoteError(
                f"no server answers at {it.host} ({cut}); start one with `workbench serve MODEL`, or name another: "
                'workbench.CONFIG.API.HOST = "http://…"'
            ) from cut
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > it.patience:
            raise RemoteError(
                f"{it.host} has not answered for {it.patience:.0f} seconds ({cut}); the job, if it was accepted, goes "
                "on there: workbench.remote.job(id)"
            ) from cut
        time.sleep(self._pause)
        self._pause = min(1.0, self._pause * 2)


def _events(parts: Iterator[bytes], take: Callable[[bytes], None] | None) -> Iterator[Event]:
    """The events of a stream: of most only `data:` is read, since each event carries its own number."""
    rest = b""
    for part in parts:
        rest += part
        *whole, rest = rest.split(b"\n\n")
        for block in whole:
            lines = block.split(b"\n")
            data = b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
            if b"event: result" in lines:
                checksum, _, text = data.partition(b" ")
                result = b64decode(text)
                if take is not None and hashlib.sha256(result).hexdigest().encode() == checksum:
                    take(result)
            elif data:
                yield Event.model_validate_json(data)


_kept: dict[tuple[str, str | None], Connection] = {}
_lock = threading.Lock()


def connection(where: bool | str | None = None) -> Connection:
    """The connection to a server, kept open: the one that CONFIG names, or another."""
    host = address(where) if isinstance(where, str) else address(CONFIG.API.HOST)
    key = CONFIG.API.APIKEY
    with _lock:
        found = _kept.get((host, key))
        if found is None:
            found = _kept[host, key] = Connection(host, key)
        return found


def close_all() -> None:
    """Close all kept connections."""
    with _lock:
        for each in _kept.values():
            with suppress(Exception):
                each.close()
        _kept.clear()
