"""Call a store with a timeout, and read what it raises."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.media.errors import Cancelled, MediaError, PublishFailed, excerpt

T = TypeVar("T")

CANCEL_TIMEOUT = 10.0
"""Seconds that a cancelled call of an asynchronous file system gets to end."""
LEAST_TIMEOUT = 0.1
CANCEL_POLL = 0.5

REFUSED = frozenset({400, 401, 403, 404})
"""Statuses by which a store says that it will not do it another time either."""
CURES = (
    (
        ("MissingContentLength", "NotImplemented", "XAmzContentSHA256Mismatch"),
        " This S3-compatible store may not take the checksums that boto3 sends by default; set"
        " request_checksum_calculation to when_required: in an Airflow connection's extra as"
        ' {"config_kwargs": {"request_checksum_calculation": "when_required"}}, elsewhere as'
        " AWS_REQUEST_CHECKSUM_CALCULATION=when_required.",
    ),
    (
        ("An error occurred (403) when calling the HeadObject operation",),
        " S3 answers so for a name under which nothing lies, too, where the key may not list the bucket:"
        " allow it s3:ListBucket, or set if_exists to overwrite, which does not look first.",
    ),
)
"""By what a store's client says, what to do about it."""


@dataclass(frozen=True)
class Patience:
    """How long a store is waited for.

    :ivar deadline: of the whole download.
    :ivar cancel: ends the waiting when it is set.
    """

    deadline: Deadline
    cancel: threading.Event

    def seconds(self, longest: float | None = None) -> float | None:
        """Seconds that a call may take: *longest*, else what is left, a tenth of one when nothing is."""
        if longest is not None or self.deadline.left is None:
            return longest
        return max(LEAST_TIMEOUT, self.deadline.left)

    def wait(self, future: Future[T], longest: float | None = None) -> T:
        """Wait for *future*.

        :param longest: seconds in place of the deadline, for what only tidies up.

        :raises TimeoutError: it took too long.
        :raises Cancelled: the caller wants no more.
        """
        over = threading.Event()
        future.add_done_callback(lambda _: over.set())
        give_up = Deadline.after(self.seconds(longest))
        while not over.wait(give_up.cap(CANCEL_POLL)):
            if self.cancel.is_set() and longest is None:
                raise Cancelled("stopped by the caller while the store was at work")
            if give_up.passed:
                raise TimeoutError("no answer within the timeout")
        return future.result()

    def call(self, fs: Any, method: str, /, *args: Any, longest: float | None = None, **kwargs: Any) -> Any:
        """Call a method of an fsspec file system with a timeout.

        An asynchronous file system's call is cancelled then; any other is left to its thread.

        :param longest: see :meth:`wait`.
        :raises TimeoutError: the time was over.
        """
        if getattr(fs, "async_impl", False):
            return self.run(fs, getattr(fs, f"_{method}"), *args, longest=longest, **kwargs)
        return self.in_thread(getattr(fs, method), *args, longest=longest, **kwargs)

    def run(
        self, fs: Any, work: Callable[..., Any], *args: Any, longest: float | None = None, **kwargs: Any
    ) -> Any:
        """Run a coroutine function in the loop of *fs*; it has ended or was cancelled when this returns."""
        ended = threading.Event()

        async def until_ended() -> Any:
            try:
                return await work(*args, **kwargs)
            finally:
                ended.set()

        running = asyncio.run_coroutine_threadsafe(until_ended(), fs.loop)
        try:
            return self.wait(running, longest)
        finally:
            if not running.done():
                running.cancel()
                ended.wait(CANCEL_TIMEOUT)

    def in_thread(self, work: Callable[..., T], *args: Any, longest: float | None = None, **kwargs: Any) -> T:
        """Run blocking *work* in a thread of its own and wait for it."""
        return self.wait(start(work, *args, **kwargs), longest)


def start(work: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
    """Run *work* in a daemon thread: one that hangs must not keep the process from ending."""
    future: Future[T] = Future()
    run = partial(copy_context().run, work, *args, **kwargs)
    threading.Thread(target=_settle, args=(future, run), name="video-store", daemon=True).start()
    return future


class Workers(Executor):
    """Threads that run each task in the context of whoever submitted it, as :func:`start` does for one.

    They are daemons, which those of ``ThreadPoolExecutor`` are not: one that waits for a silent store must
    not keep the process from ending.

    :param max_workers: how many there are at most.
    """

    def __init__(self, max_workers: int) -> None:
        self._most = max_workers
        self._threads: list[threading.Thread] = []
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run *fn* as soon as a thread is free.

        :raises RuntimeError: after :meth:`shutdown`.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor was shut down")
            self._tasks.put((future, partial(copy_context().run, fn, *args, **kwargs)))
            if len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name="video-store", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            _settle(*task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads once everything that was submitted has run."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._tasks.put(None)
        for thread in self._threads if wait else ():
            thread.join()


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # whoever waits for the future raises it
        future.set_exception(error)


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what a store's client raises, of whatever class, into :class:`PublishFailed`."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        raise store_error(uri, error) from error


def store_error(uri: str, error: Exception) -> MediaError:
    """Turn what a store raised into one of ours, with the cure where there is a known one."""
    said = excerpt(str(error), 300) or type(error).__name__
    texts = _texts(error)
    cure = next((cure for words, cure in CURES if any(word in texts for word in words)), "")
    failed = PublishFailed(
        f"{uri}: the destination failed: {type(error).__name__}: {said.rstrip('.')}. Nothing is visible "
        f"under the final name.{cure}"
    )
    status = status_of(error)
    if status is not None:
        failed.retryable = status not in REFUSED
    else:  # gcsfs has an OSError for a 403
        failed.retryable = not (
            isinstance(error, PermissionError | FileNotFoundError | IsADirectoryError)
            or getattr(error, "errno", None) == errno.EROFS
            or str(error).startswith("Forbidden")
        )
    return failed


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status in what a store's client raised, or in what that was made of.

    botocore, Azure and gcsfs each have their own place for it; s3fs keeps botocore's error as the cause.
    """
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(error, "status_code", getattr(error, "code", None))
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def is_taken(error: Exception) -> bool:
    """Whether a store refused an exclusive write because something lies under the name."""
    return (
        isinstance(error, FileExistsError)
        or status_of(error) == 412
        or "ConditionalRequestConflict" in str(error)
    )


def _texts(error: BaseException | None) -> str:
    """What an error says, and the error that it was made of: s3fs keeps botocore's code in that one."""
    texts = []
    while error is not None:
        texts.append(f"{error} {error.args}")
        error = error.__cause__
    return " ".join(texts)
