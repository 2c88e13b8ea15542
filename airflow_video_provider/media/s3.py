"""S3: uploads by boto3's managed transfer, or by s3fs where there is no boto3 client.

Both take what their user configured: credentials, endpoint, region, checksums, proxies, retries. Three things
are added that they do not have: a deadline, for boto3 the condition that nothing lies under the name, and the
discarding of those unfinished uploads, and no others, that this package began.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_video_provider.media.calls import Patience, Workers
from airflow_video_provider.media.destination import Destination
from airflow_video_provider.media.options import DownloadOptions
from airflow_video_provider.media.stores import ObjectStore, Upload
from airflow_video_provider.media.tempfile import TempFile

log = logging.getLogger(__name__)

MAX_PARTS = 10_000
CANCEL_TIMEOUT = 2.0
"""Seconds for a cancelled upload to notice; one whose store is silent does not."""
NOTHING_THERE = frozenset({"404", "NoSuchKey", "NotFound", "InvalidRange"})


@dataclass
class _Upload:
    """One upload that is under way.

    :ivar endpoint: the store that it goes to.
    :ivar ids: of the multipart uploads that it has begun.
    :ivar only_if_absent: whether its requests carry ``If-None-Match``; for boto3, s3fs does that by itself.
    """

    file: TempFile
    bucket: str
    key: str
    endpoint: str
    ids: list[str] = field(default_factory=list)
    only_if_absent: bool = False


_current: ContextVar[_Upload | None] = ContextVar("airflow_video_provider_upload", default=None)
"""A client is shared by several uploads at a time; by the context its events tell whose request it is."""


def _remember(parsed: Mapping[str, Any], **_: Any) -> None:
    """Note a multipart upload that was begun, for this process and for the sweep after a kill."""
    upload = _current.get()
    if upload is not None and "UploadId" in parsed:
        upload.ids.append(parsed["UploadId"])
        note = {"bucket": upload.bucket, "key": upload.key, "id": parsed["UploadId"]}
        upload.file.remember(json.dumps({**note, "endpoint": upload.endpoint}))


def _only_if_absent(params: dict[str, Any], **_: Any) -> dict[str, Any] | None:
    """Make a request that puts an object conditional: s3transfer itself does not take ``IfNoneMatch``."""
    upload = _current.get()
    return {**params, "IfNoneMatch": "*"} if upload is not None and upload.only_if_absent else None


_HANDLERS: dict[str, Callable[..., Any]] = {
    "after-call.s3.CreateMultipartUpload": _remember,
    "provide-client-params.s3.PutObject": _only_if_absent,
    "provide-client-params.s3.CompleteMultipartUpload": _only_if_absent,
}


class S3FsStore(ObjectStore):
    """S3 by s3fs's ``put_file``."""

    def _metadata(self, place: Destination) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self.patience.call(self.fs, "metadata", place.path)
        return found

    def _put(self, file: TempFile, place: Destination, upload: Upload) -> None:
        bucket, key = _split(place)
        meta = self._meta(bucket)
        current = _Upload(file, bucket, key, meta.endpoint_url)
        if self._goes_in_parts(upload.size):
            self._discard_abandoned(current.bucket, current.key)
        for event, handler in _HANDLERS.items():
            meta.events.register(event, handler, unique_id=f"airflow_video_provider.{event}")
        token = _current.set(current)
        try:
            self._upload_on_condition(file, place, upload)
        except BaseException:
            for upload_id in current.ids:
                self._abort(current.bucket, current.key, upload_id)
            raise
        finally:
            _current.reset(token)
        self._check_size(place, upload)

    def _upload_on_condition(self, file: TempFile, place: Destination, upload: Upload) -> None:
        try:
            self._upload(file, place, upload, exclusive=upload.exclusive)
        except Exception as error:
            # Some S3-compatible stores know no conditional writes; the look in front has to do for them.
            if not upload.exclusive or "NotImplemented" not in str(error):
                raise
            log.debug("%s: the store takes no conditional writes", place.uri)
            self._upload(file, place, upload, exclusive=False)

    def _upload(self, file: TempFile, place: Destination, upload: Upload, *, exclusive: bool) -> None:
        self.patience.call(
            self.fs,
            "put_file",
            str(file.path),
            place.path,
            ContentType=upload.content_type,
            Metadata=dict(upload.metadata),
            chunksize=max(self.options.block, -(-upload.size // MAX_PARTS)),
            max_concurrency=2,
            mode="create" if exclusive else "overwrite",
        )

    def _goes_in_parts(self, size: int) -> bool:
        return size >= 2 * self.options.block

    def _api(self, operation: str, **arguments: Any) -> Any:
        """Call an operation of the S3 API that only tidies up."""
        longest = self.options.cleanup_timeout
        return self.patience.call(self.fs, "call_s3", operation, longest=longest, **arguments)

    def _meta(self, bucket: str) -> Any:
        """What the client for *bucket* knows of itself: its endpoint, its events."""

        async def client() -> Any:
            await self.fs.set_session()
            return await self.fs.get_s3(bucket)

        return self.patience.run(self.fs, client).meta

    # -- unfinished uploads --------------------------------------------------------------------------------

    def discard(self, lines: Sequence[str]) -> Sequence[str]:
        """Abort the uploads of killed processes. Unfinished parts are invisible, and are paid for."""
        others = []
        for line in lines:
            try:
                upload = json.loads(line)
                bucket, key, upload_id = upload["bucket"], upload["key"], upload["id"]
                endpoint = upload["endpoint"]
            except (ValueError, KeyError, TypeError):  # the process was killed while it wrote
                continue
            if endpoint == self._meta(bucket).endpoint_url:
                self._abort(bucket, key, upload_id)
            else:
                others.append(line)
        return others

    def _discard_abandoned(self, bucket: str, key: str) -> None:
        """Abort uploads of this very key that nobody can be working on any more."""
        before = datetime.now(UTC) - timedelta(seconds=self.options.unfinished_after)
        try:
            found = self._api("list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads") or ()
        except Exception as error:  # it may not be allowed, and some stores have no such list
            log.debug("unfinished uploads to %s cannot be listed (%s)", bucket, type(error).__name__)
            return
        for upload in found:
            if upload["Key"] == key and upload["Initiated"] < before:
                self._abort(bucket, key, upload["UploadId"])

    def _abort(self, bucket: str, key: str, upload_id: str) -> None:
        try:
            self._api("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)
        except Exception as error:  # what went wrong before is the news; this only costs storage
            if not isinstance(error, FileNotFoundError) and "NoSuchUpload" not in str(error):
                log.warning(
                    "s3://%s/%s: the store did not discard the parts of an unfinished upload (%s). They are "
                    "invisible; a lifecycle rule of the bucket can remove them.",
                    bucket,
                    key,
                    type(error).__name__,
                )


class S3Store(S3FsStore):
    """S3 by boto3: s3transfer's managed uploads.

    :param client: a boto3 S3 client. It is used from several threads, which boto3 allows.
    """

    def __init__(self, fs: Any, patience: Patience, options: DownloadOptions, client: Any) -> None:
        super().__init__(fs, patience, options)
        self._client = client

    def _stat(self, place: Destination) -> int | None:
        return int(self._head(place)["ContentLength"])

    def _metadata(self, place: Destination) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._head(place).get("Metadata")
        return found

    def _head(self, place: Destination) -> Mapping[str, Any]:
        bucket, key = _split(place)
        found: Mapping[str, Any] = self._call("head_object", Bucket=bucket, Key=key)
        return found

    def read(self, place: Destination, begin: int, end: int) -> bytes:
        bucket, key = _split(place)

        def read() -> bytes:
            span = f"bytes={begin}-{end - 1}"
            body: bytes = self._client.get_object(Bucket=bucket, Key=key, Range=span)["Body"].read()
            return body

        return bytes(self._not_found(read))

    def _call(self, operation: str, longest: float | None = None, **arguments: Any) -> Any:
        return self._not_found(getattr(self._client, operation), longest, **arguments)

    def _not_found(self, work: Callable[..., Any], longest: float | None = None, **arguments: Any) -> Any:
        from botocore.exceptions import ClientError

        try:
            return self.patience.in_thread(work, longest=longest, **arguments)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in NOTHING_THERE:
                raise FileNotFoundError(arguments.get("Key", "")) from error
            raise

    def _api(self, operation: str, **arguments: Any) -> Any:
        return self._call(operation, self.options.cleanup_timeout, **arguments)

    def _delete(self, place: Destination) -> None:
        bucket, key = _split(place)
        self._api("delete_object", Bucket=bucket, Key=key)

    def _meta(self, bucket: str) -> Any:
        return self._client.meta

    def _goes_in_parts(self, size: int) -> bool:
        return size >= int(self._config().multipart_threshold)

    def _config(self) -> Any:
        from s3transfer.manager import TransferConfig

        return self.options.s3_transfer_config or TransferConfig(
            multipart_threshold=self.options.upload_threshold,
            multipart_chunksize=self.options.upload_part,
            max_request_concurrency=self.options.upload_concurrency,
        )

    def _checksum(self, upload: Upload) -> dict[str, str]:
        """The digest that is known already, in place of one that botocore would take of the same bytes.

        S3 takes a SHA-256 of the whole for an object that does not come in parts, and compares it.
        """
        sha256 = upload.metadata.get("sha256")
        wanted = getattr(self._client.meta.config, "request_checksum_calculation", None) == "when_supported"
        if sha256 is None or not wanted or self._goes_in_parts(upload.size):
            return {}
        return {"ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode()}

    def _upload(self, file: TempFile, place: Destination, upload: Upload, *, exclusive: bool) -> None:
        from s3transfer.manager import TransferManager
        from s3transfer.subscribers import BaseSubscriber

        over: Future[None] = Future()

        class Ended(BaseSubscriber):  # type: ignore[misc]
            def on_done(self, future: Any, **_: Any) -> None:
                over.set_result(None)

        bucket, key = _split(place)
        arguments = {"ContentType": upload.content_type, "Metadata": dict(upload.metadata)}
        if "ChecksumSHA256" in TransferManager.ALLOWED_UPLOAD_ARGS:
            arguments |= self._checksum(upload)
        workers: list[Workers] = []

        def start_workers(max_workers: int) -> Workers:
            workers.append(Workers(max_workers))
            return workers[-1]

        manager = TransferManager(self._client, self._config(), executor_cls=start_workers)
        if (current := _current.get()) is not None:
            current.only_if_absent = exclusive
        transfer = manager.upload(
            str(file.path),
            bucket,
            key,
            extra_args=arguments,
            subscribers=[Ended()],
        )
        try:
            self.patience.wait(over)
            transfer.result()
        except BaseException:
            transfer.cancel()
            _wait_quietly(over)
            raise
        finally:
            for pool in workers:
                pool.shutdown(wait=False)


def _wait_quietly(over: Future[None]) -> None:
    try:
        over.result(CANCEL_TIMEOUT)
    except TimeoutError:
        log.debug("an upload is left to its threads; nothing of it becomes visible")


def _split(place: Destination) -> tuple[str, str]:
    bucket, _, key = place.path.partition("/")
    return bucket, key
