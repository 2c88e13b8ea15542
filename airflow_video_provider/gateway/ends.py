"""What the ends of many waits mean for the one task instance that waits for all of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from airflow_video_provider.gateway.watch import Done, End

__all__ = ["FailIf", "Failure", "ListEnd", "counted"]

FailIf = Literal["any", "first", "all"]
"""When the wait for a list fails: at its end if ``any`` video did not succeed, at the ``first`` that does
not, or only if ``all`` did not."""

#: From what no retry cures to what a retry may find otherwise.
_FROM_FINAL_TO_CURABLE = (End.FAILED, End.REFUSED, End.GONE, End.TIMED_OUT, End.UNREACHABLE)
#: How many videos a message tells of one by one: the log and the XCom have all of them.
TOLD = 5
LONGEST_REASON = 160
#: A video that was not waited for any longer, because another one failed first.
LEFT = "no longer waited for"


class Failure(NamedTuple):
    """Why the wait for a list failed as a whole."""

    end: End
    """Of the video that decides whether a retry may help."""
    message: str
    """For the person on call: how many ended how, and the first of them by name."""


@dataclass(frozen=True)
class ListEnd:
    """How the waits for a list of videos ended, in the order of the list. As JSON it is a trigger's event.

    :param ends: one for each video; None for one that was not waited for any longer, because another failed
        first (``fail_if="first"``).
    :param broke_off: why there are no ends at all: the connection or the list could not be read.
    """

    ends: tuple[Done | None, ...]
    broke_off: str | None = None

    def as_event(self) -> dict[str, Any]:
        """Plain JSON without empty fields: thousands of them are stored in one row of the database."""
        event: dict[str, Any] = {"ends": [end and _packed(end) for end in self.ends]}
        return event if self.broke_off is None else {**event, "broke_off": self.broke_off}

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> ListEnd:
        """The counterpart of :meth:`as_event`."""
        return cls(tuple(end and _unpacked(end) for end in event["ends"]), event.get("broke_off"))

    def failure(self, fail_if: FailIf) -> Failure | None:
        """Why the task is to fail, None where it is to succeed.

        With ``any`` and ``first`` the end that no retry cures decides, with ``all`` the one that a retry may
        cure: it takes one video that succeeds to make the task succeed.

        :param fail_if: when it is to fail at all.
        """
        if self.broke_off is not None:
            return Failure(End.UNREACHABLE, self.broke_off)
        bad = [done for done in self.ends if done is not None and done.end is not End.SUCCEEDED]
        if not bad or (fail_if == "all" and len(bad) < len(self.ends)):
            return None
        order = _FROM_FINAL_TO_CURABLE if fail_if != "all" else tuple(reversed(_FROM_FINAL_TO_CURABLE))
        end = min((done.end for done in bad), key=order.index)
        bad.sort(key=lambda done: order.index(done.end))
        return Failure(end, f"{self.summary()}. {_told(bad)}")

    def summary(self) -> str:
        """How many ended how: ``3 videos: 2 succeeded, 1 failed``."""
        return counted(Counter(LEFT if done is None else str(done.end) for done in self.ends))

    def results(self) -> list[dict[str, Any]]:
        """The tasks as plain JSON, in order, as the XCom has them.

        Each has all fields of a :class:`~airflow_video_provider.gateway.task.VideoTask` that was seen (else
        the ``video_id`` alone), ``end`` (None where it was not waited for any longer) and ``message``.
        """
        return [
            {"end": None} if done is None else {
                **(done.task or {"video_id": done.video_id}), "end": str(done.end), "message": done.message
            }
            for done in self.ends
        ]  # fmt: skip


def counted(counts: Mapping[str, int]) -> str:
    """Counts by state as a person reads them, the largest first."""
    there = sorted(((number, name) for name, number in counts.items() if number), reverse=True)
    total = sum(number for number, _ in there)
    return f"{total} video{'' if total == 1 else 's'}" + (
        ": " + ", ".join(f"{number} {name}" for number, name in there) if there else ""
    )


def _told(bad: Sequence[Done]) -> str:
    told = "; ".join(_shortened(done.message) for done in bad[:TOLD])
    return told if len(bad) <= TOLD else f"{told}; and {len(bad) - TOLD} more, each with a line in the log"


def _shortened(message: str) -> str:
    return message if len(message) <= LONGEST_REASON else f"{message[: LONGEST_REASON - 1]}…"


def _packed(done: Done) -> dict[str, Any]:
    event = done.as_event()
    if done.task is not None:
        event["task"] = _without_none(done.task.items())
    return _without_none(event.items())


def _unpacked(event: Mapping[str, Any]) -> Done:
    from airflow_video_provider.gateway.task import VideoTask

    task = event.get("task")
    if task is not None:
        task = {name: task.get(name) for name in VideoTask.model_fields if name != "raw"}
    return Done.from_event({**event, "task": task})


def _without_none(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if value is not None}
