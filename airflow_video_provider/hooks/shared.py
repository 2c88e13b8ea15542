"""One client, one gate and one look-up for all waits of a connection on one event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_video_provider import metrics
from airflow_video_provider.gateway.durations import History
from airflow_video_provider.gateway.errors import (
    AuthenticationError,
    GatewayError,
    InvalidRequestError,
    RateLimitError,
)
from airflow_video_provider.gateway.pace import Gate
from airflow_video_provider.gateway.turns import NoTurn, Turns
from airflow_video_provider.gateway.verdict import Done, Verdict, Wait
from airflow_video_provider.gateway.watch import watch_for
from airflow_video_provider.hooks.connection import named, settings_from_connection

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_video_provider.gateway.client import AsyncGateway, GatewaySettings, Query
    from airflow_video_provider.gateway.task import VideoTask
    from airflow_video_provider.gateway.watch import TaskWatch

__all__ = ["HISTORY", "SharedGateway", "Waiting", "learn", "shared_gateway", "waiting_at", "watch_at"]

log = logging.getLogger(__name__)

HISTORY = History()
"""The generation times that this process has seen."""

#: Seconds after which a connection is read again, so that a changed key reaches the waits that run.
REFRESH = 60.0
#: The same at the least, where the gateway does not accept the key: it may be a new one by now.
REFRESH_OF_A_BAD_KEY = 5.0
#: Seconds between the attempts to look a connection up where a secrets backend or an API server fails.
LOOK_UP_AGAIN_AFTER = (1.0, 4.0, 15.0, 40.0)
#: Seconds for which, after a query's deadline, nobody may have got through the gate before it is given up.
GRACE = 60.0
OVERLOADED = 503


def watch_at(video_conn_id: str, settings: GatewaySettings, video_id: str, **more: Any) -> TaskWatch:
    """A watch as a connection wants it, which expects what this process has seen there."""
    return watch_for(settings, partial(HISTORY.expected, video_conn_id), video_id, **more)


def learn(video_conn_id: str, watch: TaskWatch) -> None:
    """Remember how long the video of a wait took, once it is over and that can be told."""
    if watch.took is not None and watch.task is not None:
        HISTORY.note(video_conn_id, watch.model or watch.task.model, watch.took)


class Waiting:
    """One wait: its decisions, its query, and its share of what the gate expects.

    :param watch: the decision core.
    """

    __slots__ = ("_client", "_query", "_share", "watch")

    def __init__(self, watch: TaskWatch) -> None:
        self.watch = watch
        self._client: AsyncGateway | None = None
        self._query: Query | None = None
        self._share = 0.0

    def expects(self, gate: Gate, seconds: float) -> None:
        """Tell the gate in how many seconds the next query becomes due."""
        share = 1 / max(seconds, 0.1)
        gate.expect(share - self._share)
        self._share = share

    def leave(self, gate: Gate) -> None:
        """Take the share back after one more interval.

        Those that stand behind it in the queue were to go out at the rate that it was part of: where all of a
        thousand videos have ended, each end would slow down the others.
        """
        if self._share:
            asyncio.get_running_loop().call_later(1 / self._share, gate.expect, -self._share)

    def prepared(self, client: AsyncGateway) -> Query:
        """The query, made once for each client: a changed connection makes another."""
        if self._query is None or self._client is not client:
            self._client, self._query = client, client.prepare(self.watch.video_id)
        return self._query


def _is_too_much(error: GatewayError) -> bool:
    return isinstance(error, RateLimitError) or error.status_code == OVERLOADED


class SharedGateway:
    """What all users of a connection on one event loop share.

    Made by :func:`shared_gateway`.
    """

    def __init__(self, video_conn_id: str) -> None:
        self.video_conn_id = video_conn_id
        self.users = 0
        self.turns = Turns(Gate())
        self._client: AsyncGateway | None = None
        self._in_use: dict[AsyncGateway, int] = {}
        self._loaded_at = -math.inf
        self._loading: asyncio.Task[None] | None = None

    @property
    def settings(self) -> GatewaySettings:
        """Those of the client that is in use now."""
        return self._current().settings

    def watch(self, video_id: str, **more: Any) -> TaskWatch:
        """A watch as this connection wants it; see ``gateway.watch.watch_for``."""
        return watch_at(self.video_conn_id, self.settings, video_id, **more)

    @contextmanager
    def client(self) -> Iterator[AsyncGateway]:
        """The client, which is not closed for as long as the block runs."""
        client = self._current()
        self._in_use[client] = self._in_use.get(client, 0) + 1
        try:
            yield client
        finally:
            self._in_use[client] -= 1
            if not self._in_use[client]:
                del self._in_use[client]
                if client is not self._client:
                    self._close_soon(client)

    async def ask(self, waiting: Waiting) -> Verdict:
        """Query a task once, in its turn, and let its watch decide."""
        self._refresh_when_due()
        watch = waiting.watch
        left = math.inf if watch.deadline is None else max(watch.deadline - time.time(), 0.0)
        try:
            async with self.turns.turn(urgent_in=left, patience=GRACE):
                answer = await self._query(waiting)
        except NoTurn:
            return watch.on_no_turn()
        if isinstance(answer, GatewayError):
            metrics.polled(self.video_conn_id, answer)
            if isinstance(answer, AuthenticationError):
                self._refresh_when_due(REFRESH_OF_A_BAD_KEY)
            verdict = watch.on_error(answer, now=time.time())
        else:
            metrics.polled(self.video_conn_id)
            verdict = watch.on_task(answer, now=time.time())
            if answer.state.is_final and isinstance(verdict, Done):
                metrics.ended(self.video_conn_id, answer.model, watch)
                learn(self.video_conn_id, watch)
        if isinstance(verdict, Wait):
            waiting.expects(self.turns.gate, verdict.seconds)
        return verdict

    async def _query(self, waiting: Waiting) -> VideoTask | GatewayError:
        gate, begun = self.turns.gate, self.turns.now()
        with self.client() as client:
            try:
                answer: VideoTask | GatewayError = await client.query(waiting.prepared(client))
            except GatewayError as error:
                answer = error
        now = self.turns.now()
        if isinstance(answer, GatewayError) and _is_too_much(answer):
            gate.refused(answer.retry_after, now=now)
            metrics.paused(self.video_conn_id)
        else:
            gate.answered(now - begun, now=now)
        return answer

    def _current(self) -> AsyncGateway:
        if self._client is None:
            raise RuntimeError("the connection was not loaded, or is closed")
        return self._client

    # -- the connection ------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the connection, once for all that wait for it.

        :raises InvalidRequestError: it is not usable.
        """
        if self._client is not None:
            return
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())
        await asyncio.shield(self._loading)

    async def _looked_up(self) -> Connection:
        """Look the connection up, again and again for a minute: the waits of all its videos hang on it."""
        from airflow.providers.common.compat.connection import get_async_connection
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        pauses = iter(LOOK_UP_AGAIN_AFTER)
        while True:
            try:
                return await get_async_connection(self.video_conn_id)
            except AirflowNotFoundException:
                raise
            except Exception as error:  # whatever a secrets backend, a database or an API server raises
                what = f"connection {self.video_conn_id} could not be looked up ({type(error).__name__})"
                if (pause := next(pauses, None)) is None:
                    raise InvalidRequestError(what) from error
                log.warning("%s; it is tried again in %.0f s", what, pause)
                await asyncio.sleep(pause)

    async def _load(self) -> None:
        from airflow_video_provider.gateway.client import AsyncGateway

        settings = settings_from_connection(await self._looked_up())
        self._loaded_at = time.monotonic()
        if self._client is not None and self._client.settings == settings:
            return
        with named(self.video_conn_id):
            # In a thread: the authorities' certificates are read.
            client = await asyncio.to_thread(AsyncGateway, settings)
        before, self._client = self._client, client
        self.turns.gate.max_per_second = settings.max_requests_per_second
        if before is not None:
            log.info("connection %s has changed; its waits use it as it is now", self.video_conn_id)
            if before not in self._in_use:
                await before.close()

    def pause(self) -> float:
        """Seconds for which the gateway has asked to be left alone, and for which every wait of it stands."""
        return self.turns.gate.closed_for(self.turns.now())

    def _refresh_when_due(self, after: float = REFRESH) -> None:
        if time.monotonic() - self._loaded_at < after:
            return
        if self._loading is None or self._loading.done():
            self._loaded_at = time.monotonic()
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(self._refreshed)

    def _refreshed(self, loading: asyncio.Task[None]) -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            log.warning(
                "connection %s cannot be read again (%s); its waits go on with what it was",
                self.video_conn_id,
                error,
            )

    def _close_soon(self, client: AsyncGateway) -> None:
        closing = asyncio.create_task(client.close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)

    async def close(self) -> None:
        """Close the client."""
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.close()


#: An event loop keeps no strong reference to a task.
_closing: set[asyncio.Task[None]] = set()
# A client belongs to the event loop it was made on; the loop's end must not be hindered by this table.
_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedGateway]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_gateway(video_conn_id: str) -> AsyncIterator[SharedGateway]:
    """What all users of a connection on this event loop share: its client, its gate, its look-up.

    A client costs 15 to 20 ms of CPU and 0.8 MB (its TLS context), and a look-up may be a call to a secrets
    backend, so a triggerer with a thousand waiting tasks must not make a thousand of either. The last user
    closes it. It is read again each minute, so that a changed key reaches the waits that run.

    :param video_conn_id: the connection.
    :raises InvalidRequestError: it is not usable.
    """
    of_loop = _shared.setdefault(asyncio.get_running_loop(), {})
    shared = of_loop.get(video_conn_id)
    if shared is None:
        shared = of_loop[video_conn_id] = SharedGateway(video_conn_id)
    shared.users += 1
    try:
        await shared.load()
        yield shared
    finally:
        shared.users -= 1
        if not shared.users and of_loop.get(video_conn_id) is shared:
            del of_loop[video_conn_id]
            await shared.close()


@contextmanager
def waiting_at(shared: SharedGateway, watch: TaskWatch) -> Iterator[Waiting]:
    """A wait, of which the gate knows for as long as the block runs."""
    waiting = Waiting(watch)
    waiting.expects(shared.turns.gate, watch.schedule.interval)
    metrics.in_flight(shared.video_conn_id, +1)
    try:
        yield waiting
    finally:
        waiting.leave(shared.turns.gate)
        metrics.in_flight(shared.video_conn_id, -1)
