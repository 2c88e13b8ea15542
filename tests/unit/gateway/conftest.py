"""A peer that answers over a real socket whatever a test wants, and both clients behind one face."""

from __future__ import annotations

import asyncio
import http.client
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import pytest

from airflow_video_provider.gateway import AsyncGateway, Gateway, VideoRequest, VideoTask, transport

KEY = "sk-test-0123456789abcdef"


@dataclass
class Received:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def every(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each.lower() == name.lower()]

    @property
    def raw(self) -> str:
        return f"{self.target}\n{self.headers}\n{self.body!r}"


class Part(Protocol):
    """Bytes after which the connection is cut, or held open until the test ends."""

    content: bytes
    hold: bool


Answer = bytes | Part | Callable[[Received], bytes]


class _Handler(socketserver.StreamRequestHandler):
    server: Peer

    def handle(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            try:
                self.request.do_handshake()
            except OSError:  # the client does not trust it
                return
        words = self.rfile.readline(65536).decode("latin-1").split()
        if len(words) != 3:
            return
        headers = http.client.parse_headers(self.rfile).items()
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        received = Received(words[0], words[1], headers, self.rfile.read(length))
        answer = self.server.next_answer(received)
        if callable(answer):
            answer = answer(received)
        content, hold = (answer, False) if isinstance(answer, bytes) else (answer.content, answer.hold)
        try:
            self.wfile.write(content)
            self.wfile.flush()
            if hold:
                self.server.released.wait(60)
        except OSError:  # the client has seen enough
            pass


class Peer(socketserver.ThreadingTCPServer):
    """A server that remembers every request and gives the answers in turn, the last one for ever."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tls = tls
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.answers = list(answers)
        self.received: list[Received] = []
        self.released = threading.Event()
        self._arrival = threading.Condition()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.server_address[1]}"

    def first(self) -> Received:
        """The first request, once it is read: a client may give up sooner."""
        with self._arrival:
            assert self._arrival.wait_for(lambda: self.received, timeout=30)
        return self.received[0]

    def next_answer(self, received: Received) -> Answer:
        with self._arrival:
            self.received.append(received)
            self._arrival.notify_all()
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """`peer(answer, ...)` starts one."""
    started: list[Peer] = []

    def start(*answers: Answer, tls: ssl.SSLContext | None = None) -> Peer:
        started.append(Peer(*answers, tls=tls).__enter__())
        return started[-1]

    yield start
    for each in started:
        each.__exit__()


@dataclass
class Client:
    """Gateway or AsyncGateway, called alike."""

    gateway: Gateway | AsyncGateway
    run: Callable[[Any], Any]

    def submit(self, request: VideoRequest) -> VideoTask:
        task = self.run(self.gateway.submit(request))
        assert isinstance(task, VideoTask)
        return task

    def get_task(self, video_id: str) -> VideoTask:
        task = self.run(self.gateway.get_task(video_id))
        assert isinstance(task, VideoTask)
        return task

    def list_tasks(self) -> list[VideoTask]:
        tasks: list[VideoTask] = self.run(self.gateway.list_tasks())
        return tasks

    def close(self) -> None:
        self.run(self.gateway.close())


@dataclass
class Opener:
    """Makes clients of one kind, and closes them."""

    kind: type[Gateway] | type[AsyncGateway]
    run: Callable[[Any], Any]
    repeats: bool = False
    """Whether a query whose connection breaks before a reply is sent once more: aiohttp does."""
    opened: list[Client] = field(default_factory=list)

    def __call__(self, base_url: str, api_key: str | None = KEY, **settings: Any) -> Client:
        # Loading the CA certificates is most of what making a client costs.
        settings.setdefault("verify", False)
        self.opened.append(Client(self.kind(base_url, api_key, **settings), self.run))
        return self.opened[-1]


@pytest.fixture(params=["sync", "async", "async without aiohttp"])
def connect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """`connect(url, key, **settings)`: each test runs with all clients, so that they cannot differ."""
    assert transport.is_fast(), "the extra `fast` belongs to the test environment"
    monkeypatch.setattr(transport, "is_fast", lambda: request.param == "async")
    kind = Gateway if request.param == "sync" else AsyncGateway
    with asyncio.Runner() as loop:
        run = (lambda value: value) if kind is Gateway else loop.run
        opener = Opener(kind, run, repeats=request.param == "async")
        yield opener
        for client in opener.opened:
            client.close()
