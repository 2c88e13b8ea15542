"""Turns at a :class:`~airflow_video_provider.gateway.pace.Gate`, for the coroutines of one event loop."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_video_provider.gateway.pace import Gate

__all__ = ["NoTurn", "Turns"]

_Waiter = asyncio.Future[None]


class NoTurn(Exception):
    """The latest time passed, and nobody gets a turn any more: the queries that are in flight hang."""


class Turns:
    """First come, first served; whoever is at its deadline goes before all others.

    :param gate: says when.
    :param now: the gate's clock, in seconds; default the event loop's.
    :param call_later: calls a function after so many seconds of that clock.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        now: Callable[[], float] | None = None,
        call_later: Callable[..., asyncio.TimerHandle] | None = None,
    ) -> None:
        self.gate = gate
        self._waiting: deque[_Waiter] = deque()
        self._urgent: deque[_Waiter] = deque()
        loop = asyncio.get_running_loop()
        self.now = now or loop.time
        self._call_later = call_later or loop.call_later
        self._new_waiter: Callable[[], _Waiter] = loop.create_future
        self._alarm: asyncio.TimerHandle | None = None
        self._last_turn = self.now()

    @asynccontextmanager
    async def turn(self, *, urgent_in: float = math.inf, patience: float = math.inf) -> AsyncIterator[None]:
        """Wait for a turn, and hold a place in flight for as long as the block runs.

        The block ends with ``gate.answered`` or ``gate.refused``; where it raises, nothing is learnt.

        :param urgent_in: seconds after which no pause holds it back any more: what is left to the deadline.
        :param patience: seconds for which, from then on, nobody at all gets a turn before it is pointless.
        :raises NoTurn: it has become pointless.
        """
        await self._take(urgent_in, patience)
        try:
            yield
        except BaseException:
            self.gate.cancelled()
            raise
        finally:
            self._let_go_on()

    async def _take(self, urgent_in: float, patience: float) -> None:
        now = self.now()
        if not self._waiting and not self._urgent and not self.gate.wait(now, urgent=urgent_in <= 0):
            self._begin(now)
            return
        waiter = self._new_waiter()
        (self._urgent if urgent_in <= 0 else self._waiting).append(waiter)
        timers = []
        if 0 < urgent_in < math.inf:
            timers.append(self._call_later(urgent_in, self._make_urgent, waiter))
        if urgent_in + patience < math.inf:
            timers.append(self._call_later(urgent_in + patience, self._give_up, waiter, patience))
        self._let_go_on()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.gate.cancelled()  # the turn had come just before
                self._let_go_on()
            raise
        finally:
            for timer in timers:
                timer.cancel()
            if waiter.cancelled():
                self._let_go_on()

    def _make_urgent(self, waiter: _Waiter) -> None:
        if not waiter.done():
            self._urgent.append(waiter)  # where it stands in the other queue it will be found done
            self._let_go_on()

    def _let_go_on(self) -> None:
        """Give turns as far as the gate allows, and come back when it allows the next."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for queue in (self._urgent, self._waiting):
            while queue:
                if queue[0].done():
                    queue.popleft()
                    continue
                now = self.now()
                wait = self.gate.wait(now, urgent=queue is self._urgent)
                if wait > 0:
                    if wait < math.inf and self._alarm is None:
                        self._alarm = self._call_later(wait, self._let_go_on)
                    break
                self._begin(now)
                queue.popleft().set_result(None)

    def _begin(self, now: float) -> None:
        self.gate.begin(now)
        self._last_turn = now

    def _give_up(self, waiter: _Waiter, patience: float) -> None:
        if waiter.done():
            return
        left = self._last_turn + patience - self.now()
        if left > 0:  # it is a long queue, and it moves
            self._call_later(left, self._give_up, waiter, patience)
        else:
            waiter.set_exception(NoTurn())
