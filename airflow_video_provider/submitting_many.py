"""The items of a list that are paid for now: a bounded number of create calls at a time.

Each item is carried out by a :class:`~airflow_video_provider.submitting.Submitter` of its own, so that what
holds for a single prompt holds for each. Here is what a list adds:

* The threads store their ids themselves, each in its item's memory. Signals (``execution_timeout``, the end
  of the task) reach the main thread, which holds them until the last thread has stored what it paid for. Once
  one has come, no further create call is sent.
* What is refused for a reason of its own (moderation, a bad value) does not concern the other items. Anything
  else ends the submitting: a bad key would be refused a thousand times, and a gateway that breaks create
  calls off would leave a thousand outcomes in doubt. A retry goes on with what was not submitted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_video_provider.exceptions import VideoSubmitFailed, sentences
from airflow_video_provider.gateway.errors import ErrorKind, GatewayError
from airflow_video_provider.ledger import Attempt, Decision, Policy, Submission, Submit
from airflow_video_provider.ledger.items import ItemLedgers, Memory
from airflow_video_provider.paying import NotRemembered, NotSent, signals_held
from airflow_video_provider.remembering import not_remembered
from airflow_video_provider.submitting import Asked, Submitter

if TYPE_CHECKING:
    from airflow_video_provider.gateway.request import VideoRequest
    from airflow_video_provider.gateway.task import VideoTask
    from airflow_video_provider.hooks.video import VideoHook

__all__ = ["Item", "ManySubmitter", "Settled", "name_of"]

#: Seconds between two looks of the main thread at whether a signal has come.
LOOK_EVERY = 0.5
#: Statuses of a refusal that is about the request that was sent, and not about who sends it where.
_OF_THE_REQUEST = frozenset({200, 400, 413, 422, 451})


def name_of(place: int) -> str:
    """An item as the person who wrote the list finds it."""
    return f"prompts[{place}]"


@dataclass(frozen=True)
class Item:
    """One item of the list, and what was decided on for it."""

    place: int
    asked: Asked
    memory: Memory
    decision: Decision

    @property
    def name(self) -> str:
        """See :func:`name_of`."""
        return name_of(self.place)


@dataclass(frozen=True)
class Settled:
    """What became of one item before the wait.

    :param submission: what there is to wait for; beside an error what was paid for all the same.
    :param task: as the gateway answered, where it was paid for now.
    :param error: why there is nothing to wait for.
    """

    item: Item
    submission: Submission | None = None
    task: VideoTask | None = None
    error: AirflowException | None = None


class _Named:
    """A log whose lines begin with the item."""

    def __init__(self, log: Any, name: str) -> None:
        self._log, self._name = log, name

    def info(self, message: str, *values: object) -> None:
        self._log.info(f"%s: {message}", self._name, *values)

    def warning(self, message: str, *values: object) -> None:
        self._log.warning(f"%s: {message}", self._name, *values)

    def error(self, message: str, *values: object) -> None:
        self._log.error(f"%s: {message}", self._name, *values)


class ManySubmitter:
    """One attempt's way to the submissions of a list.

    :param parallel: how many create calls may be under way at a time.
    :param log: the task's.
    """

    def __init__(
        self,
        hook: VideoHook,
        ledgers: ItemLedgers,
        policy: Policy,
        attempt: Attempt,
        *,
        parallel: int,
        log: Any,
    ) -> None:
        self._hook, self._ledgers, self._policy = hook, ledgers, policy
        self._attempt, self._parallel, self._log = attempt, parallel, log
        self._ended = threading.Event()
        self._why = AirflowException("")

    def carry_out(self, items: Sequence[Item]) -> list[Settled]:
        """Re-attach, stop or pay, each as it was decided on.

        :returns: what became of each, in the order of the list.
        """
        settled = {item.place: self._settle(item) for item in items if not isinstance(item.decision, Submit)}
        to_pay = [item for item in items if isinstance(item.decision, Submit)]
        settled.update((each.item.place, each) for each in self._pay_all(to_pay))
        return [settled[item.place] for item in items]

    def _pay_all(self, items: Sequence[Item]) -> list[Settled]:
        if not items:
            return []
        self._log.info("submitting %d videos, at most %d at a time", len(items), self._parallel)
        with signals_held() as held, ThreadPoolExecutor(self._parallel, "video-create") as pool:
            # A thread does not inherit the context, in which the log finds its task.
            calls = [pool.submit(copy_context().run, self._settle, item) for item in items]
            left = set(calls)
            while left:
                _, left = wait(left, timeout=LOOK_EVERY, return_when=FIRST_COMPLETED)
                if held:
                    self._end(VideoSubmitFailed("the task is ended from outside"))
        return [call.result() for call in calls]

    def _settle(self, item: Item) -> Settled:
        """Carry one item out, in whichever thread."""
        paying = isinstance(item.decision, Submit)
        if paying and self._ended.is_set():
            return Settled(item, error=self._not_begun())
        ledger = self._ledgers.of(item.memory.key)
        call = _Call(self, _Named(self._log, item.name))
        submitter = Submitter(
            self._hook, ledger, self._policy, self._attempt, call.log, item=item.place, create=call.create
        )
        try:
            submission, task = submitter.carry_out(item.decision, item.asked, item.memory.history)
        except NotSent:
            return Settled(item, error=self._not_begun())
        except NotRemembered as lost:
            error = not_remembered(ledger, lost)
            # Whatever ends this process next, the id stands in the log.
            self._log.error("%s: %s", item.name, error)
            self._end(VideoSubmitFailed("an id could not be stored"))
            return Settled(item, lost.submission, error=error)
        except AirflowException as error:
            if paying and not call.refused_by_itself:
                self._end(VideoSubmitFailed(str(error)) if call.may_help else error)
            return Settled(item, error=error)
        except BaseException:
            self._end(VideoSubmitFailed("another item broke off"))
            raise
        return Settled(item, submission, task)

    # -- the end of the submitting -------------------------------------------------------------------------

    def _end(self, why: AirflowException) -> None:
        if not self._ended.is_set():
            self._why = why
            self._ended.set()

    def _not_begun(self) -> AirflowException:
        final = isinstance(self._why, AirflowFailException)
        return (AirflowFailException if final else VideoSubmitFailed)(
            sentences(
                "not submitted, nothing was paid: the submitting of the list has ended before",
                f"Why: {str(self._why)[:200]}",
                "" if final else "A retry submits it",
            )
        )

    def may_send(self) -> bool:
        """Whether a create call may be sent, looked at right before it is and after its intent is stored."""
        try:
            if not self._ended.is_set() and self._ledgers.is_taken():
                self._end(VideoSubmitFailed("another attempt of this task has begun, with another list"))
        except Exception as error:  # whatever a store raises: it must not look as if something had been sent
            self._end(VideoSubmitFailed(f"{self._ledgers.where} cannot be read: {error!r}"))
        return not self._ended.is_set()

    def rest(self, seconds: float) -> None:
        """Sleep until then, or until the submitting has ended."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._ended.is_set():
            time.sleep(min(left, LOOK_EVERY))


class _Call:
    """The create calls of one item, and what their refusal says about the others.

    :ivar refused_by_itself: whether the refusal is about this item alone.
    :ivar may_help: whether a retry may submit the others.
    """

    def __init__(self, many: ManySubmitter, log: _Named) -> None:
        self._many = many
        self.log = log
        self.refused_by_itself = False
        self.may_help = True

    def create(self, request: VideoRequest, send: Callable[[], VideoTask]) -> VideoTask:
        """See :data:`~airflow_video_provider.paying.Create`."""
        try:
            return self._many._hook.submit(request, partial(self._unless_ended, send), self._many.rest)
        except GatewayError as error:
            of_the_request = error.kind is ErrorKind.INVALID_REQUEST and error.status_code in _OF_THE_REQUEST
            self.refused_by_itself = not error.maybe_accepted and (
                error.kind is ErrorKind.MODERATION or of_the_request
            )
            self.may_help = error.retryable or error.maybe_accepted
            raise

    def _unless_ended(self, send: Callable[[], VideoTask]) -> VideoTask:
        if not self._many.may_send():
            raise NotSent
        return send()
