"""A sandbox in process, with a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.types import ASGIApp

from airflow_video_provider.sandbox.app import create_app
from airflow_video_provider.sandbox.settings import Settings

KEY = "sandbox-key"
SECONDS = 20.0

ROUTES = {
    "unified": ("/v1/video/create", "/v1/video/query?id={}"),
    "openai": ("/v1/videos", "/v1/videos/{}"),
    "newapi": ("/v1/video/generations", "/v1/video/generations/{}"),
}


@dataclass
class Clock:
    now: float = 1_770_350_082.0

    def __call__(self) -> float:
        return self.now


class InProcess(httpx.BaseTransport):
    """httpx's own ASGI transport, for a client that does not await."""

    def __init__(self, app: ASGIApp, runner: asyncio.Runner) -> None:
        self._asgi, self._runner = httpx.ASGITransport(app), runner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._runner.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        sent = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        reply = await self._asgi.handle_async_request(sent)
        body = httpx.ByteStream(await reply.aread())
        return httpx.Response(reply.status_code, headers=reply.headers, stream=body)


class Desk:
    """A caller with a key, and a hand on the sandbox's clock."""

    def __init__(self, runner: asyncio.Runner, **settings: Any) -> None:
        self.clock = Clock()
        self.prefix = settings.get("prefix", "")
        self.app = create_app(Settings(seed="tests", seconds=SECONDS, **settings), clock=self.clock)
        transport = InProcess(self.app, runner)
        self.client = httpx.Client(
            transport=transport,
            base_url="http://gateway.test",
            headers={"Authorization": f"Bearer {KEY}"},
            trust_env=False,
        )
        self.stranger = httpx.Client(transport=transport, base_url="http://gateway.test", trust_env=False)

    def create(self, dialect: str = "unified", **body: Any) -> httpx.Response:
        body = {"model": "veo3.1-fast", "prompt": "a cat", **body}
        return self.client.post(self.prefix + ROUTES[dialect][0], json=body)

    def submit(self, dialect: str = "unified", **body: Any) -> str:
        """An accepted create call; the id, from the ledger: replies have it in many places."""
        reply = self.create(dialect, **body)
        assert reply.status_code in (200, 201, 202), reply.text
        video_id = self.payments()[-1]["video_id"]
        assert video_id in reply.text
        return str(video_id)

    def ask(self, video_id: str, dialect: str = "unified") -> httpx.Response:
        return self.client.get(self.prefix + ROUTES[dialect][1].format(quote(video_id, safe="")))

    def content(self, video_id: str) -> httpx.Response:
        return self.client.get(f"{self.prefix}/v1/videos/{quote(video_id, safe='')}/content")

    def told(self, video_id: str, dialect: str = "unified") -> dict[str, Any]:
        reply = self.ask(video_id, dialect)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def wait(self, share: float = 1.0) -> None:
        """Lets this share of the generation time pass."""
        self.clock.now += SECONDS * share

    def finished(self, dialect: str = "unified", **body: Any) -> tuple[str, dict[str, Any]]:
        video_id = self.submit(dialect, **body)
        self.wait()
        return video_id, self.told(video_id, dialect)

    def fetch(self, url: str, **headers: str) -> httpx.Response:
        """From the CDN, as it should be: without a key."""
        return self.stranger.get(url, headers=headers)

    def payments(self) -> list[dict[str, Any]]:
        return list(self.stranger.get("/sandbox/payments").json()["payments"])


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def make_desk(runner: asyncio.Runner) -> Callable[..., Desk]:
    return partial(Desk, runner)


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()
