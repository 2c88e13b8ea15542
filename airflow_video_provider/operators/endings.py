"""What the end of a wait means for the task: what is remembered of it, and what is raised."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_video_provider.exceptions import (
    VideoGatewayUnreachable,
    VideoTaskFailed,
    VideoTaskTimeout,
    sentences,
)
from airflow_video_provider.gateway.errors import GatewayError
from airflow_video_provider.gateway.refusals import Refusal, is_bot_check
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.ledger import Ended, Policy, State, Submission

if TYPE_CHECKING:
    from airflow_video_provider.gateway.task import VideoTask
    from airflow_video_provider.hooks.video import VideoHook

__all__ = ["failure", "queried", "remembered"]

_RETRIED = {End.TIMED_OUT: VideoTaskTimeout, End.UNREACHABLE: VideoGatewayUnreachable}
_FINAL = frozenset({End.GONE, End.REFUSED})
_WHAT_A_CLEAR_DOES = {
    End.GONE: "It is still remembered. If the connection was wrong, correct it: a Clear of this task queries "
    "the video once more, and pays for a new generation only where the gateway does not know it then either",
    End.REFUSED: "A Clear of this task re-attaches to it and pays nothing",
}
_ADVICE = {
    Refusal.INPUT: "Change the prompt or the images",
    Refusal.OUTPUT: (
        "It was made and then withheld, so the same request may pass: change the prompt or the images, clear "
        "this task to pay for another, or let retries do so with retry_refused_output=True"
    ),
}
_BOT_CHECK = "Change the prompt or the images, or try another User-Agent in the connection's headers"


def _final_refusal(done: Done, policy: Policy) -> Refusal | None:
    """What moderation refused, where no retry is worth paying for; None else."""
    said = (done.task or {}).get("refusal") if done.end is End.FAILED else None
    if said is None or (said == Refusal.OUTPUT and policy.retry_refused_output):
        return None
    return Refusal(said)


def queried(hook: VideoHook, submission: Submission) -> VideoTask:
    """A task that an earlier attempt submitted, for a task that does not wait.

    :raises VideoGatewayUnreachable: the gateway does not tell of it.
    """
    try:
        return hook.get_task(str(submission.video_id))
    except GatewayError as error:
        raise VideoGatewayUnreachable(
            sentences(
                f"video {submission.video_id} was submitted by an earlier attempt, and the gateway does not "
                f"tell of it: {error}",
                "Nothing was submitted; a retry queries it again",
            )
        ) from None


def remembered(done: Done, submission: Submission, policy: Policy) -> Submission | None:
    """A submission after its wait ended badly; None where nothing changes."""
    if done.end is End.FAILED:
        refusal = _final_refusal(done, policy)
        submission = replace(
            submission,
            state=State.FAILED,
            refused_input=refusal is Refusal.INPUT,
            refused_output=(done.task or {}).get("refusal") == Refusal.OUTPUT,
        )
        spent = refusal is not None or submission.generation >= policy.max_generations
        return submission.ended_as(Ended.FAILED_FOR_GOOD) if spent else submission
    if done.end in _FINAL:
        state = State.GONE if done.end is End.GONE else submission.state
        return submission.ended_as(Ended.FAILED_FOR_GOOD, state=state, told=True)
    return None


def failure(done: Done, submission: Submission | None, policy: Policy) -> AirflowException:
    """What to raise: Airflow retries it, or (``AirflowFailException``) does not."""
    if done.end in _FINAL:
        return AirflowFailException(sentences(done.message, _WHAT_A_CLEAR_DOES[done.end]))
    if done.end in _RETRIED:
        return _RETRIED[done.end](sentences(done.message, "A retry re-attaches to it and pays nothing"))
    if (refusal := _final_refusal(done, policy)) is not None:
        facts = done.task or {}
        bot_check = is_bot_check(facts.get("failure"), facts.get("failure_code"), facts.get("raw_status"))
        return AirflowFailException(sentences(done.message, _BOT_CHECK if bot_check else _ADVICE[refusal]))
    generation, allowed = (submission.generation if submission else 1), policy.max_generations
    which = f"This was generation {generation} of at most {allowed}"
    if generation >= allowed:
        return AirflowFailException(
            sentences(done.message, which, "No other is paid for; clear this task to begin anew")
        )
    return VideoTaskFailed(sentences(done.message, which, "A retry submits, and pays for, a new one"))
