"""Large files to S3: parts sent from the disk, several at a time, by signed links.

``s3fs.put_file`` reads each part into memory and digests it up to three times in one thread, so beside it
the network waits. Here the store's own client (with its credentials, endpoint and region) opens the
multipart upload and signs a link for each part; the parts are then streamed from the file by plain PUTs,
256 KiB in memory each. Wherever that is not possible (a proxy, customer-provided keys, a client that cannot
sign), :class:`NotPossible` is raised before or after cleaning up, and the caller uses ``put_file``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore

from airflow_video_provider.media.asking import CLEANUP_TIME, ask
from airflow_video_provider.media.guard import AddressGuard, GuardedBackend, IPAddress

if TYPE_CHECKING:
    from airflow_video_provider.media.publish import Target

log = logging.getLogger(__name__)

BLOCK = 256 * 1024
PART = 16 * 2**20
MAX_PARTS = 10_000
WORTH_IT = 32 * 2**20
CONNECT_TIMEOUT = 15.0
PUT_TIMEOUT = 60.0
TRIES = 3
EARLY = 256 * 2**20
"""From this size on, parts are sent while later ones still come. The object's notes, which are given when the
upload is opened, cannot hold the digest then."""

FAULTS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


class Anywhere(AddressGuard):
    """The store's address was chosen by its owner, not by a third party."""

    def allows(self, host: str, port: int, address: IPAddress) -> bool:
        return True


class NotPossible(Exception):
    """This way of uploading does not work with this store; nothing of it is left there."""


class PartsUpload:
    """One multipart upload, whose parts are sent in their order as soon as their bytes lie on the disk.

    Nothing of it is visible before :meth:`finish`. The sizes of the parts are asked of the store and compared
    before they are put together, so an object that is visible has the right size.

    :param target: of the object, in an ``s3fs`` file system; its deadline holds for the upload.
    :param local: the file, which may still be growing.
    :param size: the length that it will have, in bytes.
    :param arguments: of the API's CreateMultipartUpload (ContentType, Metadata).
    :param concurrency: parts at a time.
    :param ready: tells how many bytes of the beginning of *local* are there for good; all by default.
    :raises NotPossible: use another way.
    """

    def __init__(
        self,
        target: Target,
        local: str,
        size: int,
        *,
        arguments: Mapping[str, Any],
        concurrency: int,
        ready: Callable[[], int] | None = None,
    ) -> None:
        fs = target.fs
        settings = getattr(fs, "s3_additional_kwargs", None) or {}
        unusual = any(name.startswith("SSECustomer") for name in settings)
        if size < WORTH_IT or fs.anon or unusual or getattr(fs, "req_kw", None):
            raise NotPossible
        self._target, self._local, self._size = target, local, size
        self._arguments = dict(arguments)
        self._ready = ready or (lambda: size)
        self._stop = threading.Event()
        self._backend = GuardedBackend(Anywhere())
        self._over = False
        bucket, key, _ = fs.split_path(target.path)
        opened = self._target.ask("call_s3", "create_multipart_upload", Bucket=bucket, Key=key, **arguments)
        self._upload = {"Bucket": bucket, "Key": key, "UploadId": opened["UploadId"]}
        self._threads = ThreadPoolExecutor(concurrency, "video-upload")
        self._futures: list[Future[dict[str, Any]]] = []
        self._pool: httpcore.ConnectionPool | None = None
        try:
            self._sign = _signer(fs, self._upload)
            self._pool = pool = _pool(fs, self._sign(1), self._backend)
        except BaseException:
            self.abort()
            raise
        step = max(PART, -(-size // MAX_PARTS))
        self._futures = [
            self._threads.submit(self._send, pool, number, start, min(step, size - start))
            for number, start in enumerate(range(0, size, step), 1)
        ]

    def fits(self, path: str, size: int, content_type: str) -> bool:
        """Whether this is what would be opened for a file that turned out to be so."""
        return (self._target.path, self._size, self._arguments["ContentType"]) == (path, size, content_type)

    def finish(self) -> None:
        """Wait for the parts, compare them, and make the object visible.

        :raises NotPossible: a part failed, and there is time for another way. Nothing was left.
        """
        try:
            wait(self._futures, return_when=FIRST_EXCEPTION)
            parts = [future.result() for future in self._futures if future.done()]
            self._check_arrived()
        except BaseException as error:
            self.abort()
            if isinstance(error, Exception) and not self._is_late():
                raise NotPossible from error
            raise
        self._target.ask(
            "call_s3", "complete_multipart_upload", **self._upload, MultipartUpload={"Parts": parts}
        )
        self._over = True
        self._close()
        self._target.fs.invalidate_cache(self._target.path)

    def abort(self) -> None:
        """End it, unless it has ended already; nothing of it is left in the store."""
        if self._over:
            return
        self._over = True
        self._stop.set()
        self._backend.abort()  # else one would wait for the store's answers
        self._close()
        try:
            ask(self._target.fs, "call_s3", "abort_multipart_upload", **self._upload, timeout=CLEANUP_TIME)
        except FileNotFoundError:
            pass  # somebody else has ended it
        except Exception as error:  # what went wrong before is the news; this only costs storage
            log.warning(
                "%s: the store did not discard the parts of an unfinished upload (%s). They are invisible; "
                "the next download to this name discards them.",
                self._target.uri,
                type(error).__name__,
            )

    def _check_arrived(self) -> None:
        total, marker = 0, 0
        while True:
            page = self._target.ask("call_s3", "list_parts", **self._upload, PartNumberMarker=marker)
            total += sum(int(part["Size"]) for part in page.get("Parts") or ())
            marker = int(page.get("NextPartNumberMarker") or 0)
            if not page.get("IsTruncated"):
                break
        if total != self._size:
            raise OSError(f"the store shows {total} bytes in the parts of {self._size} bytes")

    def _close(self) -> None:
        # A part that still arrived after the abort would stay in the store, so the threads are waited for.
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._pool is not None:
            self._pool.close()

    def _time_left(self) -> float:
        if self._stop.is_set() or self._is_late():
            raise TimeoutError("the upload took too long")
        return min(PUT_TIMEOUT, self._target.time_left() or PUT_TIMEOUT)

    def _is_late(self) -> bool:
        return self._target.deadline is not None and time.monotonic() >= self._target.deadline

    def _send(self, pool: httpcore.ConnectionPool, number: int, start: int, length: int) -> dict[str, Any]:
        while self._ready() < start + length:
            self._time_left()
            self._stop.wait(0.01)
        for attempt in range(1, TRIES + 1):
            left = self._time_left()
            try:
                answer = pool.request(
                    "PUT",
                    self._sign(number),
                    headers={"Content-Length": str(length)},
                    content=_blocks(self._local, start, length, self._stop),
                    extensions={
                        "timeout": {"connect": min(CONNECT_TIMEOUT, left), "read": left, "write": left}
                    },
                )
            except FAULTS:
                if attempt == TRIES:
                    raise
                continue
            etag = next((v.decode() for k, v in answer.headers if k.lower() == b"etag"), None)
            if answer.status == 200 and etag:
                return {"PartNumber": number, "ETag": etag}
            if answer.status < 500:
                break
        raise OSError(f"part {number} was answered with HTTP {answer.status}")


def _blocks(local: str, start: int, length: int, stop: threading.Event) -> Iterator[bytes]:
    with open(local, "rb", buffering=0) as file:
        file.seek(start)
        while length > 0 and not stop.is_set():
            block = file.read(min(BLOCK, length))
            if not block:
                break
            length -= len(block)
            yield block


def _signer(fs: Any, upload: Mapping[str, str]) -> Any:
    from fsspec.asyn import sync

    client = sync(fs.loop, fs.get_s3, upload["Bucket"])

    def fourth_version(signature_version: Any, **_: Any) -> str | None:
        # Links are signed by the second version by default, which newer buckets do not accept.
        return "s3v4-query" if signature_version in ("s3-query", "v4-query", "s3v4-query") else None

    client.meta.events.register("choose-signer.s3.UploadPart", fourth_version, unique_id=__name__)

    async def link(number: int) -> str:
        return str(
            await client.generate_presigned_url(
                "upload_part", Params={**upload, "PartNumber": number}, ExpiresIn=3600
            )
        )

    def sign(number: int) -> str:
        url = str(sync(fs.loop, link, number))
        if "X-Amz-Signature=" not in url:
            raise NotPossible
        return url

    return sign


def _pool(fs: Any, url: str, backend: GuardedBackend) -> httpcore.ConnectionPool:
    parts = urlsplit(url)
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname or ""):
        raise NotPossible
    context = None
    if parts.scheme == "https":
        import httpx

        verify: bool | str | None = (getattr(fs, "client_kwargs", None) or {}).get("verify")
        if verify is None:
            verify = os.environ.get("AWS_CA_BUNDLE") or True
        context = httpx.create_ssl_context(verify=verify)
    return httpcore.ConnectionPool(ssl_context=context, network_backend=backend)
