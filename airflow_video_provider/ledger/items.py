"""The memories of a list of prompts: each item has one of its own, and goes through every attempt by itself.

An item is known by its request, not by its place: a key is a digest of the request and a number that tells
equal requests apart. So a list that is reordered, or into which something is inserted, finds what was paid
for each item; and two attempts that overlap, one of them frozen, meet in the same memory for the same
request, whatever else their lists hold. Within a memory the invariants of
:mod:`airflow_video_provider.ledger` hold as they do for a single prompt.

A request that has changed finds no memory of its own. It goes by one that no other item of the list goes by,
the one at its place first: so a retry waits for what was paid for though a template renders differently, and
a Clear tells of an outcome in doubt before it pays for the changed request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_video_provider.ledger.decision import Decision, Reattach, Submit
from airflow_video_provider.ledger.record import Attempt, State, Submission, digest
from airflow_video_provider.ledger.stores import Ledger
from airflow_video_provider.ledger.variables import VariableLedger

__all__ = ["ItemLedgers", "Memory", "assigned", "over_budget"]

#: Key of the memory that a single prompt has: a task that became a list finds what it paid for before.
SINGLE = ""
_CONTENT, _ADDRESS = "input_reference.content", "input_reference"

Request = Mapping[str, str]


@dataclass(frozen=True)
class Memory:
    """What is remembered of one item, oldest first."""

    key: str
    history: tuple[Submission, ...] = ()

    def is_of(self, attempt: Attempt) -> bool:
        """Whether something in it is of the same Dag run, not of one that was deleted since."""
        return any(not attempt.is_of_another_run(submission.attempt) for submission in self.history)


# -- which memory an item goes by --------------------------------------------------------------------------


def assigned(
    memories: Sequence[Memory], requests: Sequence[Request | None], attempt: Attempt
) -> tuple[list[Memory], list[Memory]]:
    """Give each item of a list its memory.

    :param memories: all that are remembered.
    :param requests: of the items by digests; None for one that is no valid request.
    :returns: the memories in the order of the items, and those that are left of items in the list no more.
    """
    free = {memory.key: memory for memory in sorted(filter(_is_used, memories), key=_worth)}
    taken, found = set(free), dict[int, Memory]()
    wanting = dict(enumerate(requests))

    def take(place: int, memory: Memory) -> None:
        found[place] = free.pop(memory.key)
        del wanting[place]

    for since in (-1, 0):  # by its last request, then by any that it ever was of
        same = _Same(free.values(), since)
        for place, request in list(wanting.items()):
            if request is not None and (memory := same.pop(request)):
                take(place, memory)
    for memory in [memory for memory in free.values() if memory.is_of(attempt)]:
        if _place(memory) in wanting:
            take(_place(memory), memory)
    others = sorted((memory for memory in free.values() if memory.is_of(attempt)), key=_place)
    for place, memory in zip(list(wanting), others, strict=False):
        take(place, memory)
    for place, request in wanting.items():
        found[place] = Memory(_new_key(request or {}, taken))
        taken.add(found[place].key)
    return [found[place] for place in range(len(requests))], [m for m in free.values() if m.is_of(attempt)]


def _is_used(memory: Memory) -> bool:
    return bool(memory.history)


def _place(memory: Memory) -> int:
    return memory.history[-1].item


def _worth(memory: Memory) -> tuple[int, int]:
    """Of equal items that are fewer now, those stay that were paid for."""
    states = (State.SUBMITTED, State.SENDING)
    last = memory.history[-1]
    return (states.index(last.state) if last.state in states else len(states), last.item)


def _new_key(request: Request, taken: Collection[str]) -> str:
    """The same in every attempt that has the same list, and nothing paid for the item."""
    name = digest(json.dumps(sorted(request.items())))
    number = 0
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


class _Same:
    """Memories by the request that they are of, its reference file by content or by address."""

    def __init__(self, memories: Iterable[Memory], since: int) -> None:
        self._by: dict[frozenset[tuple[str, str]], list[tuple[Memory, Submission]]] = {}
        self._gone: set[str] = set()
        for memory in memories:
            for submission in memory.history[since:]:
                for ignored in (_CONTENT, _ADDRESS):
                    self._by.setdefault(_without(ignored, submission.request), []).append(
                        (memory, submission)
                    )

    def pop(self, request: Request) -> Memory | None:
        for ignored in (_ADDRESS, _CONTENT):
            for memory, submission in self._by.get(_without(ignored, request), ()):
                if memory.key not in self._gone and not submission.changes(request):
                    self._gone.add(memory.key)
                    return memory
        return None


def _without(ignored: str, request: Request) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in request.items() if name != ignored)


# -- how much the list may pay for -------------------------------------------------------------------------


def over_budget(
    decisions: Sequence[Decision], memories: Sequence[Memory], left: Sequence[Memory], most: int | None
) -> set[int]:
    """The places of the items that a list may not pay for any more.

    Whoever was never paid for comes before whoever failed, then the order of the list decides.

    :param decisions: for each item.
    :param memories: of each item.
    :param left: memories of items that are in the list no more, which were paid for all the same.
    :param most: how many generations the list may pay for between two Clears; None for no limit.
    """
    if most is None:
        return set()
    paid = sum(map(_paid_before, decisions, memories)) + sum(_generations(memory) for memory in left)
    wanting = [
        (decision.generation > 1, place)
        for place, decision in enumerate(decisions)
        if isinstance(decision, Submit)
    ]
    return {place for _, place in sorted(wanting)[max(most - paid, 0) :]}


def _paid_before(decision: Decision, memory: Memory) -> int:
    if isinstance(decision, Submit):
        return decision.generation - 1
    if isinstance(decision, Reattach) and decision.cleared:
        return 1
    return _generations(memory)


def _generations(memory: Memory) -> int:
    if not memory.history:
        return 0
    last = memory.history[-1]
    return last.generation - (last.state is State.HELD)


# -- where it is remembered --------------------------------------------------------------------------------


class ItemLedgers:
    """The memories of the items of one task instance.

    Several threads may use what :meth:`of` gives: no two of them are in the store at the same time, because
    a worker of Airflow before 3.3 has one channel to Airflow and no lock on it.

    :param whole: the memory of the task instance.
    :ivar left: keys of the memories of items that are in the list no more.
    """

    def __init__(self, whole: Ledger) -> None:
        self.whole = whole
        self.left: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._known: set[str] = set()

    @property
    def where(self) -> str:
        """For messages."""
        return self.whole.where

    @property
    def how_to_delete(self) -> str:
        """For messages."""
        return f"{self.whole.how_to_delete}, and those of its items"

    @property
    def forgets(self) -> str | None:
        """See :class:`~airflow_video_provider.ledger.Ledger`."""
        return self.whole.forgets

    def of(self, key: str) -> Ledger:
        """The memory of one item."""
        return _OneAtATime(self.whole if key == SINGLE else self.whole.item(key), self._lock)

    def read(self) -> list[Memory]:
        """All that is remembered."""
        return [Memory(key, self.of(key).read()) for key in (SINGLE, *self.whole.items())]

    def note(self, memories: Sequence[Memory]) -> None:
        """Store which memories there will be, before anything is paid."""
        keys = [memory.key for memory in memories if memory.key != SINGLE]
        self._known = {*self.whole.items(), *keys}
        self.whole.note_items([*keys, *sorted(self._known - set(keys))])

    def is_taken(self) -> bool:
        """Whether an attempt with another list has begun since."""
        with self._lock:
            return not self._known.issuperset(self.whole.items())

    def after_success(self) -> None:
        """Tidy up, once Airflow has stored that the task instance succeeded."""
        if isinstance(self.whole, VariableLedger):
            self.whole.after_success_of_items(self.left)
        else:
            self.whole.after_success()


@dataclass(frozen=True)
class _OneAtATime:
    """A memory that one thread at a time uses."""

    ledger: Ledger
    lock: threading.Lock = field(repr=False)

    @property
    def where(self) -> str:
        return self.ledger.where

    @property
    def how_to_delete(self) -> str:
        return self.ledger.how_to_delete

    @property
    def forgets(self) -> str | None:
        return self.ledger.forgets

    def read(self) -> tuple[Submission, ...]:
        with self.lock:
            return self.ledger.read()

    def update(self, submission: Submission) -> None:
        with self.lock:
            self.ledger.update(submission)

    def clear(self) -> None:
        with self.lock:
            self.ledger.clear()

    def after_success(self) -> None:
        with self.lock:
            self.ledger.after_success()

    def item(self, key: str) -> Ledger:
        return _OneAtATime(self.ledger.item(key), self.lock)

    def items(self) -> tuple[str, ...]:
        with self.lock:
            return self.ledger.items()

    def note_items(self, keys: Sequence[str]) -> None:
        with self.lock:
            self.ledger.note_items(keys)
