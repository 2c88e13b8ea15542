"""Gateway and AsyncGateway: thin shells around the same pure request and reply functions.

What is sent and how a reply is read is decided in :class:`~airflow_video_provider.gateway.exchange.Exchange`,
which does no I/O; the two clients only move bytes. So they cannot drift apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Generator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from airflow_video_provider.gateway.balance import Ask, Balance, balance_plan
from airflow_video_provider.gateway.check import Check, check_plan
from airflow_video_provider.gateway.errors import GatewayError
from airflow_video_provider.gateway.exchange import Exchange
from airflow_video_provider.gateway.replies import (
    understand_cancel,
    understand_create,
    understand_list,
    understand_query,
)
from airflow_video_provider.gateway.request import VideoRequest
from airflow_video_provider.gateway.settings import GatewaySettings, normalise_base_url, origin_of
from airflow_video_provider.gateway.task import VideoTask
from airflow_video_provider.gateway.transport import faults, query_transport
from airflow_video_provider.gateway.wire import (
    WireRequest,
    cancel_request,
    content_request,
    create_request,
    query_request,
)
from airflow_video_provider.http_common import quiet_httpx

__all__ = ["AsyncGateway", "Gateway", "GatewaySettings", "Query", "normalise_base_url", "origin_of"]

OK = 200
MAX_KEPT = 4096
"""Bytes of a reply that are kept to compare the next one with; a usual one has 300."""

T = TypeVar("T")


class _Shell:
    """What both clients share: settings, and the exchanges to carry out."""

    def __init__(self, base_url: str | GatewaySettings, api_key: str | None = None, **more: Any) -> None:
        self.settings = (
            base_url if isinstance(base_url, GatewaySettings) else GatewaySettings(base_url, api_key, **more)
        )

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> Self:
        """Make a client from settings that are already checked."""
        return cls(settings)

    def content_url(self, video_id: str) -> str:
        """Where the gateway itself serves a finished task's bytes; to be fetched with its headers.

        :raises InvalidRequestError: the dialect has no such route.
        """
        return self.settings.base_url + content_request(self.settings.spoken, video_id).path

    def check_request(self, request: VideoRequest) -> None:
        """Check that the dialect can express a request; nothing is sent.

        :raises InvalidRequestError: naming the field.
        """
        create_request(self.settings.spoken, request)

    def _create(self, request: VideoRequest) -> Exchange[VideoTask]:
        dialect = self.settings.spoken
        return self._exchange(create_request(dialect, request), understand_create(dialect))

    def _query(self, video_id: str) -> Exchange[VideoTask]:
        ask = self._question(video_id)
        return self._exchange(ask.wire, ask.read)

    def _question(self, video_id: str) -> Ask:
        dialect = self.settings.spoken
        wire = query_request(dialect, video_id)
        content_url = self.content_url(video_id) if dialect.content_path else None
        return Ask(wire, understand_query(dialect, video_id, content_url))

    def _cancel(self, video_id: str) -> Exchange[bool]:
        return self._exchange(cancel_request(self.settings.spoken, video_id), understand_cancel(video_id))

    def _check_plan(self) -> Generator[Ask, Any, Check]:
        return check_plan(self._question, self.settings.spoken.name, has_key=bool(self.settings.api_key))

    def _list(self) -> Exchange[list[VideoTask]] | None:
        path = self.settings.spoken.list_path
        return None if path is None else self._exchange(WireRequest("GET", path), understand_list)

    def _exchange(self, wire: WireRequest, read: Callable[[Any, Mapping[str, str]], T]) -> Exchange[T]:
        return Exchange(self.settings, wire, read, clock=time.monotonic)


@dataclass(slots=True)
class Query:
    """A query of one task as it goes out, again and again, and what was answered last."""

    wire: WireRequest
    understand: Callable[[Any, Mapping[str, str]], VideoTask]
    request: httpx.Request
    answer: tuple[bytes, VideoTask] | None = None


def _chunks(reply: httpx.Response) -> AsyncIterable[bytes]:
    """The body; nearly always of one chunk and not compressed, which needs none of httpx's machinery."""
    stream = reply.stream
    if isinstance(stream, httpx.AsyncByteStream) and "content-encoding" not in reply.headers:
        return stream
    return reply.aiter_bytes()


class Gateway(_Shell):
    """A gateway, asked from ordinary code. Open for as long as it is used; close it or use ``with``.

    Parameters are those of :class:`GatewaySettings`, or one of these.
    """

    def __init__(self, base_url: str | GatewaySettings, api_key: str | None = None, **settings: Any) -> None:
        super().__init__(base_url, api_key, **settings)
        self._client = httpx.Client(**self.settings.client_options())

    def submit(self, request: VideoRequest) -> VideoTask:
        """Send one create call. It is billed, and never sent a second time from here.

        :raises InvalidRequestError: before anything is sent, for what the dialect cannot express.
        :raises GatewayError: with ``maybe_accepted`` telling whether it may have been paid for.
        """
        return self._run(self._create(request))

    def get_task(self, video_id: str) -> VideoTask:
        """Ask once how a task stands.

        :raises GatewayError: ``retryable`` tells whether to ask again.
        """
        return self._run(self._query(video_id))

    def list_tasks(self) -> list[VideoTask]:
        """List the account's newest tasks; empty where the dialect cannot.

        Source: OpenAI's Videos API, ``GET /v1/videos`` → ``{"object": "list", "data": [...]}``.

        :raises GatewayError: the gateway does not tell.
        """
        exchange = self._list()
        return [] if exchange is None else self._run(exchange)

    def cancel(self, video_id: str) -> None:
        """Cancel a task, or delete it: what the gateway makes of it differs.

        vLLM-Omni aborts the job, SGLang forgets the task and lets the job run on; whether a cancelled task is
        paid for is the gateway's affair.

        :raises InvalidRequestError: the dialect has no such route, or the gateway refused.
        :raises GatewayError: as for :meth:`get_task`; nothing is sent a second time from here.
        """
        self._run(self._cancel(video_id))

    def balance(self) -> Balance | None:
        """What is left on the account; None where the gateway has no route that says so.

        :raises GatewayError: the key or the rate was refused, or the gateway could not be reached.
        """
        return self._carry_out(balance_plan(self.settings.spoken))

    def check(self) -> Check:
        """Find out without paying whether host, path, dialect and key are right. Raises nothing."""
        return self._carry_out(self._check_plan())

    def _carry_out(self, plan: Generator[Ask, Any, T]) -> T:
        try:
            ask = next(plan)
            while True:
                try:
                    reply = self._run(self._exchange(ask.wire, ask.read))
                except GatewayError as error:
                    ask = plan.throw(error)
                else:
                    ask = plan.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result

    def _run(self, exchange: Exchange[T]) -> T:
        with quiet_httpx():
            while True:
                try:
                    reply = self._client.send(exchange.request(), stream=True)
                    with closing(reply):
                        for chunk in reply.iter_bytes():
                            exchange.receive(chunk)
                except (httpx.RequestError, httpx.InvalidURL) as error:
                    exchange.fault(error)
                if (read := exchange.read(reply.status_code, reply.headers)) is not None:
                    return read

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncGateway(_Shell):
    """A gateway, asked from an event loop. Parameters and errors are those of :class:`Gateway`."""

    def __init__(self, base_url: str | GatewaySettings, api_key: str | None = None, **settings: Any) -> None:
        super().__init__(base_url, api_key, **settings)
        self._options = self.settings.client_options()
        self._made: httpx.AsyncClient | None = None
        self._queries = query_transport(self._options["verify"], self._options["proxy"])
        self._faults = faults()
        self._closed = False

    def _open(self) -> httpx.AsyncBaseTransport:
        if self._closed:
            raise RuntimeError("the client is closed")
        return self._queries

    @property
    def _client(self) -> httpx.AsyncClient:
        """For everything but queries, of which there are thousands and seldom anything else."""
        if self._made is None:
            self._made = httpx.AsyncClient(**self._options)
        return self._made

    async def submit(self, request: VideoRequest) -> VideoTask:
        """Send one create call; see :meth:`Gateway.submit`."""
        return await self._run(self._create(request))

    async def get_task(self, video_id: str) -> VideoTask:
        """Ask once how a task stands; see :meth:`Gateway.get_task`."""
        return await self.query(self.prepare(video_id))

    def prepare(self, video_id: str) -> Query:
        """Make the query of a task, to be sent as often as the wait for it takes."""
        exchange = self._query(video_id)
        return Query(exchange.wire, exchange.understand, exchange.request())

    async def query(self, query: Query) -> VideoTask:
        """Send a query of :meth:`prepare` once; see :meth:`Gateway.get_task`."""
        exchange = self._exchange(query.wire, query.understand)
        request: httpx.Request | None = query.request
        with quiet_httpx():
            while True:
                try:
                    async with asyncio.timeout(exchange.give_up_at - time.monotonic()):
                        reply = await self._open().handle_async_request(request or exchange.request())
                        async with aclosing(reply):
                            async for chunk in _chunks(reply):
                                exchange.receive(chunk)
                except TimeoutError:
                    exchange.too_slow()
                except self._faults as error:
                    exchange.fault(error)
                content = bytes(exchange.content)
                if query.answer is not None and (reply.status_code, content) == (OK, query.answer[0]):
                    return query.answer[1]  # most of a wait's replies are the one before, word for word
                if (read := exchange.read(reply.status_code, reply.headers)) is not None:
                    kept = reply.status_code == OK and len(content) <= MAX_KEPT
                    query.answer = (content, read) if kept else None
                    return read
                request = None  # a redirect within the gateway

    async def list_tasks(self) -> list[VideoTask]:
        """List the account's newest tasks; see :meth:`Gateway.list_tasks`."""
        exchange = self._list()
        return [] if exchange is None else await self._run(exchange)

    async def cancel(self, video_id: str) -> None:
        """Cancel a task, or delete it; see :meth:`Gateway.cancel`."""
        await self._run(self._cancel(video_id))

    async def balance(self) -> Balance | None:
        """What is left on the account; see :meth:`Gateway.balance`."""
        return await self._carry_out(balance_plan(self.settings.spoken))

    async def check(self) -> Check:
        """Find out whether the settings are right; see :meth:`Gateway.check`."""
        return await self._carry_out(self._check_plan())

    async def _carry_out(self, plan: Generator[Ask, Any, T]) -> T:
        try:
            ask = next(plan)
            while True:
                try:
                    reply = await self._run(self._exchange(ask.wire, ask.read))
                except GatewayError as error:
                    ask = plan.throw(error)
                else:
                    ask = plan.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _run(self, exchange: Exchange[T]) -> T:
        with quiet_httpx():
            while True:
                try:
                    async with asyncio.timeout(exchange.give_up_at - time.monotonic()):  # headers can trickle
                        reply = await self._client.send(exchange.request(), stream=True)
                        async with aclosing(reply):
                            async for chunk in reply.aiter_bytes():
                                exchange.receive(chunk)
                except TimeoutError:
                    exchange.too_slow()
                except (httpx.RequestError, httpx.InvalidURL) as error:
                    exchange.fault(error)
                if (read := exchange.read(reply.status_code, reply.headers)) is not None:
                    return read

    async def close(self) -> None:
        """Close the connections."""
        self._closed = True
        await self._queries.aclose()
        if self._made is not None:
            await self._made.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
