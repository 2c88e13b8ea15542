"""The moment at which work is given up, as a value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock.

    :param at: that moment; None for never.
    :param timeout: the seconds that led to it, for messages.
    """

    at: float | None = None
    timeout: float | None = None

    @classmethod
    def after(cls, timeout: timedelta | float | None) -> Deadline:
        """The deadline in *timeout* seconds from now; None for never."""
        if timeout is None:
            return cls()
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
        return cls(time.monotonic() + seconds, seconds)

    @property
    def left(self) -> float | None:
        """Seconds until then, at least 0; None for never."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self.at is not None and time.monotonic() >= self.at

    def cap(self, seconds: float) -> float:
        """Return *seconds*, or what is left where that is less."""
        left = self.left
        return seconds if left is None else min(seconds, left)
