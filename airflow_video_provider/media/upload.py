"""Large files to S3: parts sent from the disk, several at a time, by signed links.

``s3fs.put_file`` reads each part into memory and digests it up to three times in one thread, so beside it
the network waits. Here the store's own client (with its credentials, endpoint and region) opens the
multipart upload and signs a link for each part; the parts are then streamed from the file by plain PUTs,
256 KiB in memory each. Wherever that is not possible (a proxy, customer-provided keys, a client that cannot
sign), :class:`NotPossible` is raised before or after cleaning up, and the caller uses ``put_file``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore

from airflow_video_provider.media.guard import AddressGuard, GuardedBackend, IPAddress

BLOCK = 256 * 1024
PART = 16 * 2**20
MAX_PARTS = 10_000
WORTH_IT = 32 * 2**20
PUT_TIMEOUT = 60.0
TRIES = 3
FAULTS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


class Anywhere(AddressGuard):
    """The store's address was chosen by its owner, not by a third party."""

    def allows(self, host: str, port: int, address: IPAddress) -> bool:
        return True


class NotPossible(Exception):
    """This way of uploading does not work with this store; nothing of it is left there."""


def upload_s3(
    fs: Any, path: str, local: str, *, arguments: Mapping[str, Any], concurrency: int, timeout: float | None
) -> None:
    """Upload the file *local* to *path* of the ``s3fs`` file system *fs* in parts, completed in one step.

    :param arguments: of the API's CreateMultipartUpload (ContentType, Metadata).
    :param concurrency: parts at a time.
    :param timeout: seconds for all of it.
    The sizes of the parts are asked of the store and compared before they are put together, so an object
    that is visible has the right size.

    :raises NotPossible: use another way.
    """
    size = os.path.getsize(local)
    unusual = [
        name for name in getattr(fs, "s3_additional_kwargs", None) or {} if name.startswith("SSECustomer")
    ]
    if size < WORTH_IT or fs.anon or unusual or getattr(fs, "req_kw", None):
        raise NotPossible
    bucket, key, _ = fs.split_path(path)
    deadline = None if timeout is None else time.monotonic() + timeout
    opened = fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key, **arguments)
    upload = {"Bucket": bucket, "Key": key, "UploadId": opened["UploadId"]}
    try:
        parts = _send(fs, upload, local, size, concurrency, deadline)
        _check_arrived(fs, upload, size)
    except BaseException as error:
        fs.call_s3("abort_multipart_upload", **upload)
        if isinstance(error, Exception) and (deadline is None or time.monotonic() < deadline):
            raise NotPossible from error
        raise
    fs.call_s3("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
    fs.invalidate_cache(path)


def _check_arrived(fs: Any, upload: Mapping[str, str], size: int) -> None:
    total, marker = 0, 0
    while True:
        page = fs.call_s3("list_parts", **upload, PartNumberMarker=marker)
        total += sum(int(part["Size"]) for part in page.get("Parts") or ())
        marker = int(page.get("NextPartNumberMarker") or 0)
        if not page.get("IsTruncated"):
            break
    if total != size:
        raise OSError(f"the store shows {total} bytes in the parts of {size} bytes")


def _send(
    fs: Any, upload: Mapping[str, str], local: str, size: int, concurrency: int, deadline: float | None
) -> list[dict[str, Any]]:
    step = max(PART, -(-size // MAX_PARTS))
    ranges = [
        (number, start, min(step, size - start)) for number, start in enumerate(range(0, size, step), 1)
    ]
    sign = _signer(fs, upload)
    sign_first = sign(1)
    stop = threading.Event()
    backend = GuardedBackend(Anywhere())
    with _pool(fs, sign_first, backend) as pool, ThreadPoolExecutor(concurrency, "video-upload") as threads:

        def one(number: int, start: int, length: int) -> dict[str, Any]:
            for attempt in range(1, TRIES + 1):
                left = PUT_TIMEOUT if deadline is None else min(PUT_TIMEOUT, deadline - time.monotonic())
                if stop.is_set() or left <= 0:
                    raise TimeoutError("the upload took too long")
                try:
                    answer = pool.request(
                        "PUT",
                        sign(number),
                        headers={"Content-Length": str(length)},
                        content=_blocks(local, start, length, stop),
                        extensions={"timeout": dict.fromkeys(("connect", "read", "write"), left)},
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

        futures = [threads.submit(one, *entry) for entry in ranges]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            return [future.result() for future in futures if future.done()]
        finally:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
            if not all(future.done() for future in futures):
                backend.abort()  # else the caller would wait for the store's answers


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
