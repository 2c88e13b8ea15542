"""How many lines of a log a wait is worth."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Lines"]

#: Lines that a wait may have at once, and seconds between those that come after them.
FREELY = 20
INTERVAL = 60.0


@dataclass(slots=True)
class Lines:
    """The lines that one wait has had: what changes with every query would fill the log."""

    count: int = 0
    last_at: float = 0.0

    def may_have_another(self, now: float, *, last: bool) -> bool:
        """Whether there may be one now, which is then counted.

        :param now: seconds since the epoch.
        :param last: it says how the wait ended, and is never left out.
        """
        if not last and self.count >= FREELY and abs(now - self.last_at) < INTERVAL:
            return False
        self.count, self.last_at = self.count + 1, now
        return True
