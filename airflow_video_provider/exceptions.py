"""What the operators and the sensor raise when a retry may help.

What no retry can cure (a refusal by moderation, a bad key, no balance, a bad request) is Airflow's
``AirflowFailException`` with the same kind of message.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowException

__all__ = [
    "VideoDownloadFailed",
    "VideoGatewayUnreachable",
    "VideoListFailed",
    "VideoNotReady",
    "VideoSubmitFailed",
    "VideoTaskFailed",
    "VideoTaskTimeout",
    "sentences",
]


def sentences(*parts: object) -> str:
    """One text of several, each ended by one full stop: gateways end theirs or do not."""
    return " ".join(f"{str(part).rstrip('. ')}." for part in parts if str(part).strip())


class VideoSubmitFailed(AirflowException):
    """The gateway did not accept the generation, so nothing was paid."""


class VideoTaskFailed(AirflowException):
    """The gateway says that the generation failed, was cancelled or expired."""


class VideoTaskTimeout(AirflowException):
    """The task was still running at the deadline, and was left running."""


class VideoGatewayUnreachable(AirflowException):
    """The gateway could not be asked for too long; the task was left as it is."""


class VideoListFailed(AirflowException):
    """Some videos of a list are not there, and for at least one of them a retry may help."""


class VideoDownloadFailed(AirflowException):
    """The file was not published; nothing of it is under the final name."""


class VideoNotReady(AirflowException):
    """There is no file to fetch, or not yet."""
