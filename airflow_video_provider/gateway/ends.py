"""What the ends of many waits mean for the one task instance that waits for all of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from airflow_video_provider.gateway.verdict import Done, End

__all__ = ["FailIf", "Failure", "ListEnd", "counted", "left", "shortened"]

FailIf = Literal["any", "first", "all"]
"""When the wait for a list fails: at its end if ``any`` video did not succeed, at the ``first`` that does
not, or only if ``all`` did not."""

#: From what no retry cures to what a retry may find otherwise.
_FROM_FINAL_TO_CURABLE = (End.FAILED, End.REFUSED, End.GONE, End.TIMED_OUT, End.UNREACHABLE)
#: How many videos a message tells of one by one: the log and the XCom have all of them.
TOLD = 5
#: Characters of the first reason, which ends with what to do, and of each of the others.
LONGEST_FIRST = 500
LONGEST_OTHER = 120


class Failure(NamedTuple):
    """Why the wait for a list failed as a whole."""

    end: End
    """Of the video that decides whether a retry may help."""
    message: str
    """For the person on call: how many ended how, and the first of them by name."""


@dataclass(frozen=True)
class ListEnd:
    """How the waits for a list of videos ended. As JSON it is a trigger's event.

    :param ends: one for each video, in the order of the list.
    :param broke_off: why the wait was given up for all: the connection or the list could not be read.
    """

    ends: tuple[Done, ...]
    broke_off: str | None = None

    def as_event(self) -> dict[str, Any]:
        """Plain JSON without empty fields: thousands of ends are stored in one row of the database."""
        event: dict[str, Any] = {"ends": [_packed(done) for done in self.ends]}
        return event if self.broke_off is None else {**event, "broke_off": self.broke_off}

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> ListEnd:
        """The counterpart of :meth:`as_event`."""
        return cls(tuple(map(_unpacked, event["ends"])), event.get("broke_off"))

    def failure(self, fail_if: FailIf) -> Failure | None:
        """Why the task is to fail, None where it is to succeed.

        With ``any`` and ``first`` the end that no retry cures decides, with ``all`` the one that a retry may
        cure: one video that succeeds is enough for the task to succeed.

        :param fail_if: when it is to fail at all.
        """
        if self.broke_off is not None:
            return Failure(End.UNREACHABLE, self.broke_off)
        bad = [done for done in self.ends if done.end in _FROM_FINAL_TO_CURABLE]
        if not bad or (fail_if == "all" and len(bad) < len(self.ends)):
            return None
        order = _FROM_FINAL_TO_CURABLE if fail_if != "all" else _FROM_FINAL_TO_CURABLE[::-1]
        bad.sort(key=lambda done: order.index(done.end))
        return Failure(bad[0].end, f"{self.summary()}. {_told(bad)}")

    def summary(self) -> str:
        """How many ended how: ``3 videos: 2 succeeded, 1 failed``."""
        return counted(Counter(str(done.end) for done in self.ends))

    def results(self) -> list[dict[str, Any]]:
        """The tasks as plain JSON, in order, as the XCom has them.

        Each has the fields of the :class:`~airflow_video_provider.gateway.task.VideoTask` (the ``video_id``
        alone, where it was never seen), ``end`` and ``message``.
        """
        return [
            {**(done.task or {"video_id": done.video_id}), "end": str(done.end), "message": done.message}
            for done in self.ends
        ]


def left(video_id: str) -> Done:
    """The end of a wait that was given up for another video's sake."""
    return Done(End.LEFT, video_id, f"video {video_id} was no longer waited for; it was left as it is")


def counted(counts: Mapping[str, int]) -> str:
    """Counts by state as a person reads them, the largest first."""
    there = sorted(((-number, name) for name, number in counts.items() if number))
    total = -sum(number for number, _ in there)
    parts = ", ".join(f"{-number} {name}" for number, name in there)
    return f"{total} video{'' if total == 1 else 's'}" + (f": {parts}" if parts else "")


def _told(bad: Sequence[Done]) -> str:
    told = [shortened(bad[0].message, LONGEST_FIRST)]
    told += [shortened(done.message, LONGEST_OTHER) for done in bad[1:TOLD]]
    if len(bad) > TOLD:
        told.append(f"and {len(bad) - TOLD} more, each with a line in the log")
    return "; ".join(told)


def shortened(message: str, longest: int) -> str:
    """At most so many characters of a message."""
    return message if len(message) <= longest else f"{message[: longest - 1]}…"


def _packed(done: Done) -> dict[str, Any]:
    event = done.as_event()
    if done.task is not None:
        event["task"] = _without_none(done.task.items())
    return _without_none(event.items())


def _unpacked(event: Mapping[str, Any]) -> Done:
    from airflow_video_provider.gateway.task import VideoTask

    task = event.get("task")
    if task is not None:
        task = {**dict.fromkeys(name for name in VideoTask.model_fields if name != "raw"), **task}
    return Done.from_event({**event, "task": task})


def _without_none(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if value is not None}
