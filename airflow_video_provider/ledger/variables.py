"""Submissions in Airflow Variables, for Airflow 2.11 to 3.2: one for each attempt that submits."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_video_provider.ledger.record import (
    Ended,
    LedgerUnreadable,
    Submission,
    in_order,
    read_items,
    read_json,
    read_record,
    write_items,
)
from airflow_video_provider.ledger.stores import EntryLedger

__all__ = ["VARIABLE_PREFIX", "VariableLedger", "task_instance_of", "variables_in_database"]

VARIABLE_PREFIX = "airflow_video_provider."
#: Seconds after which no late callback of Airflow 2.11 fails a task instance that has succeeded.
SUCCESS_IS_FINAL_AFTER = 900.0
#: How many attempts after its own an attempt that was frozen looks for.
LATER_ATTEMPTS = 3


@dataclass(frozen=True)
class VariableLedger(EntryLedger):
    """In Airflow Variables, for Airflow 2.11 to 3.2: one for each attempt that submits.

    :param key: name of the first attempt's Variable; those of later ones end in ``.2``, ``.3``, …
    :param description: shown in Airflow's list of Variables.
    :param try_number: of this attempt. For the first nothing can be remembered yet, so "no such Variable" is
        believed.
    """

    key: str
    description: str
    forgets: str | None = None
    try_number: int = 1
    _names: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def where(self) -> str:
        """See :class:`Ledger`."""
        return f"the Airflow Variable {self._named(self.try_number)}"

    @property
    def how_to_delete(self) -> str:
        """See :class:`Ledger`."""
        return f"delete the Airflow Variables {self.key} and {self.key}.*"

    def _named(self, try_number: int) -> str:
        return self.key if try_number <= 1 else f"{self.key}.{try_number}"

    def _name_for(self, submission: Submission) -> str:
        return self._named(submission.begun_by)

    def _entries(self) -> Iterable[tuple[str, str | bytes]]:
        found = self._found()
        if found or self.try_number <= 1:
            return found
        # Airflow (2.11 to 3.2) takes a database or API server that does not answer for a Variable that does
        # not exist. So read again, between two reads that must find something.
        probe, variable = f"{self.key}.probe", _variable()
        variable.set(probe, "1", description=f"{self.description} (for a moment)")
        before, found, after = variable.get(probe, None), self._found(), variable.get(probe, None)
        variable.delete(probe)
        if before is None or after is None:
            raise ConnectionError("Airflow's Variables cannot be read at the moment")
        return found

    def _found(self) -> list[tuple[str, str | bytes]]:
        names = [self._named(number) for number in range(1, self.try_number + LATER_ATTEMPTS + 1)]
        # By position: the argument for a default has another name in 2.11 than in 3.x.
        return [(name, text) for name in names if (text := _variable().get(name, None)) is not None]

    def _write(self, name: str, text: str) -> None:
        _variable().set(name, text, description=self.description)

    def _remove(self, name: str) -> None:
        _variable().delete(name)

    def after_success(self) -> None:
        """See :meth:`Ledger.after_success`.

        On 2.11 a success is not the end: a "zombie" callback that the Dag processor runs late fails a task
        instance that has succeeded since, and Airflow runs it again. So there the memory stays for a while,
        and goes with a later success of any task.
        """
        if not _is_airflow_2():
            # Otherwise a Clear has begun another attempt meanwhile, which needs it.
            if _has_succeeded(self.read()):
                self.clear()
            return
        found: dict[str, dict[str, list[Submission] | None]] = defaultdict(dict)
        stored = [(key, submissions) for key, submissions, _ in variables_in_database()]
        for key, submissions in stored:
            items, item = found[task_instance_of(key)], _item_of(key)
            known = items.get(item, [])
            items[item] = None if known is None or submissions is None else [*known, *submissions]
        for key, _ in stored:
            if _are_over(found[task_instance_of(key)].values()):
                self._remove(key)

    def item(self, key: str) -> VariableLedger:
        """See :meth:`Ledger.item`; Airflow's list of Variables shows it beside the others of the task."""
        return replace(self, key=f"{self.key}.{key}", _names={})

    @property
    def _index(self) -> VariableLedger:
        """One Variable for each attempt, so that no attempt takes away what another one has noted."""
        return self.item("items")

    def items(self) -> tuple[str, ...]:
        """See :meth:`Ledger.items`."""
        keys: dict[str, None] = {}
        for name, text in self._index._entries():
            try:
                keys.update(dict.fromkeys(read_items(read_json(text))))
            except ValueError as error:
                raise LedgerUnreadable(f"{name}: {error}") from None
        return tuple(keys)

    def note_items(self, keys: Sequence[str]) -> None:
        """See :meth:`Ledger.note_items`."""
        self._write(self._index._named(self.try_number), json.dumps(write_items(keys)))

    def after_success_of_items(self, left: Collection[str]) -> None:
        """Tidy up after a list that has succeeded; see :meth:`after_success`.

        :param left: keys of items that were in the list no more, and do not count.
        """
        if _is_airflow_2():
            self.after_success()
            return
        ledgers = {key: self.item(key) for key in self.items()} | {"": self}
        histories = {key: history for key, each in ledgers.items() if (history := each.read())}
        if all(_has_succeeded(history) for key, history in histories.items() if key not in left):
            for ledger in (*ledgers.values(), self._index):
                for name in ledger._names_there():
                    self._remove(name)

    def _names_there(self) -> list[str]:
        return [name for name, _ in self._found()]


def _variable() -> Any:
    """Imported where it is used: a Dag file that is parsed needs none."""
    from airflow.providers.common.compat.sdk import Variable

    return Variable


def _is_airflow_2() -> bool:
    from airflow import __version__

    return __version__.startswith("2.")


def _has_succeeded(history: Sequence[Submission]) -> bool:
    """Whether the last submission did; the generations before it may have failed."""
    return bool(history) and history[-1].ended is Ended.SUCCEEDED


def _are_over(items: Iterable[list[Submission] | None]) -> bool:
    """Whether all items of a task instance have succeeded for good, and none is to be kept.

    :param items: the submissions of each, None where they cannot be understood.
    """
    before = time.time() - SUCCESS_IS_FINAL_AFTER
    histories = [None if item is None else in_order(item) for item in items]
    return any(histories) and not any(
        history is None
        or any(submission.keep for submission in history)
        or (history and not (_has_succeeded(history) and (history[-1].ended_at or before) <= before))
        for history in histories
    )


def variables_in_database() -> list[tuple[str, tuple[Submission, ...] | None, str]]:
    """Name, submissions (None where they cannot be understood) and description of every Variable of ours.

    It needs the metadata database, which a worker of Airflow 3 has not.
    """
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(Variable).filter(Variable.key.like(f"{VARIABLE_PREFIX}%")).all()
        found = [(row.key, row.val or "", row.description or "") for row in rows]
    return [(key, understood(text), description) for key, text, description in sorted(found)]


def _item_of(key: str) -> str:
    """The part of a Variable's name that tells the items of a list apart, without the attempt's number.

    An item's own key has a hyphen: it is never taken for a number.
    """
    _, *rest = key.removeprefix(VARIABLE_PREFIX).split(".")
    return ".".join(part for part in rest if not part.isdigit())


def task_instance_of(key: str) -> str:
    """The part of a Variable's name that all of one task instance share."""
    return key.removeprefix(VARIABLE_PREFIX).partition(".")[0]


def understood(text: str | bytes) -> tuple[Submission, ...] | None:
    """Submissions from a stored text; None where they cannot be understood."""
    try:
        return read_record(read_json(text))
    except LedgerUnreadable:
        return None
