"""What an attempt does about what is remembered: submit, re-attach, or stop. Pure: no clock, no store.

=======================  ======================================  ==========================================
the last submission      Airflow's retry                         a Clear
=======================  ======================================  ==========================================
none                     submits                                 submits
in doubt                 stops (``resubmit``: submits)           stops; once that was told, submits
accepted nothing         submits                                 submits
submitted                re-attaches, whatever has changed       re-attaches; a changed request submits
failed at the gateway    submits up to ``max_generations``       submits
refused by moderation    stops                                   stops; a changed request submits
withheld by moderation   stops (``retry_refused_output``: as     submits
                         failed)
gone from the gateway    queries it again                        queries it once more, then submits
=======================  ======================================  ==========================================

``on_clear="new"`` submits on every Clear. In a Dag run that an operator started a Clear with the same request
is taken for a retry. An attempt that is older than the one that wrote last leaves everything to that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from airflow_video_provider.ledger.record import Attempt, Ended, State, Submission
from airflow_video_provider.waiting import utc

__all__ = [
    "Decision",
    "OnClear",
    "OnUnknownSubmission",
    "Policy",
    "Reattach",
    "Stale",
    "Stop",
    "Submit",
    "decide",
    "in_doubt",
]

OnClear = Literal["reuse", "new"]
OnUnknownSubmission = Literal["fail", "resubmit"]


@dataclass(frozen=True)
class Policy:
    """What the user allows.

    :param max_generations: how many one task instance may pay for between two Clears.
    :param on_clear: ``new`` submits anew on every Clear, None and ``reuse`` only for a changed request.
    :param on_unknown_submission: ``resubmit`` is the one way to pay twice for one video.
    :param retry_refused_output: a video that moderation withheld counts as a failed generation.
    :raises ValueError: naming the argument.
    """

    max_generations: int = 2
    on_clear: OnClear | None = None
    on_unknown_submission: OnUnknownSubmission = "fail"
    retry_refused_output: bool = False

    def __post_init__(self) -> None:
        allowed = self.max_generations
        if isinstance(allowed, bool) or not isinstance(allowed, int) or allowed < 1:
            raise ValueError(f"max_generations: {allowed!r} must be a whole number, at least 1")
        for name, value, words in (
            ("on_clear", self.on_clear, (None, *get_args(OnClear))),
            ("on_unknown_submission", self.on_unknown_submission, get_args(OnUnknownSubmission)),
        ):
            if value not in words:
                raise ValueError(f"{name}: {value!r} is none; allowed: {', '.join(map(str, words))}")
        if not isinstance(self.retry_refused_output, bool):
            raise ValueError(f"retry_refused_output: {self.retry_refused_output!r} must be True or False")


@dataclass(frozen=True)
class Submit:
    """Pay for a generation.

    :param generation: which one it is since the last Clear.
    :param why: for the log, where it is not simply the first.
    """

    generation: int = 1
    why: str | None = None
    lost: Submission | None = None
    """One that the gateway did not know any more: where it does by now, that is re-attached to instead."""
    begins_anew: bool = False
    """What is remembered is of another Dag run, and can be forgotten."""


@dataclass(frozen=True)
class Stale:
    """Do nothing: a later attempt has written since this one was begun."""

    why: str


@dataclass(frozen=True)
class Reattach:
    """Wait for a video that is paid for.

    :param cleared: a Clear began this attempt.
    :param changed: the fields in which the request differs from the one that was paid for.
    """

    submission: Submission
    cleared: bool = False
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stop:
    """Fail for good; nothing is paid.

    :param submission: the one that the message is about.
    :param doubts: submissions whose outcome is in doubt; telling of them is what makes the next Clear a
        decision.
    """

    why: str
    submission: Submission
    doubts: tuple[Submission, ...] = ()


Decision = Submit | Reattach | Stop | Stale


def cleared_since(submission: Submission, attempt: Attempt) -> bool:
    """Whether somebody cleared the task after the attempt that last used a submission.

    A Clear sets ``max_tries`` anew: higher, or (after ``retries`` were lowered) lower or by chance the same.
    For that chance: what has succeeded is begun again by a Clear, which counts in ``clear_number``. That
    counts Clears of other tasks as well, so an outcome in doubt is not settled by it.
    """
    last = submission.attempt
    if attempt.max_tries != last.max_tries:
        return True
    counted = None not in (attempt.clear_number, last.clear_number)
    return submission.ended is Ended.SUCCEEDED and counted and attempt.clear_number != last.clear_number


def decide(
    history: Sequence[Submission], attempt: Attempt, request: Mapping[str, str] | None, policy: Policy
) -> Decision:
    """Decide what this attempt does.

    :param history: what is remembered, oldest first.
    :param attempt: this one.
    :param request: its request by digests; None where it is not a valid request.
    """
    mine = [s for s in history if not attempt.is_of_another_run(s.attempt)]
    if not mine:
        return Submit(why=_another_run(history[-1]), begins_anew=True) if history else Submit()
    current = mine[-1]
    if attempt.try_number < current.attempt.try_number:
        return Stale(
            f"attempt {attempt.try_number} is not the latest: attempt {current.attempt.try_number} has "
            f"written of {current.name} since. This one pays nothing, and leaves it to that one"
        )
    if not cleared_since(current, attempt):
        return _after_a_retry(current, request, policy)
    nobodys = attempt.started_by_operator and policy.on_clear != "new"
    if nobodys and request is not None and not current.changes(request):
        return _after_a_retry(current, request, policy, by_clear=False)
    return _after_a_clear(mine, request, policy)


def _after_a_retry(
    current: Submission, request: Mapping[str, str] | None, policy: Policy, *, by_clear: bool = True
) -> Decision:
    following = current.generation + 1
    match current.state:
        case State.SUBMITTED | State.GONE:
            return Reattach(current, changed=() if request is None else current.changes(request))
        case State.HELD:
            return Submit(current.generation)
        case State.SENDING if policy.on_unknown_submission == "resubmit" and _allowed(following, policy):
            return Submit(following, why=f"{_unknown(current)}. {_RESUBMITTED}")
        case State.SENDING:
            return Stop(in_doubt(current, by_clear=by_clear), current, doubts=(current,))
        case _ if current.refused_input:
            return Stop(_refused(current), current)
        case _ if current.refused_output and not policy.retry_refused_output:
            return Stop(_withheld(current), current)
        case _ if not _allowed(following, policy):
            return Stop(_spent(current, policy), current)
        case _:
            return Submit(following, why=f"video {current.video_id} failed at the gateway")


def _after_a_clear(mine: Sequence[Submission], request: Mapping[str, str] | None, policy: Policy) -> Decision:
    current = mine[-1]
    if policy.on_clear == "new":
        return Submit(why=f'cleared, with on_clear="new"{_left(current)}')
    if request is None:
        # Whoever cleared it will see what is wrong with the request, and what is paid for is still known.
        return Submit()
    same = [s for s in mine if not s.changes(request)]
    if paid := [s for s in same if s.state is State.SUBMITTED]:
        return Reattach(paid[-1], cleared=True)
    doubts = tuple(s for s in mine if s.state is State.SENDING and (s in same or s is current))
    if untold := [s for s in doubts if not s.told]:
        return Stop(in_doubt(untold[-1]), untold[-1], doubts=doubts)
    if same and same[-1].refused_input:
        return Stop(_refused(same[-1]), same[-1])
    changed = current.changes(request)
    what = f", and {_these(changed)} changed" if changed else ""
    return Submit(
        why=f"cleared{what}: submitting anew{_left(current)}",
        lost=same[-1] if same and same[-1].state is State.GONE else None,
    )


def _allowed(generation: int, policy: Policy) -> bool:
    return generation <= policy.max_generations


def _these(names: Sequence[str]) -> str:
    return ", ".join(names)


def _left(current: Submission) -> str:
    if current.state is State.SENDING:
        return f"; whether the submission begun at {utc(current.begun_at)} was accepted was never known"
    return f"; video {current.video_id} was paid for and is left" if current.video_id else ""


def _another_run(last: Submission) -> str:
    return f"{last.name} belongs to another Dag run of the same name, which was deleted since"


def _unknown(submission: Submission) -> str:
    return (
        f"attempt {submission.begun_by} began to submit at {utc(submission.begun_at)}, and whether "
        "the gateway accepted is not known"
    )


_RESUBMITTED = (
    'Submitting it again all the same, as on_unknown_submission="resubmit" says: this may pay twice for one '
    "video"
)


def in_doubt(submission: Submission, *, by_clear: bool = True) -> str:
    """The message about a submission whose outcome is not known, without how it came to that.

    :param by_clear: a Clear after this is taken for a decision to submit again.
    """
    go_on = (
        "If it is not, and no worker of that attempt is alive any more, clear this task to submit again"
        if by_clear
        else "If it is not, give the task on_unknown_submission or on_clear for one run: this Dag run was "
        "started by an operator, whose retries clear it, so a Clear may be nobody's decision"
    )
    return (
        f"{_unknown(submission)}: it may have accepted and billed the generation, so it is not sent again. "
        f"Look in the gateway's console ({submission.gateway}, connection {submission.video_conn_id}) for a "
        f"task of model {submission.model} of about that time (prompt digest "
        f"{submission.request.get('prompt')}): if it is there, wait for its id with VideoTaskSensor. {go_on}"
    )


def _refused(submission: Submission) -> str:
    return (
        f"video {submission.video_id} was refused by moderation, and the same request would be again: not "
        'submitted. Change the prompt or the images; on_clear="new" submits it unchanged'
    )


def _withheld(submission: Submission) -> str:
    return (
        f"video {submission.video_id} was made and then withheld by moderation: no other is paid for by "
        "itself. Clear this task to pay for another, or give it retry_refused_output=True"
    )


def _spent(submission: Submission, policy: Policy) -> str:
    return (
        f"generation {submission.generation} of at most {policy.max_generations} (video "
        f"{submission.video_id}) failed: no other is paid for. Clear this task to begin anew, or raise "
        "max_generations"
    )
