"""What the pages show, decided from what is recorded. Pure: no database, no gateway, no HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from airflow_video_provider.plugin.links import OPERATORS
from airflow_video_provider.plugin.recorded import Recorded, TaskKey, Wait
from airflow_video_provider.video_status import VideoStatus, usage_of

__all__ = ["Card", "State", "Tab", "cards_of", "next_query", "of_one", "tab_of", "what_comes"]


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
    :param number: which of the videos of that task instance.
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
    number: int = 0
    file: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        """Tells it from every other card of its Dag."""
        return f"{self.key.run_id}/{self.key.task_id}/{self.key.map_index}/{self.number}"


def cards_of(rows: Iterable[Recorded]) -> list[Card]:
    """Make the cards of a gallery, in the order of the rows, the newest first: one for a video of a run.

    What a download speaks of is its: the tasks that generated and awaited it have no cards of their own.
    Of those, the newest has; a sensor knows neither prompt nor model, which the task that submitted knows.
    """
    told = [
        (row.status.kind, card) for row in rows if row.status is not None for card in _cards(row, row.status)
    ]
    shown = {_which(card) for kind, card in told if kind == "download"}
    submitted = {_which(card): card for kind, card in told if kind == "generate"}
    cards = []
    for kind, card in told:
        if card.video_id is not None:
            if kind != "download":
                if _which(card) in shown:
                    continue
                shown.add(_which(card))
            if (known := submitted.get(_which(card))) is not None:
                card = replace(card, prompt=card.prompt or known.prompt, model=card.model or known.model)
        cards.append(card)
    return cards


def _which(card: Card) -> tuple[str, str | None]:
    return card.key.run_id, card.video_id


def _cards(row: Recorded, status: VideoStatus) -> Iterator[Card]:
    """The videos of a task instance, in its order."""
    card = Card(
        row.key,
        _STATE_OF_TASK.get(row.state or "", State.WAITING),
        row.recorded_at,
        status.video_id,
        status.prompt,
        status.model,
        label=row.label,
    )
    told = [
        *(
            replace(_of(card, file), state=State.LANDED, file=number, facts=file)
            for number, file in enumerate(status.files)
        ),
        *(
            replace(_of(card, item), state=State.FAILED, note=_text(item.get("error")))
            for item in status.missed
        ),
        *(_of_list(card, status, item) for item in status.items),
    ] or [replace(card, note=status.failure)]
    return (replace(card, number=number) for number, card in enumerate(told))


def _of(card: Card, told: Mapping[str, Any]) -> Card:
    video_id, prompt, model = (_text(told.get(name)) for name in ("video_id", "prompt", "model"))
    return replace(card, video_id=video_id, prompt=prompt, model=model)


def _of_list(card: Card, status: VideoStatus, item: Mapping[str, Any]) -> Card:
    """A video of a list: it may have ended otherwise than the task, which waits for all."""
    card = _of(card, item)
    if (error := _text(item.get("error"))) is not None:
        return replace(card, state=State.FAILED, note=error)
    if item.get("state") == "succeeded":
        return replace(card, state=State.READY)
    return replace(card, note=status.failure if card.state is State.FAILED else None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Tab:
    """What the Video tab of a task instance shows.

    :param state: None for a task that makes no video, or has not begun.
    :param card: the one video.
    :param cards: several, in place of the one.
    :param since: when it was submitted; when the task began where that is not known.
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

    def counts(self) -> list[tuple[str, int]]:
        """How many of the videos are how far, in the order of :class:`State`."""
        counted = Counter(card.state for card in self.cards)
        return [(state.value, counted[state]) for state in State if counted[state]]

    def waited_for(self) -> Iterator[tuple[str, str]]:
        """Connection and id of each video that is on its way."""
        conn_id = (self.wait and self.wait.conn_id) or (self.status and self.status.conn_id)
        for card in self.cards or filter(None, [self.card]):
            video_id = card.video_id or (self.wait and self.wait.video_id)
            if card.state is State.WAITING and conn_id and video_id:
                yield conn_id, video_id


def tab_of(row: Recorded, run: Iterable[Recorded] = (), returned: Mapping[str, Any] | None = None) -> Tab:
    """Decide what a task instance's tab shows.

    :param run: what the other tasks of its run have recorded: a download may have landed its videos.
    :param returned: what the task returned.
    """
    returned = returned or {}
    status = row.status
    if status is None:
        return _without_status(row)
    state = _STATE_OF_TASK.get(row.state or "", State.WAITING)
    submitted = status.submitted_at or (row.wait.submitted_at if row.wait else None)
    common: dict[str, Any] = {
        "status": status,
        "wait": row.wait,
        "usage": usage_of(returned.get("usage")),
        "since": datetime.fromtimestamp(submitted, tz=UTC) if submitted else row.started_at,
    }
    if state is State.FAILED:
        common["comes"] = what_comes(row)
        common["message"] = (
            status.failure or "This attempt ended without a word of the operator: its log has the reason."
        )
    cards = _with_what_landed(tuple(_cards(row, status)), run)
    if len(cards) > 1 or status.missed or status.items:
        return Tab(_state_of_all(state, cards), cards=cards, **common)
    (card,) = cards
    if card.state is State.LANDED:
        return Tab(State.LANDED, card=card, **{**common, "usage": card.facts.get("usage") or common["usage"]})
    if state is State.READY and returned.get("state") in ("queued", "running"):
        common["message"] = "The video was submitted; this task does not wait for it."
    return Tab(state, card=card, **common)


def _with_what_landed(cards: Sequence[Card], run: Iterable[Recorded]) -> tuple[Card, ...]:
    """The same, with what a download of the run has landed of a video in place of that video."""
    landed: dict[str | None, list[Card]] = {}
    for card in cards_of(run):
        if card.state is State.LANDED and card.video_id is not None:
            landed.setdefault(card.video_id, []).append(card)
    return tuple(
        shown
        for card in cards
        for shown in ([card] if card.state is State.LANDED else landed.get(card.video_id, [card]))
    )


def _state_of_all(state: State, cards: Sequence[Card]) -> State:
    """Of several videos: that of the task, but for those that have come further than it tells."""
    states = {card.state for card in cards}
    if State.LANDED in states and State.WAITING not in states:
        return State.LANDED
    return state


def of_one(tab: Tab, number: int | None) -> Tab | None:
    """One of a tab's several videos, as a tab of its own; None where there is no such."""
    if number is None or not 0 <= number < len(tab.cards):
        return None
    card = tab.cards[number]
    usage = card.facts.get("usage")
    return replace(tab, state=card.state, card=card, cards=(), message=card.note, usage=usage)


def _without_status(row: Recorded) -> Tab:
    if row.operator not in {operator.__name__ for operator in OPERATORS}:
        return Tab(None, message="This task makes no video.")
    if row.state in {"failed", "up_for_retry"}:
        message = "This attempt ended before it told anything: its log has the reason."
        return Tab(State.FAILED, message=message, comes=what_comes(row))
    if row.wait is not None:
        card = Card(row.key, State.WAITING, None, row.wait.video_id)
        return Tab(State.WAITING, card=card, wait=row.wait, since=row.started_at)
    if row.state in {None, "scheduled", "queued", "running"}:
        return Tab(None, message="There is nothing to see of this task yet.")
    return Tab(
        None,
        message="This task recorded no video: it ran before there was this tab, or has do_xcom_push=False.",
    )


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
