"""The ledger as operators use it: what a store raises becomes a message for the person on call."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_video_provider.exceptions import VideoSubmitFailed, sentences
from airflow_video_provider.ledger import Ledger, LedgerUnreadable, Submission
from airflow_video_provider.paying import NotRemembered

__all__ = ["forgotten", "not_remembered", "read", "stored", "unreadable"]


def read(ledger: Ledger) -> tuple[Submission, ...]:
    """What is remembered.

    :raises AirflowFailException: something else is stored there.
    :raises VideoSubmitFailed: it cannot be read now.
    """
    try:
        return ledger.read()
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


def unreadable(ledger: Ledger, error: LedgerUnreadable) -> AirflowFailException:
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
