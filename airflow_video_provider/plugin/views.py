"""What the pages show, decided from what is recorded. Pure: no database, no gateway, no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from airflow_video_provider.plugin.links import OPERATORS
from airflow_video_provider.plugin.recorded import Recorded, TaskKey, Wait
from airflow_video_provider.video_status import VideoStatus

__all__ = ["Card", "State", "Tab", "cards_of", "next_query", "tab_of", "what_comes"]


class State(StrEnum):
    """How far a video is."""

    LANDED = "landed"
    READY = "ready"
    """Generated, and not downloaded by this run (yet)."""
    WAITING = "waiting"
    FAILED = "failed"


#: Airflow's states of a task instance, but for those that mean that it is on its way.
_STATE_OF_TASK = {
    "success": State.READY,
    "failed": State.FAILED,
    "up_for_retry": State.FAILED,
    "upstream_failed": State.FAILED,
    "skipped": State.FAILED,
    "removed": State.FAILED,
}


@dataclass(frozen=True)
class Card:
    """A video in a gallery.

    :param key: the task instance that it belongs to.
    :param file: its number among what that task landed; None where it is no file.
    :param facts: of the file.
    :param note: why it failed.
    :param label: the mapped index as Airflow's grid shows it.
    """

    key: TaskKey
    state: State
    at: datetime | None
    video_id: str | None = None
    prompt: str | None = None
    model: str | None = None
    file: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None
    label: str | None = None


def cards_of(rows: Sequence[Recorded]) -> list[Card]:
    """Make the cards of a gallery, in the order of the rows, the newest first: one for a video of a run.

    What a download speaks of is its: the tasks that generated and awaited it have no cards of their own.
    Of those, the newest has; a sensor knows neither prompt nor model, which the task that submitted knows.
    """
    shown: set[tuple[str, str | None]] = set()
    submitted: dict[tuple[str, str | None], VideoStatus] = {}
    for row in rows:
        if row.status is not None and row.status.kind == "download":
            shown |= {(row.key.run_id, video_id) for video_id in _ids(row.status)}
        elif row.status is not None and row.status.kind == "generate":
            submitted[row.key.run_id, row.status.video_id] = row.status
    cards = []
    for row in rows:
        for card in _cards(row, row.status) if row.status is not None else ():
            which = (row.key.run_id, card.video_id)
            if row.status is not None and row.status.kind != "download" and card.video_id is not None:
                if which in shown:
                    continue
                shown.add(which)
            if (known := submitted.get(which)) is not None and card.video_id is not None:
                card = replace(card, prompt=card.prompt or known.prompt, model=card.model or known.model)
            cards.append(card)
    return cards


def _ids(status: VideoStatus) -> Iterator[str]:
    for video_id in (status.video_id, *(item.get("video_id") for item in (*status.files, *status.missed))):
        if isinstance(video_id, str):
            yield video_id


def _cards(row: Recorded, status: VideoStatus) -> Iterator[Card]:
    state = _STATE_OF_TASK.get(row.state or "", State.WAITING)
    card = Card(
        row.key, state, row.recorded_at, status.video_id, status.prompt, status.model, label=row.label
    )
    for number, file in enumerate(status.files):
        yield replace(
            card,
            state=State.LANDED,
            file=number,
            facts=file,
            video_id=_text(file.get("video_id")),
            prompt=_text(file.get("prompt")),
            model=_text(file.get("model")),
        )
    for item in status.missed:
        note = _text(item.get("error"))
        yield replace(card, state=State.FAILED, video_id=_text(item.get("video_id")), note=note)
    if not status.files and not status.missed:
        yield replace(card, note=status.failure)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Tab:
    """What the Video tab of a task instance shows.

    :param state: None for a task that makes no video, or has not begun.
    :param card: the one video.
    :param cards: several, in place of the one.
    :param message: why it failed, why there is nothing to see, or what else there is to be said.
    :param comes: what Airflow does next.
    :param usage: what the video cost, as the gateway tells it.
    """

    state: State | None
    card: Card | None = None
    cards: tuple[Card, ...] = ()
    message: str | None = None
    comes: str | None = None
    usage: Mapping[str, Any] | None = None
    status: VideoStatus | None = None
    wait: Wait | None = None
    since: datetime | None = None


def tab_of(row: Recorded, run: Iterable[Recorded] = (), returned: Mapping[str, Any] | None = None) -> Tab:
    """Decide what a task instance's tab shows.

    :param run: what the other tasks of its run have recorded: a download may have landed its video.
    :param returned: what the task returned.
    """
    returned = returned or {}
    status = row.status
    if status is None:
        return _without_status(row)
    state = _STATE_OF_TASK.get(row.state or "", State.WAITING)
    common: dict[str, Any] = {"status": status, "wait": row.wait, "usage": _usage(returned)}
    cards = tuple(_cards(row, status))
    if status.kind == "download" and (len(cards) > 1 or status.missed):
        if failed := state is State.FAILED:
            common |= {"message": status.failure, "comes": what_comes(row)}
        return Tab(State.FAILED if failed and not status.files else State.LANDED, cards=cards, **common)
    (card,) = cards
    if card.state is not State.LANDED:
        landed = [c for c in cards_of(list(run)) if c.state is State.LANDED and c.video_id == status.video_id]
        card = next(iter(landed), card) if status.video_id else card
    if card.state is State.LANDED:
        usage = card.facts.get("usage") or common.pop("usage")
        return Tab(State.LANDED, card=card, **{**common, "usage": usage})
    if state is State.FAILED:
        message = (
            status.failure or "This attempt ended without a word of the operator: its log has the reason."
        )
        return Tab(state, card=card, message=message, comes=what_comes(row), **common)
    if state is State.READY and returned.get("state") in {"queued", "running"}:
        common["message"] = "The video was submitted; this task does not wait for it."
    submitted = status.submitted_at or (row.wait.submitted_at if row.wait else None)
    since = datetime.fromtimestamp(submitted, tz=UTC) if submitted else row.started_at
    return Tab(state, card=card, since=since, **common)


def _without_status(row: Recorded) -> Tab:
    if row.operator not in {operator.__name__ for operator in OPERATORS}:
        return Tab(None, message="This task makes no video.")
    if row.state in {"failed", "up_for_retry"}:
        message = "This attempt ended before it told anything: its log has the reason."
        return Tab(State.FAILED, message=message, comes=what_comes(row))
    if row.state in {None, "scheduled", "queued", "running"}:
        return Tab(None, message="There is nothing to see of this task yet.")
    return Tab(
        None,
        message="This task recorded no video: it ran before there was this tab, or has do_xcom_push=False.",
    )


def _usage(returned: Mapping[str, Any]) -> Mapping[str, Any] | None:
    usage = returned.get("usage")
    return usage if isinstance(usage, Mapping) else None


def what_comes(row: Recorded) -> str:
    """Say what Airflow does about a task instance that failed."""
    if row.state == "up_for_retry":
        return f"Airflow begins attempt {row.try_number + 1} of {row.max_tries + 1} by itself."
    if row.state == "skipped":
        return "The task was skipped, as its soft_fail asks for."
    if row.state == "upstream_failed":
        return "It waits for nothing: a task before it failed."
    return (
        f"Airflow makes no further attempt by itself (this was number {row.try_number}). "
        "Clear the task for one."
    )


def next_query(wait: Wait, now: float) -> str:
    """Say when the triggerer queries the gateway next, as far as its row tells."""
    if not wait.is_taken:
        return "once a triggerer takes the wait; none has yet"
    if (left := wait.first_poll_at - now) > 0:
        return f"in {left:.0f} s"
    shortest, longest = wait.polled_every
    return (
        f"within {longest:g} s" if shortest == longest else f"within {longest:g} s, {shortest:g} at the least"
    )
