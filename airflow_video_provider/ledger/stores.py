"""Where submissions are remembered: Airflow's task state store, an Airflow Variable, or object storage.

====================  ==================  =====================  ==========================================
memory                used                outlives success       two attempts that overlap
====================  ==================  =====================  ==========================================
task state store      Airflow 3.3+        yes (*)                the write of the older one is refused
Airflow Variables     before 3.3          with on_clear="reuse"  each has a Variable of its own, and looks
``ledger_path``       where it is given   yes                    each has a file of its own, and looks
====================  ==================  =====================  ==========================================

(*) not with Airflow's ``[state_store] clear_on_success``.

An attempt writes its own entry, then looks at all others: they must be as they were when it decided. Of two
that begin at the same moment the later one sees the other, or both do, and whoever does sends nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from airflow_video_provider.ledger.record import (
    LedgerUnreadable,
    State,
    Submission,
    digest,
    in_order,
    read_items,
    read_json,
    read_record,
    write_items,
    write_record,
)

__all__ = [
    "EntryLedger",
    "Ledger",
    "LedgerTaken",
    "StateStoreLedger",
    "identity_of",
    "ledger_for",
    "once_succeeded",
    "undisturbed",
]

_KEY = "airflow_video_provider.submissions"
_ITEMS_KEY = "airflow_video_provider.items"
_CLEARED = "Airflow's [state_store] clear_on_success is set; with ledger_path the memory would stay"
_REMOVED = 'an Airflow Variable is removed at success; with on_clear="reuse" or ledger_path it would stay'
#: Longer than any gateway keeps a finished video (14 days), so that an entry outlives its use.
_RETENTION = timedelta(days=30)


class LedgerTaken(RuntimeError):
    """Another attempt of the same task instance has written since this one decided what to do."""


class Ledger(Protocol):
    """The memory of one task instance. Every method raises what the store raises."""

    @property
    def where(self) -> str:
        """For messages: which store, and under which name."""

    @property
    def how_to_delete(self) -> str:
        """For messages: what a person does to make it forget."""

    @property
    def forgets(self) -> str | None:
        """Why it does not outlive the task instance's success, and how it would; None where it does."""

    def read(self) -> tuple[Submission, ...]:
        """What was submitted, oldest first; without what was withdrawn.

        :raises LedgerUnreadable: something else is stored there.
        """

    def update(self, submission: Submission) -> None:
        """Store a submission, known by its nonce; :attr:`State.WITHDRAWN` removes it."""

    def clear(self) -> None:
        """Forget everything."""

    def after_success(self) -> None:
        """Tidy up, once Airflow has stored that the task instance succeeded; for what ``forgets``."""

    def item(self, key: str) -> Ledger:
        """The memory of one item of a list, apart from those of the others."""

    def items(self) -> tuple[str, ...]:
        """The keys of all items of which something may be remembered.

        :raises LedgerUnreadable: something else is stored there.
        """

    def note_items(self, keys: Sequence[str]) -> None:
        """Store which items this attempt may submit, so that a later one finds what it has submitted."""


def undisturbed(ledger: Ledger, mine: Submission, history: Sequence[Submission]) -> None:
    """Check, after *mine* was written, that every other submission is as it was when it was decided on.

    :param history: what was decided on.
    :raises LedgerTaken: another attempt has submitted, or sends, since.
    """

    def states(submissions: Iterable[Submission]) -> dict[str, State]:
        return {s.nonce: s.state for s in submissions if s.nonce != mine.nonce}

    now = ledger.read()
    if states(now) != states(history) or mine.nonce not in {s.nonce for s in now}:
        raise LedgerTaken


@dataclass(frozen=True)
class StateStoreLedger:
    """In Airflow's task state store (3.3+), which survives retries and a Clear.

    All submissions are one JSON object there: a write by an attempt that Airflow has given up is refused.

    :param earlier: where an attempt before an upgrade to 3.3 remembered.
    """

    store: Any
    forgets: str | None = None
    earlier: Ledger | None = None
    where: str = "Airflow's task state store"
    key: str = _KEY

    @property
    def how_to_delete(self) -> str:
        """See :class:`Ledger`."""
        return f"delete the key {self.key} of this task instance's state store"

    def read(self) -> tuple[Submission, ...]:
        """See :meth:`Ledger.read`."""
        record = self.store.get(self.key)
        if record is None and self.earlier is not None:
            return self.earlier.read()
        return read_record(record)

    def update(self, submission: Submission) -> None:
        """See :meth:`Ledger.update`."""
        others = [other for other in self.read() if other.nonce != submission.nonce]
        kept = others if submission.state is State.WITHDRAWN else [*others, submission]
        if kept:
            self.store.set(self.key, write_record(in_order(kept)), retention=_RETENTION)
        else:
            self.clear()

    def clear(self) -> None:
        """See :meth:`Ledger.clear`."""
        self.store.delete(self.key)

    def after_success(self) -> None:
        """See :meth:`Ledger.after_success`; Airflow itself tidies its state store up."""

    def item(self, key: str) -> StateStoreLedger:
        """See :meth:`Ledger.item`: a key of its own, so that no write grows with the list."""
        earlier = self.earlier and self.earlier.item(key)
        return replace(self, key=f"{_KEY}.{key}", earlier=earlier)

    def items(self) -> tuple[str, ...]:
        """See :meth:`Ledger.items`."""
        record = self.store.get(_ITEMS_KEY)
        if record is None and self.earlier is not None:
            return self.earlier.items()
        return read_items(record)

    def note_items(self, keys: Sequence[str]) -> None:
        """See :meth:`Ledger.note_items`."""
        self.store.set(_ITEMS_KEY, write_items(keys), retention=_RETENTION)


class EntryLedger:
    """A memory with an entry of its own for each submission, so that no attempt overwrites another's."""

    #: Of each submission, by nonce, the name of its entry.
    _names: dict[str, str]
    where: Any

    def _entries(self) -> Iterable[tuple[str, str | bytes]]:
        """Name and text of every entry."""
        raise NotImplementedError

    def _name_for(self, submission: Submission) -> str:
        raise NotImplementedError

    def _write(self, name: str, text: str) -> None:
        raise NotImplementedError

    def _remove(self, name: str) -> None:
        raise NotImplementedError

    def read(self) -> tuple[Submission, ...]:
        """See :meth:`Ledger.read`."""
        found = []
        for name, text in self._entries():
            try:
                (submission,) = read_record(read_json(text))
            except ValueError as error:
                raise LedgerUnreadable(f"{name}: {error}") from None
            self._names[submission.nonce] = name
            found.append(submission)
        return in_order(found)

    def update(self, submission: Submission) -> None:
        """See :meth:`Ledger.update`."""
        name = self._names.get(submission.nonce) or self._name_for(submission)
        self._names[submission.nonce] = name
        if submission.state is State.WITHDRAWN:
            self._remove(name)
        else:
            self._write(name, json.dumps(write_record([submission])))

    def clear(self) -> None:
        """See :meth:`Ledger.clear`."""
        for name, _ in list(self._entries()):
            self._remove(name)


def identity_of(ti: Any) -> str:
    """A short name for a task instance, the same in every attempt."""
    return digest(json.dumps([ti.dag_id, ti.run_id, ti.task_id, ti.map_index]))


def ledger_for(context: Mapping[str, Any], ledger_path: str | None, *, keep: bool = False) -> Ledger:
    """The memory of the running task instance.

    :param context: the context of ``execute`` or ``execute_complete``; called from a trigger the state store
        hangs (Airflow 3.3).
    :param ledger_path: an object-storage directory URL with Airflow's connection syntax, or None.
    :param keep: keep it after the task instance has succeeded, where that is not done anyway.
    """
    ti = context["ti"]
    name = identity_of(ti)
    if ledger_path:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        from airflow_video_provider.ledger.files import FileLedger

        # A file's name holds 255 bytes at the most.
        shown = ti.task_id.encode()[-80:].decode(errors="ignore")
        return FileLedger(ObjectStoragePath(ledger_path) / f"{shown}-{name}")
    from airflow_video_provider.ledger.variables import VARIABLE_PREFIX, VariableLedger

    mapped = f"[{ti.map_index}]" if ti.map_index >= 0 else ""
    variables = VariableLedger(
        VARIABLE_PREFIX + name,
        f"Videos paid for by {ti.dag_id}.{ti.task_id}{mapped} in {ti.run_id}; do not delete while it runs",
        forgets=None if keep else _REMOVED,
        try_number=ti.try_number,
    )
    if (store := context.get("task_state_store")) is None:
        return variables
    from airflow.providers.common.compat.sdk import conf

    clears = conf.getboolean("state_store", "clear_on_success", fallback=False)
    return StateStoreLedger(
        store, forgets=_CLEARED if clears else None, earlier=variables if ti.try_number > 1 else None
    )


def once_succeeded(ti: Any, action: Callable[[], None]) -> None:
    """Do something in this worker after Airflow has stored that a task instance succeeded.

    Anything earlier (the end of ``execute``, on 2.11 also a success callback) could be followed by a retry.
    A worker that dies before leaves it undone.

    :param ti: the task instance; `dag.test()` runs others in the same process.
    """
    from airflow.providers.common.compat.sdk import get_listener_manager, hookimpl

    left = [identity_of(ti)]

    class OnceSucceeded:
        @hookimpl
        def on_task_instance_success(self, task_instance: Any) -> None:
            if left == [identity_of(task_instance)]:
                left.clear()
                action()

    get_listener_manager().add_listener(OnceSucceeded())
