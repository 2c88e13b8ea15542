"""What is remembered: submissions of one task instance, oldest first, as JSON.

The JSON object is ``{"schema": 1, "submissions": [...]}``. Each item of a list of prompts has one of its own;
their keys stand in ``{"schema": 1, "submissions": [], "items": [...]}``.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from airflow_video_provider.waiting import utc

__all__ = [
    "Attempt",
    "Ended",
    "LedgerUnreadable",
    "State",
    "Submission",
    "digest",
    "in_order",
    "read_items",
    "read_json",
    "read_record",
    "request_digests",
    "write_items",
    "write_record",
]

SCHEMA = 1


class LedgerUnreadable(ValueError):
    """What is remembered cannot be understood, so whether something was paid is not known."""


class State(StrEnum):
    """How far a submission has come."""

    SENDING = "sending"
    """The create call may be under way: accepted and billed, or not."""
    HELD = "held"
    """The gateway accepted nothing so far, and no create call is under way."""
    SUBMITTED = "submitted"
    """The gateway accepted it; ``video_id`` is there."""
    FAILED = "failed"
    """The gateway says that the generation failed, was cancelled or expired."""
    GONE = "gone"
    """The gateway knows no such task any more."""
    WITHDRAWN = "withdrawn"
    """Nothing was accepted and nothing will be: as if it had never been begun."""


class Ended(StrEnum):
    """How the attempt that last used a submission ended, where Airflow will not repeat it by itself."""

    SUCCEEDED = "succeeded"
    FAILED_FOR_GOOD = "failed_for_good"


@dataclass(frozen=True)
class Attempt:
    """One try of a task instance, as far as it says whether a person or Airflow itself began it.

    :param run: the Dag run's own identity, which a run that was deleted and made again with the same
        ``run_id`` does not have: the database id on 2.x, ``run_after`` on 3.x.
    :param run_started: when the Dag run began, ISO 8601; a later one of the same name has begun later.
    :param clear_number: how often any task of the Dag run was cleared; None where Airflow does not tell.
    :param ti_id: Airflow 3's id of this try; None on 2.x.
    :param started_by_operator: the Dag run was made by a ``TriggerDagRunOperator`` (known from 3.3 on), whose
        ``reset_dag_run`` clears without any person.
    """

    try_number: int
    max_tries: int
    run: str | None = None
    run_started: str | None = None
    clear_number: int | None = None
    ti_id: str | None = None
    started_by_operator: bool = False

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> Self:
        """Read it from the context of ``execute`` or ``execute_complete``."""
        ti, run = context["ti"], context.get("dag_run")
        ti_id = getattr(ti, "id", None)
        started = getattr(run, "start_date", None)
        run_type = getattr(run, "run_type", None)
        return cls(
            try_number=ti.try_number,
            max_tries=ti.max_tries,
            run=_own_name(run),
            run_started=started.isoformat() if isinstance(started, datetime) else None,
            clear_number=getattr(run, "clear_number", None),
            ti_id=None if ti_id is None else str(ti_id),
            started_by_operator=str(getattr(run_type, "value", run_type)) == "operator_triggered",
        )

    def is_of_another_run(self, earlier: Attempt) -> bool:
        """Whether ``earlier`` belongs to a Dag run that was deleted since.

        The tries of one task instance only ever count up, and each has an id of its own. A lower one alone is
        no proof: it may be a worker that was frozen, and finds what its successor has submitted.
        """
        if self.run and earlier.run and self.run != earlier.run:
            # Named in two ways, the Airflow was upgraded in between.
            return self.run.partition("=")[0] == earlier.run.partition("=")[0]
        if self.try_number < earlier.try_number:
            started = self.run_started, earlier.run_started
            return None not in started and str(self.run_started) > str(earlier.run_started)
        other_id = None not in (self.ti_id, earlier.ti_id) and self.ti_id != earlier.ti_id
        return self.try_number == earlier.try_number and other_id


def _own_name(run: Any) -> str | None:
    """See :attr:`Attempt.run`."""
    for name in ("id", "run_after"):
        if (value := getattr(run, name, None)) is not None:
            return f"{name}={value.isoformat() if isinstance(value, datetime) else value}"
    return None


@dataclass(frozen=True)
class Submission:
    """One create call, and what became of it.

    :param order: counts up; the highest is what the task instance waits for.
    :param nonce: names the attempt that wrote it.
    :param generation: how many the task instance has paid for since the last Clear, this one included.
    :param begun_at: seconds since the epoch, before the create call.
    :param begun_by: number of the attempt that began it.
    :param attempt: the one that last used it.
    :param request: a short digest of each field of the request that was given. The values themselves are
        not stored, a bucket is no place for prompts.
    :param gateway: origin of the gateway, for messages.
    :param waiting_since: seconds since the epoch, from which the operator's ``timeout`` counts.
    :param ended_at: seconds since the epoch of ``ended``.
    :param told: a person was told that its outcome is in doubt, or that the gateway lost it.
    :param refused_input: it failed because moderation refuses the request itself.
    :param refused_output: it failed because moderation withheld the video; the same request may pass.
    :param counted: its end, and what it cost, were counted in Airflow's metrics.
    :param keep: it is to be remembered after success (``on_clear="reuse"``).
    :param item: place in the list of prompts when it was submitted.
    """

    order: int
    generation: int
    model: str
    video_conn_id: str
    gateway: str
    begun_at: float
    begun_by: int
    request: dict[str, str]
    attempt: Attempt
    nonce: str = ""
    state: State = State.SENDING
    video_id: str | None = None
    waiting_since: float | None = None
    told: bool = False
    refused_input: bool = False
    refused_output: bool = False
    counted: bool = False
    ended: Ended | None = None
    ended_at: float | None = None
    keep: bool = False
    item: int = 0

    @classmethod
    def new(cls, **facts: Any) -> Self:
        """A submission that nobody else can have written."""
        return cls(nonce=secrets.token_hex(8), **facts)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The counterpart of :meth:`as_json`; fields that a later version added are left aside.

        :raises LedgerUnreadable: it is none.
        """
        try:
            known = {field.name: stored[field.name] for field in fields(cls) if field.name in stored}
            attempt = {
                f.name: known["attempt"][f.name] for f in fields(Attempt) if f.name in known["attempt"]
            }
            ended = known.get("ended")
            read = cls(
                **{
                    **known,
                    "attempt": Attempt(**attempt),
                    "state": State(known["state"]),
                    "ended": Ended(ended) if ended else None,
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerUnreadable(f"no submission of this package: {error!r}") from None
        numbers = (
            read.order,
            read.generation,
            read.begun_at,
            read.attempt.try_number,
            read.attempt.max_tries,
        )
        if not _NUMBERS.issuperset(map(type, numbers)) or not isinstance(read.request, dict):
            raise LedgerUnreadable("no submission of this package: a field is of the wrong kind")
        if read.state is State.SUBMITTED and not read.video_id:
            raise LedgerUnreadable("no submission of this package: it was submitted and has no video_id")
        return read

    @property
    def name(self) -> str:
        """For messages."""
        return f"video {self.video_id}" if self.video_id else f"the submission begun at {utc(self.begun_at)}"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, without prompts, keys and URLs of files."""
        return asdict(self)

    def changes(self, request: Mapping[str, str]) -> tuple[str, ...]:
        """The names of the fields in which another request differs from this one.

        A reference file counts by its content; one that can no longer be read counts by its address.
        """
        ignored = _ADDRESS if _CONTENT in self.request and _CONTENT in request else _CONTENT
        names = {*self.request, *request} - {ignored}
        changed = {name for name in names if self.request.get(name) != request.get(name)}
        return tuple(sorted(name.removesuffix(".content") for name in changed))

    def used_by(self, attempt: Attempt) -> Submission:
        """The same, used by another attempt: what it was ended by is over."""
        return replace(self, attempt=attempt, ended=None, ended_at=None)

    def ended_as(self, how: Ended, **facts: Any) -> Submission:
        """The same, after an attempt that Airflow does not repeat by itself."""
        return replace(self, ended=how, ended_at=time.time(), **facts)


_NUMBERS = {int, float}
_ADDRESS, _CONTENT = "input_reference", "input_reference.content"


def digest(text: str) -> str:
    """SHA-256 in hexadecimal, its first 16 digits: enough to tell one request from another."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def request_digests(request: Any, reference: str | None = None) -> dict[str, str]:
    """A digest of each field of a request that is given.

    A field that a later version adds and that is not given changes nothing, and neither does the connection
    through which the same gateway is reached.

    :param request: a :class:`~airflow_video_provider.gateway.request.VideoRequest`.
    :param reference: the operator's ``input_reference``, by address.
    """
    # Where the end is reported makes no other video.
    elsewhere = {"input_reference", "callback_url"}
    given = request.model_dump(exclude=elsewhere, exclude_none=True, exclude_defaults=True)
    digests = {name: digest(_canonical(value)) for name, value in given.items()}
    if reference is not None:
        # A presigned query is another one each time.
        digests[_ADDRESS] = digest(reference.partition("?")[0])
    content = getattr(request.input_reference, "content", None)
    if content is not None:
        digests[_CONTENT] = hashlib.sha256(content).hexdigest()[:16]
    return digests


def _canonical(value: object) -> str:
    if isinstance(value, str):
        return value
    # Keys become texts first: those of several kinds cannot be sorted.
    return json.dumps(json.loads(json.dumps(value, default=list)), sort_keys=True)


def read_record(stored: object) -> tuple[Submission, ...]:
    """Submissions from the stored JSON object.

    :raises LedgerUnreadable: it is something else, or a later version's. To take it for nothing would pay
        again.
    """
    if stored is None:
        return ()
    if not isinstance(stored, Mapping) or not isinstance(stored.get("submissions"), Sequence):
        raise LedgerUnreadable("no record of submissions")
    if stored.get("schema") != SCHEMA:
        raise LedgerUnreadable(f"a record of schema {stored.get('schema')!r}; this version reads {SCHEMA}")
    return in_order(Submission.from_json(submission) for submission in stored["submissions"])


def read_json(text: str | bytes) -> object:
    """Parse what a store holds.

    :raises LedgerUnreadable: it is no JSON.
    """
    try:
        return json.loads(text)
    except ValueError:
        raise LedgerUnreadable("it is no JSON" if text else "it is empty") from None


def write_record(submissions: Iterable[Submission]) -> dict[str, Any]:
    """The JSON object to store."""
    return {"schema": SCHEMA, "submissions": [submission.as_json() for submission in submissions]}


def write_items(keys: Iterable[str]) -> dict[str, Any]:
    """The JSON object that holds the keys of a list's items."""
    return {**write_record(()), "items": list(dict.fromkeys(keys))}


def read_items(stored: object) -> tuple[str, ...]:
    """The counterpart of :func:`write_items`; nothing stored are no items.

    :raises LedgerUnreadable: it is something else.
    """
    if stored is None:
        return ()
    read_record(stored)
    keys = stored.get("items") if isinstance(stored, Mapping) else None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise LedgerUnreadable("no list of items")
    return tuple(keys)


def in_order(submissions: Iterable[Submission]) -> tuple[Submission, ...]:
    """Oldest first; the last is what the task instance waits for."""
    return tuple(sorted(submissions, key=lambda submission: submission.order))
