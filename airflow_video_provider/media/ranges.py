"""Who fetches which bytes: the plan that the connections of a download share. No IO here.

Parts are handed out from the front, so that the digest, which can only be taken in order, follows closely
behind; they get smaller towards the end, so that all connections finish at about the same time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

MIB = 1 << 20
MIN_PART = 1 * MIB
MAX_PART = 32 * MIB


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
    """All parts of one version of one file.

    :param total: the length of the file in bytes, None when the server did not say.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self._frontier = 0
        self._waiting: list[Range] = []
        self._taken: list[Range] = []
        self._lock = threading.Lock()

    def take(self, connections: int) -> Range | None:
        """Return the next part for one of *connections* connections, None when nothing is left to hand out.

        With one connection the part is all that is left.
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
        size = left if connections <= 1 else max(MIN_PART, min(MAX_PART, left // (2 * connections)))
        part = Range(self._frontier, self._frontier + min(size, left))
        self._frontier += min(size, left)
        return part

    def _half_of_the_largest(self, connections: int) -> Range | None:
        # The last parts of slow connections would be waited for while the others have nothing to do.
        if connections <= 1:
            return None
        largest = max(self._taken, key=lambda part: part.remaining or 0, default=None)
        if largest is None or largest.end is None or (largest.remaining or 0) < 4 * MIN_PART:
            return None
        middle = largest.position + (largest.end - largest.position) // 2
        half = Range(middle, largest.end)
        largest.end = middle
        return half

    def share_out(self, connections: int) -> None:
        """Shorten the part that one connection had for itself, so that others find something to take."""
        with self._lock:
            part = next((part for part in self._taken if part.end == self._frontier), None)
            if part is None or part.end is None:
                return
            left = part.end - part.position
            # Its connection writes on meanwhile, but never as much as the smallest part at once.
            keep = max(2 * MIN_PART, min(MAX_PART, left // (2 * connections)))
            if left > keep + MIN_PART:
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
            open_parts = [*self._taken, *self._waiting]
            if self.total is None:
                return sum(part.position for part in open_parts)
            return self._frontier - sum(part.remaining or 0 for part in open_parts)
