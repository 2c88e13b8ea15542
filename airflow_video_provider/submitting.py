"""Which video an attempt waits for: one that an earlier attempt paid for, or one that is paid for now.

What to do is decided in :mod:`airflow_video_provider.ledger.decision`; here it is carried out, stored and
logged, and what goes wrong becomes a message for the person on call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_video_provider.exceptions import VideoGatewayUnreachable, VideoSubmitFailed, sentences
from airflow_video_provider.gateway.errors import (
    BotCheckError,
    ErrorKind,
    GatewayError,
    InvalidRequestError,
    NotFoundError,
)
from airflow_video_provider.ledger import (
    Attempt,
    Decision,
    Ended,
    Ledger,
    LedgerUnreadable,
    Policy,
    Reattach,
    Stale,
    State,
    StateStoreLedger,
    Stop,
    Submission,
    decide,
    in_doubt,
)
from airflow_video_provider.paying import Create, pay, signals_held
from airflow_video_provider.remembering import forgotten, read, stored, unreadable
from airflow_video_provider.waiting import utc

if TYPE_CHECKING:
    from airflow_video_provider.gateway.client import Gateway
    from airflow_video_provider.gateway.request import VideoRequest
    from airflow_video_provider.gateway.task import VideoTask
    from airflow_video_provider.hooks.video import VideoHook

__all__ = ["Asked", "Submitter", "nothing_paid"]

#: How many tasks that the gateway lists are named in the message about a submission in doubt.
MOST_CANDIDATES = 3


@dataclass(frozen=True)
class Asked:
    """What the operator's arguments ask for: a request, or the problem with it.

    :param digests: of the request. They may be there without one: a reference picture that is gone does not
        make a paid video another one. None: the arguments are no request at all.
    """

    request: VideoRequest | None
    digests: dict[str, str] | None
    problem: str | None = None


@dataclass(frozen=True)
class Submitter:
    """One attempt's way to a submission.

    :param log: the task's.
    :param item: place in a list of prompts.
    :param create: see :func:`~airflow_video_provider.paying.pay`.
    """

    hook: VideoHook
    ledger: Ledger
    policy: Policy
    attempt: Attempt
    log: Any
    item: int = 0
    create: Create | None = None

    def settle(
        self, history: Sequence[Submission], ask: Callable[[Gateway], Asked]
    ) -> tuple[Submission, VideoTask | None]:
        """Re-attach or pay.

        :param history: what is remembered.
        :param ask: reads the operator's arguments and checks them against the connection's gateway.
        :returns: the submission to wait for, and the task as the gateway answered if it was paid for now.
        :raises AirflowFailException: neither; the message says why, and what became of what was paid for.
        :raises VideoSubmitFailed: nothing was accepted, and a retry may help.
        :raises NotRemembered: it was paid for, and the id could not be stored.
        """
        try:
            gateway = self.hook.get_conn()
        except InvalidRequestError as error:
            raise AirflowFailException(nothing_paid(str(error), history)) from None
        asked = ask(gateway)
        return self.carry_out(decide(history, self.attempt, asked.digests, self.policy), asked, history)

    def carry_out(
        self, decision: Decision, asked: Asked, history: Sequence[Submission]
    ) -> tuple[Submission, VideoTask | None]:
        """Do what was decided on; see :meth:`settle`."""
        if isinstance(decision, Reattach):
            return self._reattach(decision, history), None
        if isinstance(decision, Stop):
            raise self._stopped(decision)
        if isinstance(decision, Stale):
            raise VideoSubmitFailed(sentences(decision.why))
        if decision.lost is not None and self._is_found(decision.lost):
            return self._reattach(Reattach(decision.lost, cleared=True), history), None
        if asked.request is None or asked.digests is None:
            raise AirflowFailException(nothing_paid(str(asked.problem), history))
        if decision.why:
            self.log.warning("%s", decision.why)
        elif not history and self.attempt.clear_number and self.ledger.forgets:
            self.log.warning(
                "nothing is remembered of an earlier attempt. If this task instance had succeeded before it "
                "was cleared, this pays again: %s",
                self.ledger.forgets,
            )
        if decision.begins_anew:
            history = ()
            forgotten(self.ledger)
        submission = Submission.new(
            order=max((s.order for s in history), default=0) + 1,
            generation=decision.generation,
            model=asked.request.model,
            video_conn_id=self.hook.video_conn_id,
            gateway=self.hook.get_conn().settings.base_url,
            begun_at=time.time(),
            begun_by=self.attempt.try_number,
            request=asked.digests,
            attempt=self.attempt,
            keep=self.policy.on_clear == "reuse",
            item=self.item,
        )
        return self._pay(submission, asked.request, history)

    def _pay(
        self, submission: Submission, request: VideoRequest, history: Sequence[Submission]
    ) -> tuple[Submission, VideoTask]:
        which = self._which(submission)
        if self.ledger.forgets and isinstance(self.ledger, StateStoreLedger):
            self.log.warning("a Clear after success will pay anew: %s", self.ledger.forgets)
        self.log.info(
            "submitting %s: model %s, prompt digest %s, through connection %s (%s), remembered in %s. If "
            "this process dies before the gateway has answered, the next attempt stops and says how to find "
            "out",
            which, submission.model, submission.request["prompt"], submission.video_conn_id,
            submission.gateway, self.ledger.where,
        )  # fmt: skip
        try:
            submission, task = pay(
                self.hook, self.ledger, submission, request, history=history, log=self.log, create=self.create
            )
        except LedgerUnreadable as error:
            raise unreadable(self.ledger, error) from None
        except GatewayError as error:
            if error.maybe_accepted:
                by_clear = not self.attempt.started_by_operator
                raise self._told(
                    (f"the create call broke off: {error}", in_doubt(submission, by_clear=by_clear)),
                    (submission,),
                ) from None
            raise _not_submitted(error, history) from None
        self.log.info(
            "submitted video %s at %s (%s, model %s): %s. It is paid for; if this task is killed now, the "
            "next attempt re-attaches to it and pays nothing",
            task.video_id, utc(submission.begun_at), which, submission.model, task.line,
        )  # fmt: skip
        return submission, task

    def _reattach(self, decision: Reattach, history: Sequence[Submission]) -> Submission:
        paid, now = decision.submission, time.time()
        self.log.info(
            "re-attaching to video %s (%s), submitted at %s, %.0f s ago, by attempt %s: nothing is paid",
            paid.video_id, self._which(paid), utc(paid.begun_at), now - paid.begun_at,
            paid.begun_by,
        )  # fmt: skip
        if decision.changed:
            self.log.warning(
                "the request has changed since (%s): a retry waits for what was paid for. For a video of the "
                "new request clear the task",
                ", ".join(decision.changed),
            )
        paid = replace(paid.used_by(self.attempt), state=State.SUBMITTED)
        if decision.cleared:
            # This attempt uses the Clear up: what follows is a retry. It begins a new wait and a new count.
            paid = replace(paid, order=history[-1].order + 1, generation=1, waiting_since=now)
        stored(self.ledger, paid)
        return paid

    def _is_found(self, lost: Submission) -> bool:
        """Whether the gateway knows a video again that it did not know.

        :raises VideoGatewayUnreachable: it cannot be queried now, and unknown is not absent.
        """
        try:
            self.hook.get_task(str(lost.video_id))
        except NotFoundError:
            return False
        except GatewayError as error:
            raise VideoGatewayUnreachable(
                sentences(
                    f"video {lost.video_id}, which was paid for, cannot be queried: {error}",
                    "Nothing was submitted; a retry queries it again",
                )
            ) from None
        return True

    def _stopped(self, decision: Stop) -> AirflowException:
        if decision.doubts:
            return self._told((decision.why,), decision.doubts)
        used = decision.submission.used_by(self.attempt)
        stored(self.ledger, used.ended_as(Ended.FAILED_FOR_GOOD))
        return AirflowFailException(sentences(decision.why))

    def _told(self, why: Sequence[str], doubts: Sequence[Submission]) -> AirflowException:
        """Tell of an outcome in doubt, and only then note that it was told.

        :raises VideoSubmitFailed: the outcome has become known meanwhile.
        """
        message = sentences(*why, *self._candidates(doubts[-1]))
        # Not by the exception alone: what ends this process before that is shown must leave it untold.
        self.log.error("%s", message)
        with signals_held():
            now = {s.nonce: s for s in read(self.ledger)}
            for doubt in doubts:
                found = now.get(doubt.nonce, doubt)
                if found.state is not State.SENDING:
                    raise VideoSubmitFailed(
                        f"{found.name} was heard of meanwhile, and nothing was paid by this attempt. A retry "
                        "goes by that."
                    )
                used = found.used_by(self.attempt)
                stored(self.ledger, used.ended_as(Ended.FAILED_FOR_GOOD, told=True))
        return AirflowFailException(message)

    def _candidates(self, submission: Submission) -> tuple[str, ...]:
        """What the gateway lists since the intent, where its dialect can list: help, and no verdict."""
        try:
            tasks = self.hook.get_conn().list_tasks()
        except GatewayError as error:
            self.log.info("the gateway's tasks cannot be listed: %s", error)
            return ()
        since = [t for t in tasks if t.created_at and t.created_at.timestamp() >= submission.begun_at - 5]
        of_model = [t for t in since if t.model in (None, submission.model)]
        if not of_model:
            return ()
        named = ", ".join(t.video_id for t in of_model[:MOST_CANDIDATES])
        more = len(of_model) - MOST_CANDIDATES
        return (f"Since then the gateway lists: {named}" + (f" and {more} more" if more > 0 else ""),)

    def _which(self, submission: Submission) -> str:
        return f"generation {submission.generation} of at most {self.policy.max_generations}"


# -- messages ----------------------------------------------------------------------------------------------

_WHAT_TO_CHANGE = {
    ErrorKind.AUTHENTICATION: "check the connection's password",
    ErrorKind.QUOTA: "top up the account, or use another connection",
    ErrorKind.MODERATION: "change the prompt or the images",
    ErrorKind.INVALID_REQUEST: "change what the message names",
    ErrorKind.NOT_FOUND: "check the connection's host, path prefix and dialect",
    ErrorKind.RATE_LIMIT: "give the submitting tasks a pool",
    ErrorKind.SERVER: "check the model's name, and the gateway's status",
    ErrorKind.TRANSPORT: "check the connection's host and port",
}


_BOT_CHECK = "change the prompt or the images, or try another User-Agent in the connection's headers"


def _what_to_change(error: GatewayError) -> str:
    if isinstance(error, BotCheckError):
        return _BOT_CHECK
    return _WHAT_TO_CHANGE.get(error.kind, "")


def _not_submitted(error: GatewayError, history: Sequence[Submission]) -> AirflowException:
    said = f"not submitted, nothing was paid: {error}"
    change = _what_to_change(error)
    if error.retryable:
        return VideoSubmitFailed(sentences(said, f"A retry submits it again; {change}"))
    return AirflowFailException(sentences(said, f"A retry would not help: {change}", *_remembered(history)))


def nothing_paid(problem: str, history: Sequence[Submission]) -> str:
    """The message about a request that cannot be submitted, and about what is remembered all the same."""
    said = problem if "nothing was paid" in problem else f"not submitted, nothing was paid: {problem}"
    remembered = _remembered(history)
    return sentences(said, *remembered) if remembered else said


def _remembered(history: Sequence[Submission]) -> tuple[str, ...]:
    paid = [s.video_id for s in history if s.video_id]
    return (
        (
            f"Video {paid[-1]} of an earlier attempt was paid for and is still remembered: put right what "
            "the message names, then clear this task to re-attach",
        )
        if paid
        else ()
    )
