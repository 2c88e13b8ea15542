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
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    "EntryLedger",
    "Ledger",
    "LedgerTaken",
    "StateStoreLedger",
    "VariableLedger",
    "identity_of",
    "ledger_for",
    "once_succeeded",
    "undisturbed",
]

VARIABLE_PREFIX = "airflow_video_provider."
_KEY = "airflow_video_provider.submissions"
_CLEARED = "Airflow's [state_store] clear_on_success is set; with ledger_path the memory would stay"
_REMOVED = 'an Airflow Variable is removed at success; with on_clear="reuse" or ledger_path it would stay'
#: Seconds after which no late callback of Airflow 2.11 fails a task instance that has succeeded.
SUCCESS_IS_FINAL_AFTER = 900.0
#: How many attempts after its own an attempt that was frozen looks for.
LATER_ATTEMPTS = 3
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
    how_to_delete: str = f"delete the key {_KEY} of this task instance's state store"

    def read(self) -> tuple[Submission, ...]:
        """See :meth:`Ledger.read`."""
        record = self.store.get(_KEY)
        if record is None and self.earlier is not None:
            return self.earlier.read()
        return read_record(record)

    def update(self, submission: Submission) -> None:
        """See :meth:`Ledger.update`."""
        others = [other for other in self.read() if other.nonce != submission.nonce]
        kept = others if submission.state is State.WITHDRAWN else [*others, submission]
        if kept:
            self.store.set(_KEY, write_record(in_order(kept)), retention=_RETENTION)
        else:
            self.clear()

    def clear(self) -> None:
        """See :meth:`Ledger.clear`."""
        self.store.delete(_KEY)

    def after_success(self) -> None:
        """See :meth:`Ledger.after_success`; Airflow itself tidies its state store up."""


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
            if all(submission.ended is Ended.SUCCEEDED for submission in self.read()):
                self.clear()
            return
        entries: dict[str, list[tuple[str, tuple[Submission, ...] | None]]] = defaultdict(list)
        for key, submissions, _ in variables_in_database():
            entries[task_instance_of(key)].append((key, submissions))
        for of_one in entries.values():
            if all(submissions and all(map(_is_over, submissions)) for _, submissions in of_one):
                for key, _ in of_one:
                    self._remove(key)


def _variable() -> Any:
    """Imported where it is used: a Dag file that is parsed needs none."""
    from airflow.providers.common.compat.sdk import Variable

    return Variable


def _is_airflow_2() -> bool:
    from airflow import __version__

    return __version__.startswith("2.")


def _is_over(submission: Submission) -> bool:
    over = time.time() - SUCCESS_IS_FINAL_AFTER
    done = submission.ended is Ended.SUCCEEDED and (submission.ended_at or over) < over
    return done and not submission.keep


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


def task_instance_of(key: str) -> str:
    """The part of a Variable's name that all of one task instance share."""
    return key.removeprefix(VARIABLE_PREFIX).partition(".")[0]


def understood(text: str | bytes) -> tuple[Submission, ...] | None:
    """Submissions from a stored text; None where they cannot be understood."""
    try:
        return read_record(read_json(text))
    except LedgerUnreadable:
        return None


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
