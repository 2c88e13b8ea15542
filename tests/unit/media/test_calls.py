from __future__ import annotations

import errno
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

import pytest
from fsspec.asyn import get_loop

from airflow_video_provider.media import Cancelled, PublishFailed
from airflow_video_provider.media.calls import Patience, Workers, status_of, store_error
from airflow_video_provider.media.deadline import Deadline


def patience(timeout: float | None = None) -> Patience:
    return Patience(Deadline.after(timeout), threading.Event())


class Blocking:
    """A file system whose calls end when they are told to."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def info(self, path: str) -> str:
        self.over.wait(60)
        return path


class Asynchronous:
    async_impl = True

    def __init__(self) -> None:
        self.loop = get_loop()
        self.cancelled = threading.Event()

    async def _info(self, path: str) -> str:
        import asyncio

        try:
            await asyncio.sleep(60 if path == "silent" else 0)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return path


def test_a_blocking_call_returns_what_it_returns() -> None:
    store = Blocking()
    store.over.set()
    assert patience().call(store, "info", "a") == "a"


def test_a_blocking_call_that_hangs_is_left_behind() -> None:
    store = Blocking()
    with pytest.raises(TimeoutError, match="no answer within the timeout"):
        patience(0.1).call(store, "info", "a")
    store.over.set()


def test_an_asynchronous_call_that_hangs_is_cancelled() -> None:
    store = Asynchronous()
    assert patience().call(store, "info", "a") == "a"
    with pytest.raises(TimeoutError):
        patience(0.1).call(store, "info", "silent")
    assert store.cancelled.is_set()


def test_a_caller_who_wants_no_more_does_not_wait_for_the_store() -> None:
    waiting = patience()
    waiting.cancel.set()
    with pytest.raises(Cancelled):
        waiting.wait(Future[None]())


def test_what_tidies_up_has_a_time_of_its_own_after_the_deadline() -> None:
    late = Patience(Deadline(at=0.0, timeout=1.0), threading.Event())
    assert late.seconds() == pytest.approx(0.1)
    assert late.seconds(15.0) == 15.0


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class ClientError(Exception):
    """As botocore raises it."""

    def __init__(self, code: str, status: int, operation: str = "PutObject") -> None:
        super().__init__(f"An error occurred ({code}) when calling the {operation} operation: none")
        self.response: dict[str, Any] = {
            "Error": {"Code": code},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }


def test_the_status_is_found_in_what_an_error_was_made_of() -> None:
    assert status_of(caused(PermissionError("no"), ClientError("SlowDown", 503))) == 503
    assert status_of(ValueError("no")) is None


@pytest.mark.parametrize("code", ["MissingContentLength", "NotImplemented", "XAmzContentSHA256Mismatch"])
@pytest.mark.parametrize("made_of", [False, True], ids=["boto3", "s3fs"])
def test_a_store_that_takes_no_trailing_checksums_is_told_the_cure(code: str, made_of: bool) -> None:
    error: Exception = ClientError(code, 411)
    failed = store_error("s3://b/v", caused(OSError(22, "no"), error) if made_of else error)
    assert isinstance(failed, PublishFailed)
    assert '{"config_kwargs": {"request_checksum_calculation": "when_required"}}' in str(failed)


@pytest.mark.parametrize("made_of", [False, True], ids=["boto3", "s3fs"])
def test_a_look_that_a_store_forbids_is_told_what_it_may_mean(made_of: bool) -> None:
    """S3 does not tell whether there is an object to whom it does not tell what there is."""
    error: Exception = ClientError("403", 403, "HeadObject")
    failed = store_error("s3://b/v", caused(PermissionError("Forbidden"), error) if made_of else error)
    assert "s3:ListBucket" in str(failed)
    assert not failed.retryable


def test_any_other_error_of_a_store_has_no_cure_in_it() -> None:
    assert "checksum" not in str(store_error("s3://b/v", ClientError("AccessDenied", 403)))


def test_workers_run_what_was_submitted_in_its_context_and_take_nothing_more_at_the_end() -> None:
    number: ContextVar[int] = ContextVar("number")
    workers = Workers(max_workers=2)
    results = []
    for count in range(5):
        number.set(count)
        results.append(workers.submit(number.get))
    failed = workers.submit(int, "no number")
    workers.shutdown()
    assert [result.result(0) for result in results] == [0, 1, 2, 3, 4]
    assert isinstance(failed.exception(0), ValueError)
    with pytest.raises(RuntimeError):
        workers.submit(number.get)


def test_a_worker_that_hangs_does_not_keep_the_process_from_ending() -> None:
    code = "import threading\nfrom airflow_video_provider.media.calls import Workers\n"
    ends = subprocess.run(
        [sys.executable, "-c", code + "Workers(1).submit(threading.Event().wait)"], timeout=60, check=False
    )
    assert ends.returncode == 0


def test_a_disk_that_may_not_be_written_stays_so() -> None:
    assert not store_error("file:///x", OSError(errno.EROFS, "Read-only file system")).retryable
