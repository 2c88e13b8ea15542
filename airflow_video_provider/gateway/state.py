"""Where a generation stands. Apart from the reader, so that a Dag file can import it without pydantic."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TaskState"]


class TaskState(StrEnum):
    """Where a generation stands, whatever word the gateway uses for it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Whether the gateway will not change it any more."""
        return self not in {TaskState.QUEUED, TaskState.RUNNING}
