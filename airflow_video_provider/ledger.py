"""What was submitted, remembered across the attempts of a task instance.

A create is billed and cannot be made idempotent at the gateway, so the memory has to be ours: the intent is
written before the paid call, the id after it, both before anything can defer. The next attempt reads it and
re-attaches instead of paying again.

Where it is kept: in the object-storage directory that the user gives, else in Airflow's task state store
(Airflow 3.3+), else nowhere (:func:`ledger_for` returns None), and then no attempt may be repeated once a
generation is paid.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import Any, Protocol, Self

__all__ = [
    "Entry",
    "FileLedger",
    "Ledger",
    "LedgerUnreadable",
    "StateStoreLedger",
    "fingerprint",
    "ledger_for",
]

_KEY = "airflow_video_provider.submission"
#: Longer than any gateway keeps a finished video (14 days), so that an entry outlives its use.
_RETENTION = timedelta(days=30)


@dataclass(frozen=True)
class Entry:
    """One submission.

    :param fingerprint: of the request; another request is another generation.
    :param intent_at: seconds since the epoch, written before the paid call.
    :param max_tries: of the task instance at that time. Only a person's Clear raises it.
    :param prompt_digest: of the prompt as it was sent; the prompt itself is nobody's business in a bucket.
    :param video_id: None until the gateway answered.
    """

    fingerprint: str
    intent_at: float
    max_tries: int
    prompt_digest: str
    video_id: str | None = None

    @classmethod
    def read(cls, stored: object) -> Self | None:
        """An entry from JSON; fields that a later version wrote are left aside.

        :raises LedgerUnreadable: something is there that is no entry. To take it for nothing would pay again.
        """
        if stored is None:
            return None
        try:
            return cls(**{field.name: stored[field.name] for field in fields(cls)})  # type: ignore[index]
        except (KeyError, TypeError) as error:
            raise LedgerUnreadable(
                f"the memory of what was submitted holds no such entry: {error!r}"
            ) from None


class LedgerUnreadable(ValueError):
    """What is remembered of a submission cannot be read, so whether it was paid is not known."""


class Ledger(Protocol):
    """One task instance's page."""

    def read(self) -> Entry | None:
        """The last submission, if one is remembered."""

    def write(self, entry: Entry) -> None:
        """Remember; returns once it is stored."""

    def clear(self) -> None:
        """Forget: nothing was paid, or what was paid for has failed for good."""


@dataclass(frozen=True)
class StateStoreLedger:
    """In Airflow's task state store (3.3+), which survives retries and a Clear."""

    store: Any

    def read(self) -> Entry | None:
        """See :meth:`Ledger.read`."""
        return Entry.read(self.store.get(_KEY))

    def write(self, entry: Entry) -> None:
        """See :meth:`Ledger.write`."""
        self.store.set(_KEY, asdict(entry), retention=_RETENTION)

    def clear(self) -> None:
        """See :meth:`Ledger.clear`."""
        self.store.delete(_KEY)


@dataclass(frozen=True)
class FileLedger:
    """One small JSON file for each task instance, in a directory of any object storage.

    :param path: the file, an Airflow ``ObjectStoragePath``.
    """

    path: Any

    def read(self) -> Entry | None:
        """See :meth:`Ledger.read`."""
        try:
            text = self.path.fs.cat_file(self.path.path)
        except FileNotFoundError:
            return None
        try:
            return Entry.read(json.loads(text))
        except ValueError as error:
            raise LedgerUnreadable(f"{self.path} is no entry of a submission: {error}") from None

    def write(self, entry: Entry) -> None:
        """See :meth:`Ledger.write`."""
        text = json.dumps(asdict(entry)).encode()
        fs, path = self.path.fs, self.path.path
        fs.makedirs(fs._parent(path), exist_ok=True)
        if self.path.protocol in {"file", "local", ""}:
            # The local filesystem writes in place: a crash would leave half an entry.
            fs.pipe_file(f"{path}.new", text)
            fs.mv(f"{path}.new", path)
        else:
            fs.pipe_file(path, text)

    def clear(self) -> None:
        """See :meth:`Ledger.clear`."""
        try:
            self.path.fs.rm_file(self.path.path)
        except FileNotFoundError:
            return


def ledger_for(context: Mapping[str, Any], ledger_path: str | None) -> Ledger | None:
    """The memory of the running task instance, None where there is none.

    :param context: the context of ``execute`` or ``execute_complete``; asked from a trigger the state store
        hangs (Airflow 3.3).
    :param ledger_path: an object-storage directory URL with Airflow's connection syntax, or None.
    """
    if ledger_path:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        ti = context["ti"]
        identity = json.dumps([ti.dag_id, ti.run_id, ti.task_id, ti.map_index])
        name = f"{ti.task_id}-{digest(identity)[:16]}.json"
        return FileLedger(ObjectStoragePath(ledger_path) / name)
    store = context.get("task_state_store")
    return None if store is None else StateStoreLedger(store)


def digest(text: str) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def fingerprint(video_conn_id: str, request: Any) -> str:
    """A digest of what is paid for, where: the connection and every field of the request."""
    facts = request.model_dump(exclude={"input_reference"})
    reference = request.input_reference
    content = getattr(reference, "content", None)
    facts["input_reference"] = hashlib.sha256(content).hexdigest() if content is not None else reference
    text = json.dumps([video_conn_id, facts], sort_keys=True, default=list)
    return digest(text)


def intent(video_conn_id: str, request: Any, *, max_tries: int) -> Entry:
    """The entry to write before paying."""
    return Entry(fingerprint(video_conn_id, request), time.time(), max_tries, digest(request.prompt))
