"""A real TCP server that serves one file, and breaks its word exactly when told to.

Each request takes the next :class:`Fault` of the script; when the script is over, the last entry of
``forever`` applies, and without one the server behaves. Nothing here sleeps: a stalled answer ends when the
client hangs up.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """One way to misbehave. ``at`` counts the bytes of the body that are still sent properly."""

    kind: str
    at: int = 0
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


FINE = Fault("fine")


def reset(at: int) -> Fault:
    return Fault("reset", at)


def cut(at: int) -> Fault:
    """End the connection politely before the announced length is reached."""
    return Fault("cut", at)


def stall(at: int) -> Fault:
    return Fault("stall", at)


def trickle(at: int) -> Fault:
    """Send the rest byte by byte, each only when the one before has long been taken."""
    return Fault("trickle", at)


def answer(status: int, body: bytes = b"", **headers: str) -> Fault:
    return Fault(
        "answer",
        status=status,
        body=body,
        headers=tuple((k.replace("_", "-"), v) for k, v in headers.items()),
    )


@dataclass
class Seen:
    """One request as it arrived."""

    target: str
    headers: dict[str, str]
    local_address: str


@dataclass
class Misbehaving:
    """The server. Use as a context manager.

    :param content: the file.
    :param script: faults of the first requests, one each.
    :param forever: the fault of every request after them.
    :param etag: the version; None sends none.
    """

    content: bytes
    script: Iterable[Fault] = ()
    forever: Fault = FINE
    etag: str | None = '"v1"'
    ranges: bool = True
    host: str = "127.0.0.1"
    content_type: str = "video/mp4"
    more_headers: dict[str, str] = field(default_factory=dict)
    on_sent: Callable[[int], None] | None = None
    next_version: bytes | None = None
    answers: Callable[[Seen], Fault | None] | None = None
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._script = list(self.script)
        self.seen: list[Seen] = []
        self._lock = threading.Lock()
        self._rotations = itertools.count(1)
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self.sent = 0
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]

    @property
    def base(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.base}/clip.mp4"

    def __enter__(self) -> Misbehaving:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.tls is not None:
                plain, connection = connection, self.tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._sockets.discard(plain)
                    self._sockets.add(connection)
            with connection, connection.makefile("rb") as reader:
                while self._one(connection, reader):
                    pass
        except OSError:
            pass
        finally:
            with self._lock:
                self._sockets.discard(connection)

    def _one(self, connection: socket.socket, reader) -> bool:
        line = reader.readline().decode("latin-1").split()
        if len(line) < 2:
            return False
        headers = {}
        while (entry := reader.readline().decode("latin-1").strip()) != "":
            name, _, value = entry.partition(":")
            headers[name.lower()] = value.strip()
        seen = Seen(line[1], headers, connection.getsockname()[0])
        with self._lock:
            self.seen.append(seen)
            told = self.answers(seen) if self.answers is not None else None
            fault = told or (self._script.pop(0) if self._script else self.forever)
            if fault.kind == "new_version" and self.next_version is not None:
                self.content, self.etag, self.next_version = self.next_version, '"v2"', None
                fault = FINE
        return (self._answer if fault.kind == "answer" else self._body)(connection, headers, fault)

    # ------------------------------------------------------------ answers

    def _answer(self, connection: socket.socket, headers: dict[str, str], fault: Fault) -> bool:
        told = [("Content-Length", str(len(fault.body))), *fault.headers]
        self._head(connection, fault.status, told)
        connection.sendall(fault.body)
        return True

    def _head(self, connection: socket.socket, status: int, headers: list[tuple[str, str]]) -> None:
        text = "".join(f"{name}: {value}\r\n" for name, value in headers)
        connection.sendall(f"HTTP/1.1 {status} Some\r\n{text}\r\n".encode("latin-1"))

    def _body(self, connection: socket.socket, headers: dict[str, str], fault: Fault) -> bool:
        content, kind = self.content, fault.kind
        begin, end, status = 0, len(content), 200
        etag = f'"r{next(self._rotations)}"' if kind == "rotating" else self.etag
        wanted = headers.get("range", "")
        honours = self.ranges and kind not in ("ignore_range", "no_length", "chunked", "chunked_cut", "gzip")
        if wanted.startswith("bytes=") and honours and headers.get("if-range") in (None, etag):
            first, _, last = wanted[6:].partition("-")
            begin, end, status = int(first), min(int(last) + 1 if last else end, end), 206
            if begin >= len(content):
                return self._answer(connection, headers, answer(416, Content_Range=f"bytes */{len(content)}"))
        body = content[begin:end]
        told = [("Content-Type", self.content_type), *self.more_headers.items()]
        if etag is not None:
            told.append(("ETag", '"other"' if kind == "other_etag" else etag))
        if kind == "never_tells" and status == 200:
            status = 206
        if status == 206:
            shift = 7 if kind == "wrong_range" and len(body) > 8 else 0
            total = "*" if kind == "never_tells" else len(content)
            told.append(("Content-Range", f"bytes {begin + shift}-{end - 1}/{total}"))
        if kind == "gzip":
            body = gzip.compress(body)
            told.append(("Content-Encoding", "gzip"))
        if kind in ("chunked", "chunked_cut"):
            told.append(("Transfer-Encoding", "chunked"))
            self._head(connection, status, told)
            return self._chunked(connection, body, fault)
        if kind == "no_length":
            told.append(("Connection", "close"))
        else:
            told.append(("Content-Length", str(len(body))))
        self._head(connection, status, told)
        return self._stream(connection, body, fault)

    def _chunked(self, connection: socket.socket, body: bytes, fault: Fault) -> bool:
        stop = min(fault.at, len(body)) if fault.kind == "chunked_cut" else len(body)
        for start in range(0, stop, 65536):
            piece = body[start : min(start + 65536, stop)]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if fault.kind == "chunked_cut":
            return False
        connection.sendall(b"0\r\n\r\n")
        return True

    def _stream(self, connection: socket.socket, body: bytes, fault: Fault) -> bool:
        kind = fault.kind
        stops = kind in ("reset", "cut", "stall", "trickle", "rotating")
        self._send(connection, body[: fault.at] if stops else body)
        if kind == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if kind in ("cut", "no_length", "rotating"):
            return False
        if kind == "stall":
            connection.recv(1)  # returns when the client has hung up
            return False
        if kind == "trickle":
            connection.settimeout(0.02)
            for position in range(fault.at, len(body)):
                self._send(connection, body[position : position + 1])
                with contextlib.suppress(TimeoutError):
                    if connection.recv(1) == b"":
                        return False
            return False
        if kind == "longer":
            connection.sendall(b"and some more that nobody announced")
            return False
        return True

    def _send(self, connection: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), 65536):
            piece = view[start : start + 65536]
            connection.sendall(piece)
            with self._lock:
                self.sent += len(piece)
                sent = self.sent
            if self.on_sent is not None:
                self.on_sent(sent)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
