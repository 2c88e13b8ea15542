"""What goes wrong while a trigger waits: nothing that was paid is reported failed because of it."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from airflow_video_provider.gateway import transport
from airflow_video_provider.gateway.pace import HEADROOM, MOST_CONNECTIONS, UNSPREAD
from airflow_video_provider.triggers.video import VideoTaskTrigger
from tests.airflow.support import events_of

MIB = 2**20
ID = "veo3.1-fast:1770350082-trii1OXZc3"
RUNNING = {"id": ID, "status": "processing"}
READY = {"id": ID, "status": "completed", "video_url": "https://cdn.example/v.mp4"}

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(
    params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["aiohttp", "httpcore"], autouse=True
)
def transport_in_use(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "is_fast", lambda: request.param)


def whole(body: object, status: int = 200) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        await writer.drain()

    return answer


async def dripping(writer: asyncio.StreamWriter) -> None:
    """A header now and then, for ever."""
    writer.write(b"HTTP/1.1 200 X\r\n")
    while not writer.is_closing():
        writer.write(b"X-More: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(answer: Callable[[], Answer], tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server on the loop of the waits; each reply is what *answer* says then."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await answer()(writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def in_turn(*answers: Answer) -> Callable[[], Answer]:
    """The answers in their order, the last one for ever."""
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The one event of a trigger, from a gateway at some address."""

    async def waiting(url: str, *, extra: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        made = {"conn_type": "video_gateway", "host": url, "password": "sk-1", "extra": {**(extra or {})}}
        monkeypatch.setenv("AIRFLOW_CONN_VIDEO_FAULTY", json.dumps(made))
        settings = {"poll_interval": 0.05, "max_poll_interval": 0.2, "schedule": "fixed", **more}
        trigger = VideoTaskTrigger(video_conn_id="video_faulty", video_id=ID, **settings)
        (event,) = await events_of(trigger)
        return event

    return waiting


Wait = Callable[..., Awaitable[dict[str, Any]]]


@pytest.mark.parametrize(
    "answer",
    [
        whole(b"<html>Just a moment...</html>"),
        whole(b'{"padding": "' + b"x" * (5 * MIB) + b'"}'),
        whole({"error": {"message": "overloaded"}}, 503),
        dripping,
    ],
    ids=["HTML with 200", "over 4 MiB", "503", "slow loris"],
)
def test_a_reply_that_is_none_is_asked_for_again(wait: Wait, answer: Answer) -> None:
    async def scenario() -> dict[str, Any]:
        async with serving(in_turn(answer, answer, whole(RUNNING), whole(READY))) as url:
            return await wait(url, extra={"timeout": 0.5})

    assert asyncio.run(scenario())["end"] == "succeeded"


def test_a_name_that_does_not_resolve_is_an_outage(wait: Wait) -> None:
    event = asyncio.run(wait("http://no-such-host.invalid", unreachable_after=0.5))
    assert event["end"] == "unreachable"
    assert "The task was left as it is at the gateway" in event["message"]


def test_a_certificate_that_is_not_trusted_ends_the_wait_and_says_so(wait: Wait, tls: ssl.SSLContext) -> None:
    async def scenario() -> dict[str, Any]:
        async with serving(in_turn(whole(READY)), tls) as url:
            return await wait(url)

    event = asyncio.run(scenario())
    assert (event["end"], event["error_kind"]) == ("refused", "transport")
    assert "is not trusted" in event["message"]
    assert "verify" in event["message"]
    assert "the task itself goes on" in event["message"]


def test_a_gateway_that_was_down_is_not_stormed_when_it_is_back(wait: Wait) -> None:
    """A hundred waits, all of which have become due meanwhile."""
    waits, interval = 100, 1.0
    asked: list[float] = []
    states = {"down": True}

    def answer() -> Answer:
        if states["down"]:
            return whole({"error": {"message": "bad gateway"}}, 502)
        asked.append(time.monotonic())
        return whole(READY if len(asked) > 3 * waits else RUNNING)

    async def scenario() -> list[dict[str, Any]]:
        async with serving(answer) as url:
            running = [
                asyncio.create_task(wait(url, poll_interval=interval, max_poll_interval=2.0))
                for _ in range(waits)
            ]
            await asyncio.sleep(3)
            states["down"] = False
            return await asyncio.gather(*running)

    assert {event["end"] for event in asyncio.run(scenario())} == {"succeeded"}
    most = max(sum(begin <= at < begin + 1 for at in asked) for begin in asked)
    # What had been let go and was held up on the way may come together.
    assert most <= waits / interval * HEADROOM + UNSPREAD + 2 * MOST_CONNECTIONS
