"""When to ask next: one task (:class:`Schedule`) and one connection (:class:`Gate`).

Pure: clocks and randomness are arguments, nothing here sleeps. The loops that wait obey.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from airflow_video_provider.gateway.durations import Expectation
from airflow_video_provider.http_common import doubled

__all__ = ["LONGEST_INTERVAL", "LOWEST_INTERVAL", "Gate", "Schedule", "ScheduleMode"]

LOWEST_INTERVAL = 5.0
"""Seconds: the quickest that gateways' documents advise (5 to 30)."""
LONGEST_INTERVAL = 60.0

ScheduleMode = Literal["adaptive", "fixed"]


# -- one task ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """How long to wait before the next query of one task.

    Adaptive, the queries are as dense as :attr:`interval` where the video is likeliest to end, and sparser
    the less likely that is: their density goes with the square root of the hazard, which of all ways to spend
    so many queries gives the shortest mean delay between a video's end and the query that finds it.

    :param interval: seconds, the lowest interval; the only one of a fixed schedule.
    :param max_interval: seconds, the longest, also for queries that fail again and again; at least
        *interval*.
    :param mode: ``adaptive`` or ``fixed``.
    :param jitter: share of the wait that is added at random, so that triggerers that began together do not
        ask together for ever; the waits of one are spread by the gate.
    :param uniform: a number from the first to the second argument, at random.
    """

    interval: float = LOWEST_INTERVAL
    max_interval: float = LONGEST_INTERVAL
    mode: ScheduleMode = "adaptive"
    jitter: float = 0.02
    uniform: Callable[[float, float], float] = field(default=random.uniform, repr=False, compare=False)

    @property
    def longest(self) -> float:
        """The longest wait in seconds."""
        return max(self.interval, self.max_interval)

    def delay(self, age: float | None = None, expected: Expectation | None = None) -> float:
        """Seconds until the next query of a task that goes on.

        :param age: seconds since the submission; None if unknown.
        :param expected: when it is likely to end, counted from the submission; None if unknown.
        """
        if self.mode == "fixed" or age is None or expected is None:
            return self._jittered(self.interval)
        return self._jittered(self._dense_where_likely(max(age, 0.0), expected))

    def delay_after_failures(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds until the next query after some that failed.

        :param failures: how many in a row; the wait doubles with each after the first.
        :param retry_after: seconds that the gateway asked for; never undercut.
        """
        return max(self._jittered(doubled(self.interval, failures, self.longest)), retry_after or 0.0)

    def delay_after_restart(self) -> float:
        """Seconds until the first query of a wait that begins again: at random, as all of them do at once."""
        return self.uniform(0.0, self.interval)

    def _jittered(self, wait: float) -> float:
        return wait * (1 + self.uniform(0, self.jitter))

    def _dense_where_likely(self, age: float, expected: Expectation) -> float:
        highest = expected.hazard(expected.peak)
        step = max(self.interval / 2, self.longest / 64)
        wait, queries_due = 0.0, 0.0
        while wait < self.longest:
            hazard = expected.hazard(age + wait + step / 2)
            sparser = math.sqrt(highest / hazard) if hazard > 0 else math.inf
            apart = min(self.interval * sparser, self.longest)
            queries_due += step / apart
            wait += step
            if queries_due >= 1:
                return min(max(wait - (queries_due - 1) * apart, self.interval), self.longest)
        return self.longest


# -- one connection ----------------------------------------------------------------------------------------

MOST_CONNECTIONS = 16
"""A few carry 1,000 queries a second on one machine; more would only queue elsewhere."""
FEWEST_CONNECTIONS = 4
#: More than what rate times latency come to, because neither is even.
SPARE = 1.5
#: Queries a second that go out without being spread: what nobody notices.
UNSPREAD = 20.0
#: How much faster than they become due queries may go out, so that what was held back is made up for.
HEADROOM = 1.25
#: Multiplicative decrease of the rate, and its additive increase a second, as a share of what is due.
DECREASE = 0.5
INCREASE = 0.1
SLOWEST = 0.2
#: Seconds of a first pause that the gateway gave no length for; it doubles with each that follows.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
#: Seconds over which the rate is measured, and the share of a new latency in the mean.
_MEMORY = 5.0
_NEW = 0.1


@dataclass
class Gate:
    """What all queries of one connection share: whether one may go out now, and when the next may.

    Never more are in flight than there are connections: a pool in which requests queue costs more with each
    that waits. Queries go out evenly spaced, a little faster than they become due, so that a thousand waits
    that begin in one second, or whose gateway was away, neither ask in one second nor ever after. A refusal
    for the rate stops all of them for as long as the gateway says, and lets them come back slowly (additive
    increase, multiplicative decrease).

    Times are seconds of any one monotonic clock.

    :param most: connections.
    :param max_per_second: a ceiling on the rate, None for none.
    """

    most: int = MOST_CONNECTIONS
    max_per_second: float | None = None
    in_flight: int = field(default=0, init=False)
    due: float = field(default=0.0, init=False)
    """Queries a second that become due, by the waits that there are."""
    _latency: float = field(default=0.0, init=False)
    _next_at: float = field(default=-math.inf, init=False)
    _closed_until: float = field(default=-math.inf, init=False)
    _pauses: int = field(default=0, init=False)
    _reduced_to: float = field(default=math.inf, init=False)
    _rate: float = field(default=0.0, init=False)
    _measured_at: float = field(default=0.0, init=False)

    def expect(self, change: float) -> None:
        """Change how many queries a second become due: each wait adds one per interval, and takes it away."""
        self.due = max(self.due + change, 0.0)

    def wait(self, now: float, *, urgent: bool = False) -> float:
        """Seconds until the next query may go out; infinite while another has to end before.

        :param urgent: it is at its deadline, which no pause holds back.
        """
        if self.in_flight >= self.connections(now):
            return math.inf
        return max(self._next_at - now, 0.0 if urgent else self._closed_until - now, 0.0)

    def connections(self, now: float) -> int:
        """How many queries may be in flight: as many as the rate needs at the latency that there is."""
        needed = math.ceil(self.rate(now) * self._latency * SPARE)
        return min(max(needed, FEWEST_CONNECTIONS), self.most)

    def rate(self, now: float) -> float:
        """Queries a second that may go out."""
        wanted = max(self.due * HEADROOM, UNSPREAD)
        recovered = max(self.due, 1.0) * INCREASE * max(now - self._closed_until, 0.0)
        return min(wanted, self._reduced_to + recovered, self.max_per_second or math.inf)

    def closed_for(self, now: float) -> float:
        """Seconds for which the gateway is left alone."""
        return max(self._closed_until - now, 0.0)

    def begin(self, now: float) -> None:
        """Note that a query goes out."""
        self.in_flight += 1
        self._rate = self._measured(now) + 1 / _MEMORY
        self._measured_at = now
        self._next_at = max(self._next_at, now - 1 / UNSPREAD) + 1 / self.rate(now)

    def cancelled(self) -> None:
        """Note that a query was broken off from here, of which nothing is learnt."""
        self.in_flight -= 1

    def answered(self, latency: float, *, now: float) -> None:
        """Note that a query has ended after so many seconds, well or badly."""
        self.in_flight -= 1
        self._latency += (latency - self._latency) * (_NEW if self._latency else 1.0)
        if now >= self._closed_until:
            self._pauses = 0

    def refused(self, retry_after: float | None, *, now: float) -> None:
        """Note that a query has ended with "too many" (429) or "overloaded" (503).

        :param retry_after: seconds that the gateway asked for.
        """
        self.in_flight -= 1
        if now < self._closed_until:  # the others that were in flight hear the same
            self._closed_until = max(self._closed_until, now + (retry_after or 0.0))
            return
        reduced = max(min(self.rate(now), self._measured(now)) * DECREASE, SLOWEST)
        self._pauses += 1
        pause = retry_after if retry_after is not None else doubled(FIRST_PAUSE, self._pauses, LONGEST_PAUSE)
        self._reduced_to, self._closed_until = reduced, now + pause

    def _measured(self, now: float) -> float:
        """The rate of late, in queries a second."""
        return self._rate * math.exp(-max(now - self._measured_at, 0.0) / _MEMORY)
