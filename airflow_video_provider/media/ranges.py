"""Who fetches which bytes, and how many connections are worth having. Pure: no I/O, and the time is told.

Ranges are handed out from the front, so that the digest, which can only be taken in order, follows closely
behind; they get smaller towards the end, so that all connections finish at about the same time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from airflow_video_provider.media.options import DownloadOptions


@dataclass(eq=False)
class Range:
    """The bytes from ``position`` up to ``end`` (exclusive; None: to the end, wherever that is)."""

    position: int
    end: int | None

    @property
    def remaining(self) -> int | None:
        """Bytes still to come, None when that is not known."""
        return None if self.end is None else self.end - self.position


class RangePlan:
    """All ranges of one version of one file. It may be used from several threads.

    :param total: the length of the file in bytes, None when the server did not say.
    :param options: the sizes of ranges.
    """

    def __init__(self, total: int | None, options: DownloadOptions) -> None:
        self.total = total
        self._options = options
        self._frontier = 0
        self._waiting: list[Range] = []
        self._taken: list[Range] = []
        self._lock = threading.Lock()

    def take(self, connections: int) -> Range | None:
        """Return the next range for one of *connections* connections, None when none is left to hand out.

        With one connection the range is all that is left.
        """
        with self._lock:
            part = self._next(connections)
            if part is not None:
                self._taken.append(part)
            return part

    def _next(self, connections: int) -> Range | None:
        if self._waiting:
            part = min(self._waiting, key=lambda waiting: waiting.position)
            self._waiting.remove(part)
            return part
        if self.total is None:
            return Range(0, None) if not self._taken and self._frontier == 0 else None
        left = self.total - self._frontier
        if left <= 0:
            return self._half_of_the_largest(connections)
        size = left if connections <= 1 else self._share(left, connections)
        part = Range(self._frontier, self._frontier + min(size, left))
        self._frontier += min(size, left)
        return part

    def _share(self, left: int, connections: int) -> int:
        return max(self._options.min_range, min(self._options.max_range, left // (2 * connections)))

    def _half_of_the_largest(self, connections: int) -> Range | None:
        # The last ranges of slow connections would be waited for while the others have nothing to do.
        if connections <= 1:
            return None
        largest = max(self._taken, key=lambda part: part.remaining or 0, default=None)
        if largest is None or largest.end is None or (largest.remaining or 0) < 4 * self._options.min_range:
            return None
        middle = largest.position + (largest.end - largest.position) // 2
        half = Range(middle, largest.end)
        largest.end = middle
        return half

    def share_out(self, connections: int) -> None:
        """Shorten the range that one connection had for itself, so that others find something to take."""
        with self._lock:
            part = next((part for part in self._taken if part.end == self._frontier), None)
            if part is None or part.end is None:
                return
            left = part.end - part.position
            # Its connection writes on meanwhile, but never as much as the smallest range at once.
            keep = max(2 * self._options.min_range, self._share(left, connections))
            if left > keep + self._options.min_range:
                part.end = self._frontier = part.position + keep

    def done(self, part: Range) -> None:
        """Note that *part* has come whole; one of unknown length tells the file's length by that."""
        with self._lock:
            self._taken.remove(part)
            if part.end is None:
                self.total = self._frontier = part.position

    def give_back(self, part: Range) -> None:
        """Put what is left of *part* back, for whoever comes next."""
        with self._lock:
            self._taken.remove(part)
            if part.end is None or part.position < part.end:
                self._waiting.append(part)

    @property
    def is_complete(self) -> bool:
        """Whether every byte has come."""
        with self._lock:
            return (
                self.total is not None and self._frontier >= self.total and not (self._taken or self._waiting)
            )

    @property
    def watermark(self) -> int:
        """All bytes before this position have come."""
        with self._lock:
            positions = [part.position for part in (*self._taken, *self._waiting)]
            return min([*positions, self._frontier]) if positions else self._frontier

    @property
    def received(self) -> int:
        """How many bytes have come."""
        with self._lock:
            open_ranges = [*self._taken, *self._waiting]
            if self.total is None:
                return sum(part.position for part in open_ranges)
            return self._frontier - sum(part.remaining or 0 for part in open_ranges)


class ConnectionScaler:
    """How many connections are worth having.

    The number is doubled as long as the rate grew by a tenth with the last doubling and the rest would take
    longer than opening connections costs. A doubling that brought nothing is forgiven once, as the first
    bytes of a throttled connection often come in a burst; the second time it is taken back.

    :param options: the windows and thresholds.
    :param received: bytes that have come already.
    :param now: the time in seconds of any clock, the same as later.
    """

    def __init__(self, options: DownloadOptions, received: int, now: float) -> None:
        self._options = options
        self._level = 1
        self._mark, self._marked = now, received
        self._rate_before = 0.0
        self._in_vain = 0

    def connections(self, *, now: float, received: int, total: int, ceiling: int) -> int:
        """Return how many connections there should be now, at most *ceiling*."""
        options = self._options
        self._level = min(self._level, ceiling)
        elapsed, left = now - self._mark, total - received
        window = options.window if self._rate_before else options.first_window
        if elapsed < window or left < options.share_from or self._in_vain >= 2:
            return self._level
        rate = (received - self._marked) / elapsed
        if self._level > 1 and rate < 1.1 * self._rate_before:
            self._in_vain += 1
            if self._in_vain >= 2:
                self._level = max(1, self._level // 2)
                return self._level
        if rate and left / rate < options.worth:
            return self._level
        self._level = max(1, min(self._level * 2, ceiling, left // options.min_range))
        self._rate_before, self._mark, self._marked = rate or 1.0, now, received
        return self._level
