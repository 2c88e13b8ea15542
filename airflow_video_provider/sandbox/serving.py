"""Bytes over HTTP: ranges and validators as a CDN has them, and connections that break on request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

HANG_UP = "sandbox.hang_up"
"""Key in the ASGI scope under which ``server`` leaves a function that closes the connection."""

CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Blob:
    """A file: its bytes, and a padding that costs no memory.

    The padding is a ``free`` box, which players skip: the file stays a whole MP4 at any size.
    """

    data: bytes
    padding: int = 0

    def __len__(self) -> int:
        return len(self.data) + self.padding

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from ``start`` up to ``stop``, in pieces."""
        while start < stop:
            end = min(stop, start + CHUNK)
            piece = self.data[start:end]
            yield piece + bytes(end - start - len(piece))
            start = end


def padded(data: bytes, padding: int) -> Blob:
    """``data`` followed by a ``free`` box of ``padding`` bytes (8 up to 4 GiB; less is none)."""
    if padding < 8:
        return Blob(data)
    padding = min(padding, 2**32 - 1)
    return Blob(data + padding.to_bytes(4, "big") + b"free", padding - 8)


@dataclass(frozen=True, slots=True)
class Served:
    """How a file is served.

    :param stop_after: send only this share of the body, then close the connection; ``None``: all.
    :param spread: seconds over which the body drips; 0: at once.
    """

    blob: Blob
    etag: str
    media_type: str
    modified: float
    ranges: bool = True
    length: bool = True
    stop_after: float | None = None
    spread: float = 0.0


_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """(start, stop) of a ``Range`` header, or ``None`` when it is to be ignored: several ranges, another
    unit, nonsense.

    :raises ValueError: when the range cannot be satisfied (416).
    """
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
        if match[2] and int(match[2]) < start:
            return None
    if start >= stop:
        raise ValueError(header)
    return start, stop


def _if_range_holds(value: str, etag: str, modified: float) -> bool:
    if not value or value == etag:
        return True
    try:
        return parsedate_to_datetime(value).timestamp() >= int(modified)
    except ValueError:
        return False


def serve(request: Request, served: Served) -> Response:
    """The reply to a GET or HEAD for a file."""
    size = len(served.blob)
    headers = {
        "content-type": served.media_type,
        "etag": served.etag,
        "last-modified": formatdate(served.modified, usegmt=True),
        "accept-ranges": "bytes" if served.ranges else "none",
        "cache-control": "private, max-age=60",
    }
    status, start, stop = 200, 0, size
    wanted = request.headers.get("range") if served.ranges and request.method == "GET" else None
    if wanted and _if_range_holds(request.headers.get("if-range", ""), served.etag, served.modified):
        try:
            found = byte_range(wanted, size)
        except ValueError:
            return Response(status_code=416, headers=headers | {"content-range": f"bytes */{size}"})
        if found:
            status, (start, stop) = 206, found
            headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    if served.length:
        headers["content-length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if served.stop_after is not None:
        cut = start + int((stop - start) * served.stop_after)
        return Cut(_drip(served, start, cut), status_code=status, headers=headers)
    return StreamingResponse(_drip(served, start, stop), status_code=status, headers=headers)


async def _drip(served: Served, start: int, stop: int) -> AsyncIterator[bytes]:
    if not served.spread:
        for chunk in served.blob.chunks(start, stop):
            yield chunk
        return
    steps = max(1, round(served.spread / 0.05))
    size = max(1, -(-(stop - start) // steps))
    for begin in range(start, stop, size):
        for chunk in served.blob.chunks(begin, min(stop, begin + size)):
            yield chunk
        await asyncio.sleep(served.spread / steps)


class Cut(StreamingResponse):
    """A body that ends before its Content-Length says so."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await hang_up(scope, receive)


class Drop(Response):
    """No reply at all: the connection closes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await hang_up(scope, receive)


class Hang(Response):
    """A reply that is late: after so many seconds, unless the caller is gone by then."""

    def __init__(self, seconds: float, reply: Response) -> None:
        super().__init__()
        self._seconds, self._reply = seconds, reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await _until_gone(receive)
        except TimeoutError:
            await self._reply(scope, receive, send)


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Closes the connection of a request after what was sent already.

    :raises ConnectionResetError: in process, where there is no connection: that is how an ASGI
        transport for tests can show it.
    """
    close: Callable[[], None] | None = scope.get(HANG_UP)
    if close is None:
        raise ConnectionResetError("the sandbox dropped the connection")
    close()
    # A server takes a handler that returns without a reply for a bug, unless the caller is gone.
    await _until_gone(receive)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
