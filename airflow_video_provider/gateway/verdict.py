"""What is decided of a wait: go on, or over and how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Done", "End", "Verdict", "Wait"]


class End(StrEnum):
    """How a wait ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The gateway says the generation failed, was cancelled or expired."""
    REFUSED = "refused"
    """The gateway answers the query with an error that asking again cannot cure."""
    GONE = "gone"
    """The gateway knows no such task, and says so for a while."""
    TIMED_OUT = "timed_out"
    """The deadline passed; the task was left running."""
    UNREACHABLE = "unreachable"
    """Nothing but failures for too long; the task was left running."""
    LEFT = "left"
    """Another video of the list failed, and this one was no longer waited for; it was left running."""


@dataclass(frozen=True)
class Wait:
    """Keep waiting: ask again in so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Done:
    """The wait is over. As JSON it is a trigger's event."""

    end: End
    video_id: str
    message: str
    """For the person on call: what happened, and what became of the paid task."""
    task: dict[str, Any] | None = None
    """The task as plain JSON, where it was seen."""
    error_kind: str | None = None
    """The kind of the error that ended the wait, if one did."""

    def as_event(self) -> dict[str, Any]:
        """Plain JSON, without keys and presigned URLs."""
        return {
            "end": str(self.end),
            "video_id": self.video_id,
            "message": self.message,
            "task": self.task,
            "error_kind": self.error_kind,
        }

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Done:
        """The counterpart of :meth:`as_event`."""
        return cls(**{**event, "end": End(event["end"])})


Verdict = Wait | Done
