"""How far a download is, said so that people can use it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two lines in a log."""


@dataclass(frozen=True)
class Progress:
    """One moment of a download.

    :ivar name: what is being downloaded, without signatures.
    :ivar received: bytes so far.
    :ivar total: bytes in all, None when the server did not say.
    :ivar rate: bytes per second, of late.
    :ivar elapsed: seconds since the beginning.
    :ivar done: whether this is the last report.
    """

    name: str
    received: int
    total: int | None
    rate: float
    elapsed: float
    done: bool = False

    @property
    def percent(self) -> float | None:
        """0 to 100, None when the total is not known."""
        return None if not self.total else min(100.0, 100.0 * self.received / self.total)

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None when that cannot be told."""
        if self.total is None or self.rate <= 0:
            return None
        return max(0.0, (self.total - self.received) / self.rate)

    def __str__(self) -> str:
        if self.done:
            return f"{self.name}: {human(self.received)} in {self.elapsed:.1f} s ({human(self.rate)}/s)"
        of = f" of {human(self.total)} ({self.percent:.0f} %)" if self.total else ""
        left = self.seconds_left
        rest = f", {duration(left)} left" if left is not None else ""
        return f"{self.name}: {human(self.received)}{of}, {human(self.rate)}/s{rest}"


ProgressCallback = Callable[[Progress], None]


def human(size: float) -> str:
    """Write a number of bytes with the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def duration(seconds: float) -> str:
    """Write a number of seconds as people do."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


class Meter:
    """Turn byte counts into :class:`Progress`; the clock is injected.

    :param name: what is being downloaded.
    :param report: receives each moment.
    :param clock: seconds of any monotonic clock.
    """

    def __init__(
        self, name: str, report: ProgressCallback, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._report, self._clock = name, report, clock
        self._begin = clock()
        self._samples: list[tuple[float, int]] = [(self._begin, 0)]

    def update(self, received: int, total: int | None) -> None:
        """Report that *received* of *total* bytes have come."""
        now = self._clock()
        self._samples.append((now, received))
        while len(self._samples) > 2 and now - self._samples[1][0] > EVERY:
            del self._samples[0]
        then, before = self._samples[0]
        rate = max(0.0, (received - before) / (now - then)) if now > then else 0.0
        self._report(Progress(self._name, received, total, rate, now - self._begin))

    def finish(self, received: int) -> None:
        """Report that all has come."""
        elapsed = self._clock() - self._begin
        rate = received / elapsed if elapsed > 0 else 0.0
        self._report(Progress(self._name, received, received, rate, elapsed, done=True))


class LogProgress:
    """Write a line every few seconds on long downloads, one line at the end of all.

    :param logger: where to; the package's own by default.
    :param every: seconds between lines.
    """

    def __init__(self, logger: logging.Logger | None = None, every: float = EVERY) -> None:
        self._log, self._every, self._last = logger or log, every, 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.done or progress.elapsed - self._last >= self._every:
            self._last = progress.elapsed
            self._log.info("%s", progress)


class TerminalBar:
    """Draw one line that is drawn over, for a person in front of a terminal."""

    WIDTH = 30

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._last = -1.0

    def __call__(self, progress: Progress) -> None:
        if not progress.done and progress.elapsed - self._last < 0.2:
            return
        self._last = progress.elapsed
        filled = round(self.WIDTH * (progress.percent or 0) / 100)
        self._out.write(
            f"\r\x1b[K[{'#' * filled:<{self.WIDTH}}] {progress}" + ("\n" if progress.done else "")
        )
        self._out.flush()


def default_progress() -> ProgressCallback:
    """A bar on a terminal, lines in the log elsewhere."""
    return TerminalBar() if sys.stderr is not None and sys.stderr.isatty() else LogProgress()
