"""What was submitted, remembered across the attempts of a task instance.

A create call is billed and no gateway of the family has an idempotency key, so the memory has to be ours.
:mod:`.record` says what is remembered, :mod:`.stores` where, :mod:`.decision` what an attempt does about it,
and :mod:`.items` how each item of a list has a memory of its own, in which all of this holds.

Invariants. Each of them has cost somebody a second payment; none may be relaxed:

1. **Intent before payment.** A submission is stored, then all others are read again, before each create call
   is sent: they must be as they were when it was decided on. What cannot be stored is not sent.
2. **The id before anything else.** Once the gateway has answered, nothing can be raised between the answer
   and the stored id (:mod:`airflow_video_provider.paying` holds signals back). An id that cannot be stored
   fails the task for good, with the id in the message.
3. **Unknown is not absent.** A memory that cannot be read, an id that the gateway does not know at the
   moment, a create whose reply was lost: none of them permits a create call.
4. **Only the writer of a submission withdraws it.** Another attempt may note that it was told of, after it
   has read it again: its create call may still be under way.
5. **A submission is appended, not replaced.** What was paid for earlier is still there when the new one is
   refused.
6. **A raised ``max_tries`` is no decision.** An outcome in doubt is told first, and noted as told only once
   the message stands in the log; only a Clear after that submits again.
"""

from __future__ import annotations

from airflow_video_provider.ledger.decision import (
    Decision,
    Policy,
    Reattach,
    Stale,
    Stop,
    Submit,
    decide,
    in_doubt,
)
from airflow_video_provider.ledger.files import FileLedger
from airflow_video_provider.ledger.record import (
    Attempt,
    Ended,
    LedgerUnreadable,
    State,
    Submission,
    digest,
    request_digests,
)
from airflow_video_provider.ledger.stores import (
    Ledger,
    LedgerTaken,
    StateStoreLedger,
    ledger_for,
    once_succeeded,
    undisturbed,
)
from airflow_video_provider.ledger.variables import VariableLedger

__all__ = [
    "Attempt",
    "Decision",
    "Ended",
    "FileLedger",
    "Ledger",
    "LedgerTaken",
    "LedgerUnreadable",
    "Policy",
    "Reattach",
    "Stale",
    "State",
    "StateStoreLedger",
    "Stop",
    "Submission",
    "Submit",
    "VariableLedger",
    "decide",
    "digest",
    "in_doubt",
    "ledger_for",
    "once_succeeded",
    "request_digests",
    "undisturbed",
]
