"""Keep signed URLs and one line per poll out of the logs.

``httpx`` logs every request's full URL at INFO (``httpx/_client.py``, all versions since 0.24). Airflow 3
silences that logger, Airflow 2.11 does not: there each poll would be a line of the task's log, and each
download would write its presigned query into it. At DEBUG, ``httpcore`` logs the headers of every reply, and
a redirect's ``Location`` is a presigned URL as well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy")
_quiet: ContextVar[bool] = ContextVar("airflow_video_provider_quiet_httpx", default=False)


class _DropOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not (_quiet.get() and record.levelno <= logging.INFO)


_filter = _DropOurs()


@contextmanager
def quiet_httpx() -> Iterator[None]:
    """Drop the records at INFO and below that httpx and httpcore make in this context.

    Only records of the calling context are dropped, so another library's use of them logs as before.
    A thread does not inherit the context: enter it inside the thread, or run the thread's target with
    :func:`contextvars.copy_context`.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)  # a filter is added once however often this runs
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
