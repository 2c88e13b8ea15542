"""The create call and its memory as one step: all that lies between "paid" and "remembered" stands here."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_video_provider.exceptions import VideoSubmitFailed, sentences
from airflow_video_provider.gateway.errors import GatewayError
from airflow_video_provider.ledger import (
    Ledger,
    LedgerTaken,
    LedgerUnreadable,
    State,
    Submission,
    undisturbed,
)

if TYPE_CHECKING:
    from airflow_video_provider.gateway.request import VideoRequest
    from airflow_video_provider.gateway.task import VideoTask
    from airflow_video_provider.hooks.video import VideoHook

__all__ = ["Create", "NotRemembered", "NotSent", "pay", "signals_held"]

#: How often to try to store the id of a video that is paid for, seconds from one try to the next, and seconds
#: for all tries together, each of which may last until the store's own timeout.
STORE_TRIES = 20
STORE_EVERY = 3.0
STORE_FOR = 120.0


#: Carries a create call out: given the request and what sends one create call of it.
Create: TypeAlias = "Callable[[VideoRequest, Callable[[], VideoTask]], VideoTask]"


class NotSent(Exception):
    """Raised by a :data:`Create` that sent nothing, and will not: the task is ending, for example."""


class NotRemembered(Exception):
    """The gateway accepted, and the id could not be stored; the cause is the store's error."""

    def __init__(self, submission: Submission) -> None:
        super().__init__(submission.video_id)
        self.submission = submission


@contextmanager
def signals_held() -> Iterator[Sequence[int]]:
    """Hold back what Airflow raises into the running line, until the block is done.

    The block is given the numbers of those that have come so far: one that does much can end early.

    That is ``execution_timeout`` (SIGALRM) and the end of the task (SIGTERM), on 2.11 and 3.x alike. SIGKILL
    cannot be held, and on 3.x it follows a SIGTERM after 5 s. Where the block itself fails, what it says
    matters more than that the time was over, and the task ends anyway.
    """
    held: list[int] = []
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
            if callable(handler := signal.getsignal(name)):
                before[name] = handler
                signal.signal(name, lambda number, _: held.append(number))
    try:
        yield held
    except BaseException:
        held.clear()
        raise
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    for number in held:
        signal.raise_signal(number)


def pay(
    hook: VideoHook,
    ledger: Ledger,
    submission: Submission,
    request: VideoRequest,
    *,
    history: Sequence[Submission],
    log: Any,
    create: Create | None = None,
) -> tuple[Submission, VideoTask]:
    """Store the intent, send the create call, store the id.

    :param history: what was decided on; nothing of it may have changed.
    :param log: the task's.
    :param create: carries the create call out; default: the hook's ``submit``.
    :returns: the submission as it is stored, and the task as the gateway answered.
    :raises VideoSubmitFailed: the intent cannot be stored, or another attempt has written since; this one
        sent nothing.
    :raises GatewayError: the gateway did not accept, or (``maybe_accepted``) nobody knows.
    :raises NotRemembered: it accepted, and the id could not be stored.
    :raises NotSent: *create* sent nothing.
    """
    payment = _Payment(hook, ledger, submission, request, history, log)
    payment.intend()
    try:
        task = (create or hook.submit)(request, payment.send)
    except NotSent:
        payment.note(State.WITHDRAWN)
        raise
    except GatewayError as error:
        if not error.maybe_accepted:
            payment.note(State.WITHDRAWN)
        raise
    return payment.submission, task


class _Payment:
    """One submission under way. :meth:`send` is called once for each create call of it."""

    def __init__(
        self,
        hook: VideoHook,
        ledger: Ledger,
        submission: Submission,
        request: VideoRequest,
        history: Sequence[Submission],
        log: Any,
    ) -> None:
        self.submission = submission
        self._hook, self._ledger, self._request = hook, ledger, request
        self._history, self._log = history, log

    def intend(self) -> None:
        """Store that a create call is about to be sent, and look whether another attempt does so, too."""
        self.submission = replace(self.submission, state=State.SENDING)
        try:
            self._ledger.update(self.submission)
            undisturbed(self._ledger, self.submission, self._history)
        except LedgerTaken:
            self.note(State.WITHDRAWN)
            raise VideoSubmitFailed(
                "not submitted, nothing was paid by this attempt: another attempt of this task instance has "
                "written since this one began. A retry goes by what that one has submitted"
            ) from None
        except LedgerUnreadable:
            raise
        except Exception as error:  # whatever a store raises: what cannot be remembered is not sent
            known = self.note(State.WITHDRAWN)
            raise VideoSubmitFailed(
                sentences(
                    f"not submitted, nothing was paid: the intent cannot be stored in {self._ledger.where}: "
                    f"{error!r}",
                    "A retry begins anew" if known else "A retry may take this attempt's outcome as unknown",
                )
            ) from error

    def send(self) -> VideoTask:
        with signals_held():
            if self.submission.state is State.HELD:
                self.intend()
            try:
                task = self._hook.get_conn().submit(self._request)
            except GatewayError as error:
                if not error.maybe_accepted:
                    self.note(State.HELD)
                raise
            self._store_id(task.video_id)
        return task

    def note(self, state: State) -> bool:
        """Store what became of it; False where that fails. It stays in doubt then, which is safe."""
        self.submission = replace(self.submission, state=state)
        try:
            self._ledger.update(self.submission)
        except Exception as error:  # what went wrong before matters more
            self._log.error(
                "that the submission is %s could not be stored in %s: %r. A retry will take its outcome as "
                "unknown",
                state,
                self._ledger.where,
                error,
            )
            return False
        return True

    def _store_id(self, video_id: str) -> None:
        self.submission = replace(
            self.submission, state=State.SUBMITTED, video_id=video_id, waiting_since=time.time()
        )
        # First of all to where nothing can fail: a person can go on from the log.
        self._log.info(
            "the gateway accepted, and will bill, video %s; the next attempt re-attaches to it", video_id
        )
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            stop_after_delay,
            wait_fixed,
        )

        try:
            Retrying(
                stop=stop_after_attempt(STORE_TRIES) | stop_after_delay(STORE_FOR),
                wait=wait_fixed(STORE_EVERY),
                retry=retry_if_exception_type(Exception),
                reraise=True,
            )(self._ledger.update, self.submission)
        except BaseException as error:  # even SystemExit: a retry would pay again
            raise NotRemembered(self.submission) from error
