"""Where submissions are remembered: Airflow's task state store, an Airflow Variable, or object storage.

====================  ==================  =====================  =========================================
memory                used                outlives success       two attempts that begin at the same moment
====================  ==================  =====================  =========================================
task state store      Airflow 3.3+        yes (*)                the write of the older one is refused
Airflow Variable      before 3.3          with on_clear="reuse"  the later write is found by the other
``ledger_path``       where it is given   yes                    each finds the file of the other
====================  ==================  =====================  =========================================

(*) not with Airflow's ``[state_store] clear_on_success``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from airflow_video_provider.ledger.record import (
    Ended,
    LedgerUnreadable,
    State,
    Submission,
    digest,
    in_order,
    read_json,
    read_record,
    write_record,
)

__all__ = [
    "VARIABLE_PREFIX",
    "Ledger",
    "LedgerTaken",
    "StateStoreLedger",
    "VariableLedger",
    "identity_of",
    "ledger_for",
    "once_succeeded",
]

VARIABLE_PREFIX = "airflow_video_provider."
_KEY = "airflow_video_provider.submissions"
#: Seconds after which no late callback of Airflow 2.11 fails a task instance that has succeeded.
SUCCESS_IS_FINAL_AFTER = 900.0
_CLEARED = "Airflow's [state_store] clear_on_success is set; with ledger_path the memory would stay"
_REMOVED = 'an Airflow Variable is removed at success; with on_clear="reuse" or ledger_path it would stay'
#: Seconds from reading to having written. A worker that was frozen for longer has been given up by Airflow.
LONGEST_APPEND = 60.0
#: Longer than any gateway keeps a finished video (14 days), so that an entry outlives its use.
_RETENTION = timedelta(days=30)


class LedgerTaken(RuntimeError):
    """Another attempt of the same task instance has begun a submission in the meantime."""


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

    def append(self, submission: Submission) -> None:
        """Remember a new submission; returns once it is stored.

        :raises LedgerTaken: another attempt did so first.
        """

    def update(self, submission: Submission) -> None:
        """Store a submission that is remembered already, told by its nonce; one that is lost is added."""

    def clear(self) -> None:
        """Forget everything."""

    def after_success(self) -> None:
        """Tidy up, once Airflow has stored that the task instance succeeded; for what ``forgets``."""


class _JsonLedger:
    """A memory that holds all submissions in one JSON object, without conditional writes."""

    def _load(self) -> object:
        raise NotImplementedError

    def _store(self, record: dict[str, Any]) -> None:
        raise NotImplementedError

    def clear(self) -> None:
        """See :meth:`Ledger.clear`."""
        raise NotImplementedError

    def after_success(self) -> None:
        """See :meth:`Ledger.after_success`; Airflow itself tidies its state store up."""

    def read(self) -> tuple[Submission, ...]:
        """See :meth:`Ledger.read`."""
        return tuple(s for s in read_record(self._load()) if s.state is not State.WITHDRAWN)

    def append(self, submission: Submission) -> None:
        """See :meth:`Ledger.append`."""
        began = time.monotonic()
        before = self.read()
        if before and before[-1].order >= submission.order:
            raise LedgerTaken(f"order {submission.order} is taken")
        self._store(write_record((*before, submission)))
        # Whoever writes last wins here, so the one that was overwritten must find out; and one that was
        # frozen between reading and writing may have overwritten another.
        if self.read()[-1:] != (submission,) or time.monotonic() - began > LONGEST_APPEND:
            raise LedgerTaken(f"order {submission.order} was written by another attempt, too")

    def update(self, submission: Submission) -> None:
        """See :meth:`Ledger.update`."""
        others = [other for other in self.read() if other.nonce != submission.nonce]
        kept = others if submission.state is State.WITHDRAWN else [*others, submission]
        if kept:
            self._store(write_record(in_order(kept)))
        else:
            self.clear()


@dataclass(frozen=True)
class StateStoreLedger(_JsonLedger):
    """In Airflow's task state store (3.3+), which survives retries and a Clear.

    A write by an attempt that Airflow has given up is refused there.
    """

    store: Any
    forgets: str | None = None
    where: str = "Airflow's task state store"
    how_to_delete: str = f"delete the key {_KEY} of this task instance's state store"

    def _load(self) -> object:
        return self.store.get(_KEY)

    def _store(self, record: dict[str, Any]) -> None:
        self.store.set(_KEY, record, retention=_RETENTION)

    def clear(self) -> None:
        """See :meth:`Ledger.clear`."""
        self.store.delete(_KEY)


@dataclass(frozen=True)
class VariableLedger(_JsonLedger):
    """In an Airflow Variable, for Airflow 2.11 to 3.2.

    :param key: the Variable's name.
    :param description: shown in Airflow's list of Variables.
    :param first_attempt: nothing can be remembered yet, so "no such Variable" is believed.
    """

    key: str
    description: str
    forgets: str | None = None
    first_attempt: bool = False

    @property
    def where(self) -> str:
        """See :class:`Ledger`."""
        return f"the Airflow Variable {self.key}"

    @property
    def how_to_delete(self) -> str:
        """See :class:`Ledger`."""
        return f"delete {self.where}"

    def _load(self) -> object:
        # By position: the argument for a default has another name in 2.11 than in 3.x.
        text = _variable().get(self.key, None)
        if text is None and not self.first_attempt:
            text = self._certainly()
        return None if text is None else read_json(text)

    def _certainly(self) -> str | None:
        """Read again between two reads that must find something.

        Airflow (2.11 to 3.2) takes a database or API server that does not answer for a Variable that does
        not exist.
        """
        probe, variable = f"{self.key}.probe", _variable()
        variable.set(probe, "1", description=f"{self.description} (for a moment)")
        before, text, after = (variable.get(name, None) for name in (probe, self.key, probe))
        variable.delete(probe)
        if before is None or after is None:
            raise ConnectionError("Airflow's Variables cannot be read at the moment")
        return text if text is None else str(text)

    def _store(self, record: dict[str, Any]) -> None:
        _variable().set(self.key, json.dumps(record), description=self.description)

    def clear(self) -> None:
        """See :meth:`Ledger.clear`."""
        _variable().delete(self.key)

    def after_success(self) -> None:
        """See :meth:`Ledger.after_success`.

        On 2.11 a success is not the end: a "zombie" callback that the Dag processor runs late fails a task
        instance that has succeeded since, and Airflow runs it again. So there the memory stays for a while,
        and goes with a later success of any task.
        """
        if _is_airflow_2():
            for key, submissions, _ in variables_in_database():
                if submissions and all(_is_over(submission) for submission in submissions):
                    _variable().delete(key)
        else:
            self.clear()


def _is_airflow_2() -> bool:
    from airflow import __version__

    return __version__.startswith("2.")


def _is_over(submission: Submission) -> bool:
    over = time.time() - SUCCESS_IS_FINAL_AFTER
    return submission.ended is Ended.SUCCEEDED and (submission.ended_at or over) < over


def variables_in_database() -> list[tuple[str, tuple[Submission, ...] | None, str]]:
    """Name, submissions (None where they cannot be understood) and description of every Variable of ours.

    It needs the metadata database, which a worker of Airflow 3 has not.
    """
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(Variable).filter(Variable.key.like(f"{VARIABLE_PREFIX}%")).all()
        found = [(row.key, row.val or "", row.description or "") for row in rows]
    return [
        (key, understood(text), description)
        for key, text, description in sorted(found)
        if not key.endswith(".probe")
    ]


def understood(text: str | bytes) -> tuple[Submission, ...] | None:
    """Submissions from a stored text; None where they cannot be understood."""
    try:
        return read_record(read_json(text))
    except LedgerUnreadable:
        return None


def _variable() -> Any:
    """Imported where it is used: a Dag file that is parsed needs none."""
    from airflow.providers.common.compat.sdk import Variable

    return Variable


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

        return FileLedger(ObjectStoragePath(ledger_path) / f"{ti.task_id}-{name}")
    from airflow.providers.common.compat.sdk import conf

    if (store := context.get("task_state_store")) is not None:
        clears = conf.getboolean("state_store", "clear_on_success", fallback=False)
        return StateStoreLedger(store, forgets=_CLEARED if clears else None)
    mapped = f"[{ti.map_index}]" if ti.map_index >= 0 else ""
    return VariableLedger(
        VARIABLE_PREFIX + name,
        f"Videos paid for by {ti.dag_id}.{ti.task_id}{mapped} in {ti.run_id}; do not delete while it runs",
        forgets=None if keep else _REMOVED,
        first_attempt=ti.try_number <= 1,
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
