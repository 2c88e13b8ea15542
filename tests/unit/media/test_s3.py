"""boto3 and s3fs against a server of a few lines that knows what `rclone serve s3` does not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airflow_video_provider.media import DestinationExists, DownloadOptions, PublishFailed
from airflow_video_provider.media.calls import Patience
from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.media.destination import Destination
from airflow_video_provider.media.stores import Store, Upload, store_for
from airflow_video_provider.media.tempfile import TempFile

PATH = "videos/v.mp4"


class Bucket:
    """One object; `refuses` is the error code for every upload, or for those with a condition."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.metadata: dict[str, str] = {}
        self.refuses: Callable[[dict[str, str]], tuple[int, str] | None] = lambda headers: None
        self.puts: list[dict[str, str]] = []
        self.deleted: list[str] = []
        self.lose_reply = False
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                bucket.puts.append(headers)
                refused = bucket.refuses(headers)
                if refused is None and headers.get("if-none-match") == "*" and bucket.content is not None:
                    refused = (412, "PreconditionFailed")
                if refused is not None:
                    self.answer(refused[0], f"<Error><Code>{refused[1]}</Code></Error>".encode())
                    return
                bucket.content = body
                bucket.metadata = {n: v for n, v in headers.items() if n.startswith("x-amz-meta-")}
                if bucket.lose_reply:
                    bucket.lose_reply = False
                    self.answer(500, b"<Error><Code>InternalError</Code></Error>")
                    return
                self.answer(200)

            def do_HEAD(self) -> None:
                if bucket.content is None or not self.path.endswith("v.mp4"):
                    self.answer(404)
                    return
                self.answer(200, bucket.content, **bucket.metadata)

            def do_GET(self) -> None:
                self.answer(200, b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")

            def do_DELETE(self) -> None:
                bucket.deleted.append(self.path)
                self.answer(204)

            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in {"ETag": '"e"', "Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(params=["boto3", "s3fs"])
def store(bucket: Bucket, request: pytest.FixtureRequest) -> Store:
    import boto3
    import s3fs
    from botocore.config import Config

    keys = {"key": "k", "secret": "s"}
    fs = s3fs.S3FileSystem(
        **keys,
        endpoint_url=bucket.endpoint,
        client_kwargs={"region_name": "us-east-1"},
        skip_instance_cache=True,
    )
    client = None
    if request.param != "s3fs":
        calculation = "when_required" if "without" in request.param else "when_supported"
        client = boto3.session.Session().client(
            "s3",
            region_name="us-east-1",
            endpoint_url=bucket.endpoint,
            aws_access_key_id="k",
            aws_secret_access_key="s",
            config=Config(request_checksum_calculation=calculation),
        )
    patience = Patience(Deadline.after(60), threading.Event())
    return store_for(Destination(fs, PATH, f"s3://{PATH}"), patience, DownloadOptions(), client)


def put(store: Store, tmp_path: Path, content: bytes, *, token: str, exclusive: bool = True) -> None:
    with TempFile(tmp_path) as file:
        os.write(file.fd, content)
        metadata = {"upload": token, "sha256": hashlib.sha256(content).hexdigest()}
        upload = Upload(len(content), "video/mp4", metadata, exclusive=exclusive)
        store.put(file, Destination(store.fs, PATH, f"s3://{PATH}"), upload)


def test_an_exclusive_write_is_the_stores_own_condition(bucket: Bucket, store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, b"first", token="1")
    with pytest.raises(DestinationExists):
        put(store, tmp_path, b"second", token="2")
    assert bucket.content == b"first"


def test_a_write_that_may_replace_has_no_condition(bucket: Bucket, store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, b"first", token="1", exclusive=False)
    put(store, tmp_path, b"second", token="2", exclusive=False)
    assert bucket.content == b"second"
    assert not any("if-none-match" in headers for headers in bucket.puts)


def test_an_exclusive_write_whose_reply_was_lost_has_succeeded(
    bucket: Bucket, store: Store, tmp_path: Path
) -> None:
    bucket.lose_reply = True
    put(store, tmp_path, b"first", token="1")
    assert len(bucket.puts) == 2


def test_a_store_without_conditional_writes_is_written_without(
    bucket: Bucket, store: Store, tmp_path: Path
) -> None:
    bucket.refuses = lambda headers: (501, "NotImplemented") if "if-none-match" in headers else None
    put(store, tmp_path, b"first", token="1")
    assert bucket.content == b"first"


@pytest.mark.parametrize(
    ("status", "code"),
    [(411, "MissingContentLength"), (501, "NotImplemented"), (400, "XAmzContentSHA256Mismatch")],
)
def test_a_store_that_cannot_take_the_default_checksums_is_told_the_setting(
    status: int, code: str, bucket: Bucket, store: Store, tmp_path: Path
) -> None:
    bucket.refuses = lambda headers: (status, code)
    with pytest.raises(PublishFailed, match="request_checksum_calculation") as caught:
        put(store, tmp_path, b"first", token="1")
    assert code in str(caught.value)


@pytest.mark.parametrize("store", ["boto3"], indirect=True)
def test_the_digest_that_is_known_is_the_checksum_that_the_store_compares(
    bucket: Bucket, store: Store, tmp_path: Path
) -> None:
    put(store, tmp_path, b"first", token="1")
    (headers,) = bucket.puts
    assert base64.b64decode(headers["x-amz-checksum-sha256"]) == hashlib.sha256(b"first").digest()
    assert "x-amz-checksum-crc32" not in headers


@pytest.mark.parametrize("store", ["boto3 without checksums"], indirect=True)
def test_no_checksum_is_sent_where_none_is_wanted(bucket: Bucket, store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, b"first", token="1")
    (headers,) = bucket.puts
    assert not any("checksum" in name for name in headers)


def test_the_metadata_is_read_whatever_the_case_of_its_names(
    bucket: Bucket, store: Store, tmp_path: Path
) -> None:
    put(store, tmp_path, b"first", token="1")
    bucket.metadata = {"X-Amz-Meta-Upload": "1"}
    assert store.metadata(Destination(store.fs, PATH, "s3://v")) == {"upload": "1"}


def test_only_unfinished_uploads_to_this_very_store_are_aborted(bucket: Bucket, store: Store) -> None:
    def line(endpoint: str, upload_id: str) -> str:
        return json.dumps({"bucket": "videos", "key": "k", "id": upload_id, "endpoint": endpoint})

    others = line("https://s3.example", "theirs")
    assert store.discard([line(bucket.endpoint, "ours"), others, '{"bucket": "vid']) == [others]
    assert [path for path in bucket.deleted if "uploadId=ours" in path]
    assert not [path for path in bucket.deleted if "theirs" in path]
