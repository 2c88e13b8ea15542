"""Cancel a video at the gateway when its task is killed, where that was asked for (``cancel_on_kill``).

A kill is no proof that nobody waits: Airflow may have begun the next attempt already, which re-attaches to
the same video. So the memory is read first, and what cannot be checked is left running.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_video_provider.gateway.errors import GatewayError
from airflow_video_provider.ledger import Ledger, State, Submission

if TYPE_CHECKING:
    from airflow_video_provider.gateway.settings import GatewaySettings

__all__ = ["Cancellation"]

#: Seconds: Airflow kills what does not end soon after it was told to.
LONGEST_CALL = 5.0


@dataclass(frozen=True)
class Cancellation:
    """What a worker that waits needs to cancel, ready before the signal comes.

    :param log: the task's.
    """

    settings: GatewaySettings
    ledger: Ledger
    submission: Submission
    log: Any

    def carry_out(self) -> bool:
        """Cancel, and remember it, so that the next attempt does not wait for what nobody makes any more.

        :returns: whether the gateway has cancelled it; why not is in the log.
        """
        from airflow_video_provider.gateway.client import Gateway

        if (why := self._why_not()) is not None:
            self.log.warning("video %s is not cancelled: %s", self.submission.video_id, why)
            return False
        settings = replace(self.settings, timeout=min(self.settings.timeout, LONGEST_CALL))
        try:
            # A client of its own: the signal came in the middle of whatever the other one does.
            with Gateway(settings) as gateway:
                gateway.cancel(str(self.submission.video_id))
        except GatewayError as error:
            self.log.warning("video %s could not be cancelled: %s", self.submission.video_id, error)
            return False
        self.log.warning(
            "video %s was cancelled at the gateway, as cancel_on_kill says; what it cost so far is the "
            "gateway's affair. A further attempt submits, and pays for, a new one",
            self.submission.video_id,
        )
        try:
            self.ledger.update(replace(self.submission, state=State.FAILED))
        except Exception as error:  # whatever a store raises: the next attempt queries it and finds out
            self.log.warning("that it was cancelled could not be stored in %s: %r", self.ledger.where, error)
        return True

    def _why_not(self) -> str | None:
        try:
            history = self.ledger.read()
        except Exception as error:  # whatever a store raises
            return f"whether another attempt waits for it cannot be read from {self.ledger.where}: {error!r}"
        mine = next((s for s in history if s.nonce == self.submission.nonce), None)
        if mine is None or mine.attempt != self.submission.attempt or mine != history[-1]:
            return "another attempt waits for it"
        return None
