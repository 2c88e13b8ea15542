"""The ledger as operators use it: what a store raises becomes a message for the person on call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_video_provider.exceptions import VideoSubmitFailed, sentences
from airflow_video_provider.ledger import Ledger, LedgerUnreadable, Submission
from airflow_video_provider.paying import NotRemembered

__all__ = ["forgotten", "not_remembered", "noted", "read", "reading", "stored", "tidied_up", "unreadable"]


class Named(Protocol):
    """A memory, as far as messages name it."""

    @property
    def where(self) -> str:
        """See :class:`~airflow_video_provider.ledger.Ledger`."""

    @property
    def how_to_delete(self) -> str:
        """See :class:`~airflow_video_provider.ledger.Ledger`."""


class Tidied(Named, Protocol):
    """A memory that can be tidied up."""

    def after_success(self) -> None:
        """See :class:`~airflow_video_provider.ledger.Ledger`."""


def read(ledger: Ledger) -> tuple[Submission, ...]:
    """What is remembered.

    :raises AirflowFailException: something else is stored there.
    :raises VideoSubmitFailed: it cannot be read now.
    """
    with reading(ledger):
        return ledger.read()


@contextmanager
def reading(ledger: Named) -> Iterator[None]:
    """A block that reads what is remembered; see :func:`read`."""
    try:
        yield
    except LedgerUnreadable as error:
        raise unreadable(ledger, error) from None
    except Exception as error:  # whatever a store raises: what cannot be read is not taken for nothing
        raise VideoSubmitFailed(
            sentences(
                f"this attempt submitted and paid nothing: what earlier ones submitted cannot be read from "
                f"{ledger.where}: {error!r}",
                "A retry reads it again",
            )
        ) from error


def stored(ledger: Ledger, submission: Submission) -> None:
    """Store a change that pays for nothing.

    :raises VideoSubmitFailed: it cannot be stored.
    """
    try:
        ledger.update(submission)
    except Exception as error:  # whatever a store raises
        raise VideoSubmitFailed(
            sentences(
                f"what became of {submission.name} cannot be stored in {ledger.where}: {error!r}",
                "Nothing was paid by this; a retry queries it again",
            )
        ) from error


def forgotten(ledger: Ledger) -> None:
    """Forget what a Dag run of the same name, which was deleted since, has submitted.

    :raises VideoSubmitFailed: it cannot be removed.
    """
    try:
        ledger.clear()
    except Exception as error:  # whatever a store raises
        raise VideoSubmitFailed(
            sentences(
                "not submitted, nothing was paid: what another Dag run of the same name has submitted cannot "
                f"be removed from {ledger.where}: {error!r}",
                "A retry begins anew",
            )
        ) from error


def noted(ledger: Ledger, submission: Submission, log: Any) -> None:
    """Store how a wait ended. Where that fails, a later attempt queries the video and finds the same."""
    try:
        stored(ledger, submission)
    except VideoSubmitFailed as error:
        log.warning("%s", error)


def tidied_up(ledger: Tidied, log: Any) -> None:
    """Tidy up after the task has succeeded; what is left can be pruned."""
    try:
        ledger.after_success()
    except Exception as error:  # whatever a store raises
        log.warning("%s could not be tidied up: %r", ledger.where, error)


def unreadable(ledger: Named, error: LedgerUnreadable) -> AirflowFailException:
    return AirflowFailException(
        sentences(
            f"nothing was submitted: what earlier attempts submitted, in {ledger.where}, cannot be "
            f"understood: {error}",
            "Look in the gateway's console for a video of this task; if there is one, wait for it with "
            f"VideoTaskSensor. To submit again {ledger.how_to_delete}, then clear this task",
        )
    )


def not_remembered(ledger: Ledger, lost: NotRemembered) -> AirflowFailException:
    """The video is paid for and cannot be remembered: the person on call is the memory."""
    return AirflowFailException(
        sentences(
            f"video {lost.submission.video_id} was submitted and is paid for, but its id could not be stored "
            f"in {ledger.where}: {lost.__cause__!r}",
            "So that it is not paid for again this task is not retried: wait for it with VideoTaskSensor on "
            "that id",
        )
    )
