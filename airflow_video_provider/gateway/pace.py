"""When to ask next. Clocks are arguments: nothing here sleeps or reads one."""

from __future__ import annotations

import random
from dataclasses import dataclass

from airflow_video_provider.http_common import doubled

__all__ = ["PollSchedule", "RateGate"]


@dataclass(frozen=True)
class PollSchedule:
    """How long to wait before the next query of one task.

    :param interval: seconds between queries of a healthy task (gateways' documents say 5 to 30).
    :param max_interval: seconds, the longest wait that repeated failures lead to.
    :param jitter: share of the wait that is added at random, so that tasks submitted together do not ask
        together for ever.
    """

    interval: float = 10.0
    max_interval: float = 60.0
    jitter: float = 0.1

    def delay(self, *, failures: int = 0, retry_after: float | None = None) -> float:
        """Seconds until the next query.

        :param failures: queries that failed in a row; the wait doubles with each after the first.
        :param retry_after: seconds that the gateway asked for; never undercut.
        """
        longest = max(self.interval, self.max_interval)
        wait = doubled(self.interval, failures, longest)
        return max(wait * (1 + random.uniform(0, self.jitter)), retry_after or 0.0)  # noqa: S311  no secret


class RateGate:
    """One connection's common pause: a 429 to one query holds back every query of that connection."""

    def __init__(self) -> None:
        self._closed_until = 0.0

    def close_for(self, seconds: float, *, now: float) -> None:
        """Hold queries back for so many seconds from ``now`` (seconds of any one monotonic clock)."""
        self._closed_until = max(self._closed_until, now + seconds)

    def wait(self, *, now: float) -> float:
        """Seconds that a query has to wait; 0 when the gate is open."""
        return max(self._closed_until - now, 0.0)
