"""Real sockets: the gateway on one port, and its CDN on a second one if asked for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_video_provider.sandbox.app import create_app, create_cdn_app
from airflow_video_provider.sandbox.serving import HANG_UP
from airflow_video_provider.sandbox.settings import Settings

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept, as nginx does: pollers that keep theirs find it open."""


class _Server(uvicorn.Server):
    """Says when it is listening, and leaves the signals alone: two servers may run in one process, and
    one handler stops both."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp, listening: Callable[[], None], *, verbose: bool) -> _Server:
    open_connections: dict[Any, asyncio.Transport] = {}

    class Protocol(H11Protocol):
        """Remembers its connection by the caller's address, so that a fault can close it."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            open_connections[transport.get_extra_info("peername")[:2]] = transport
            # Head and body are two writes; without this the second waits 40 ms for the first one's receipt.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            open_connections.pop(self.transport.get_extra_info("peername")[:2], None)
            super().connection_lost(exc)

    async def droppable(scope: Scope, receive: Receive, send: Send) -> None:
        transport = open_connections.get(tuple(scope.get("client") or ()))
        if transport is not None:
            scope[HANG_UP] = transport.close
        await app(scope, receive, send)

    config = uvicorn.Config(
        droppable,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_level="info" if verbose else "warning",
        access_log=verbose,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    return _Server(config, listening)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    :raises OSError: when the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024, reuse_port=False)


def origin(host: str, listening: socket.socket) -> str:
    """The origin under which a socket is reached."""
    port: int = listening.getsockname()[1]
    # "Every address" is nowhere to call.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"


async def run(
    settings: Settings,
    *,
    host: str,
    port: int,
    cdn_port: int | None,
    verbose: bool,
    ready: Callable[[str, str], None],
) -> None:
    """Serves until SIGINT or SIGTERM.

    :param ready: called once, with the origins of the gateway and of the CDN ("" when that has none of
        its own), as soon as both are really listening.
    """
    sockets = [listen(host, port)]
    here, cdn = origin(host, sockets[0]), ""
    if cdn_port is not None:
        sockets.append(listen(host, cdn_port))
        cdn = origin(host, sockets[1])
        settings = replace(settings, cdn_origin=cdn)
    app = create_app(settings)
    apps: list[ASGIApp] = [app, create_cdn_app(app)] if cdn else [app]

    def listening() -> None:
        if all(server.started for server in servers):
            ready(here, cdn)

    servers = [_server(each, listening, verbose=verbose) for each in apps]

    def stop(*_: object) -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    await asyncio.gather(
        *(server.serve(sockets=[each]) for server, each in zip(servers, sockets, strict=True))
    )


def serve_forever(settings: Settings, **options: Any) -> None:
    """``run`` in an event loop of its own."""
    asyncio.run(run(settings, **options))
