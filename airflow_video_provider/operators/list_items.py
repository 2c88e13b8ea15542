"""What is paid for of a list of prompts: all that may be wrong is found before anything is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_video_provider.exceptions import VideoSubmitFailed, sentences
from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.ledger import Attempt, LedgerUnreadable, Stale, Submit, decide
from airflow_video_provider.ledger.decision import cleared_since
from airflow_video_provider.ledger.items import ItemLedgers, Memory, assigned, over_budget
from airflow_video_provider.operators.knobs import asked_of_each
from airflow_video_provider.remembering import unreadable
from airflow_video_provider.submitting import nothing_paid
from airflow_video_provider.submitting_many import Item, ManySubmitter, Settled, name_of

if TYPE_CHECKING:
    from airflow_video_provider.hooks.video import VideoHook
    from airflow_video_provider.operators.generate import VideoGenerateOperator

__all__ = ["check_arguments", "settled"]

MOST_PARALLEL = 32
#: How many items that are wrong a message names; each has an error of its own.
MOST_NAMED = 3


def check_arguments(
    prompt: object, prompts: object, parallel: int, max_total_generations: int | None, cancel_on_kill: bool
) -> None:
    """Check what concerns lists, while the Dag is parsed.

    :raises ValueError: naming the argument.
    """
    if (prompt is None) == (prompts is None):
        raise ValueError("prompt, prompts: give one of them, a prompt for one video or a list for several")
    if isinstance(parallel, bool) or not isinstance(parallel, int) or not 1 <= parallel <= MOST_PARALLEL:
        raise ValueError(f"parallel: {parallel!r} must be a whole number from 1 to {MOST_PARALLEL}")
    most = max_total_generations
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ValueError(f"max_total_generations: {most!r} must be a whole number, at least 1, or None")
    if prompts is not None and cancel_on_kill:
        raise ValueError(
            "cancel_on_kill: is for a single prompt, a killed worker has no time to cancel a list. For "
            "videos that are to be cancelled map the operator: .partial(…).expand(prompt=[…])"
        )


def settled(
    operator: VideoGenerateOperator,
    attempt: Attempt,
    hook: VideoHook,
    ledgers: ItemLedgers,
    memories: Sequence[Memory],
) -> list[Settled]:
    """Submit each item of an operator's list, re-attach to it, or find out why not.

    :param ledgers: where it is remembered.
    :param memories: what is remembered.
    :returns: what became of each, in the order of the list.
    :raises AirflowFailException: the connection or the list as a whole cannot be used.
    :raises VideoSubmitFailed: another attempt has begun, or the memory cannot be written; nothing was sent.
    """
    items, left = _decided(operator, attempt, hook, memories)
    _tell_of(left, ledgers, operator)
    most = operator.max_total_generations
    still = [memory for memory in left if not cleared_since(memory.history[-1], attempt)]
    refused = _refused(items, most) or _over_budget(items, still, most)
    going = [item for item in items if item.place not in refused]
    if any(isinstance(item.decision, Submit) for item in going):
        _note([item.memory for item in items], ledgers)
    submitter = ManySubmitter(
        hook, ledgers, operator.policy, attempt, parallel=operator.parallel, log=operator.log
    )
    done = {each.item.place: each for each in submitter.carry_out(going)}
    return [done.get(item.place) or Settled(item, error=refused[item.place]) for item in items]


def _decided(
    operator: VideoGenerateOperator, attempt: Attempt, hook: VideoHook, memories: Sequence[Memory]
) -> tuple[list[Item], list[Memory]]:
    try:
        asked = asked_of_each(operator, hook.get_conn())
    except InvalidRequestError as error:
        history = [submission for memory in memories for submission in memory.history]
        raise AirflowFailException(nothing_paid(str(error), history)) from None
    mine, left = assigned(memories, [each.digests for each in asked], attempt)
    items = []
    for place, (each, memory) in enumerate(zip(asked, mine, strict=True)):
        decision = decide(memory.history, attempt, each.digests, operator.policy)
        if isinstance(decision, Stale):
            raise VideoSubmitFailed(sentences(decision.why))
        items.append(Item(place, each, memory, decision))
    return items, left


def _tell_of(left: Sequence[Memory], ledgers: ItemLedgers, operator: VideoGenerateOperator) -> None:
    ledgers.left = frozenset(memory.key for memory in left)
    for memory in left:
        operator.log.warning(
            "%s is of an item that is in the list no more, and is left: nothing waits for it",
            memory.history[-1].name,
        )


def _refused(items: Sequence[Item], most: int | None) -> dict[int, AirflowException]:
    """Where anything is wrong with the list, nothing more of it is paid for."""
    to_pay = [item for item in items if isinstance(item.decision, Submit)]
    wrong = {item.place: str(item.asked.problem) for item in to_pay if item.asked.request is None}
    if wrong:
        named = ", ".join(map(name_of, list(wrong)[:MOST_NAMED]))
        why = f"nothing of the list is paid for before {named} {'is' if len(wrong) == 1 else 'are'} put right"
    elif to_pay and most is not None and len(items) > most:
        why = f"max_total_generations: {most} is too few for a list of {len(items)}"
    else:
        return {}
    return {
        item.place: AirflowFailException(
            nothing_paid(wrong.get(item.place, f"not submitted, nothing was paid: {why}."), ())
        )
        for item in to_pay
    }


def _over_budget(
    items: Sequence[Item], left: Sequence[Memory], most: int | None
) -> dict[int, AirflowException]:
    places = over_budget([item.decision for item in items], [item.memory for item in items], left, most)
    return {
        place: AirflowFailException(
            f"not submitted, nothing was paid by this attempt: the list may pay for {most} generations. "
            "Clear this task to begin anew, or raise max_total_generations."
        )
        for place in places
    }


def _note(memories: Sequence[Memory], ledgers: ItemLedgers) -> None:
    try:
        ledgers.note(memories)
    except LedgerUnreadable as error:
        raise unreadable(ledgers, error) from None
    except Exception as error:  # whatever a store raises: what cannot be found again is not sent
        raise VideoSubmitFailed(
            sentences(
                f"not submitted, nothing was paid by this attempt: the list of items cannot be stored in "
                f"{ledgers.where}: {error!r}",
                "A retry begins anew",
            )
        ) from error
