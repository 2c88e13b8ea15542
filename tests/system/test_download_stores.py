"""Whatever the destination does, and whenever the process dies: nothing half, nothing left."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.media import (
    DestinationExists,
    NoSpace,
    PublishFailed,
    download_many,
)
from scripts.services import S3Server, free_port
from tests.system.landing import CLIP, IN_PARTS, LONG, MIDDLE, OTHER, PART, PARTS, QUICK, land
from tests.system.misbehaving import Fault, Misbehaving, answer, digest, reset, stall
from tests.system.store_proxy import StoreProxy
from tests.system.stores import LocalStore, S3Store, Store, Watcher
from tests.system.videos import h264


def is_part(method: str, path: str, number: int) -> bool:
    return method == "PUT" and f"partNumber={number}" in path


STORE_ROWS = {
    "store refuses": lambda method, path: 403 if method in ("PUT", "POST") else None,
    "store fails at the last part": lambda method, path: (
        500 if is_part(method, path, PARTS) or (method == "PUT" and "partNumber" not in path) else None
    ),
    "store fails at the completion": lambda method, path: (
        500
        if (method == "POST" and "uploadId" in path) or (method == "PUT" and "partNumber" not in path)
        else None
    ),
    "store is silent": lambda method, path: 0 if method == "PUT" else None,
}


class TestEveryFaultOfTheStore:
    @pytest.mark.parametrize("row", STORE_ROWS)
    def test_a_fault_of_the_store_is_an_error_and_leaves_nothing(
        self, row: str, s3_server: S3Server, s3_by: Callable[..., S3Store]
    ) -> None:
        with (
            StoreProxy(s3_server.endpoint, STORE_ROWS[row]) as proxy,
            Misbehaving(LONG) as server,
        ):
            store = s3_by(proxy.endpoint)
            timeout = 10.0 if row == "store is silent" else 60.0
            with Watcher(store, "v1.mp4") as watcher, pytest.raises(PublishFailed) as caught:
                land(server.url, store, timeout=timeout, options=IN_PARTS)
        assert "v1.mp4" in str(caught.value)
        assert watcher.seen == set()
        assert store.names() == store.leftovers() == []

    def test_every_fault_of_the_store_stands_in_the_documentation(self, pytestconfig: pytest.Config) -> None:
        text = (pytestconfig.rootpath / "docs" / "downloads.md").read_text()
        assert [row for row in STORE_ROWS if f"| {row} |" not in text] == []

    def test_a_fault_of_the_store_that_passes_is_overcome(
        self, s3_server: S3Server, s3_by: Callable[..., S3Store]
    ) -> None:
        failed: list[str] = []

        def once(method: str, path: str) -> int | None:
            if is_part(method, path, PARTS) and not failed:
                failed.append(path)
                return 503
            return None

        with StoreProxy(s3_server.endpoint, once) as proxy, Misbehaving(LONG) as server:
            store = s3_by(proxy.endpoint)
            landed = land(server.url, store, options=IN_PARTS)
        assert (landed.sha256, store.read("v1.mp4"), store.leftovers()) == (digest(LONG), LONG, [])

    @pytest.mark.parametrize(("client", "asked"), [("boto3", "HEAD"), ("s3fs", "HEAD"), ("s3fs", "GET")])
    def test_a_store_that_is_silent_when_it_is_looked_into_is_given_up(
        self, client: str, asked: str, s3_server: S3Server, s3_store: Callable[..., S3Store]
    ) -> None:
        silent = lambda method, path: 0 if method == asked else None  # noqa: E731
        with StoreProxy(s3_server.endpoint, silent) as proxy, Misbehaving(LONG) as server:
            store = s3_store(proxy.endpoint, client=client)
            with pytest.raises(PublishFailed, match="no answer within the timeout"):
                land(server.url, store, timeout=3.0)
        assert store.names() == []

    def test_a_look_that_the_store_forbids_says_which_right_is_missing(
        self, s3_server: S3Server, s3_store: Callable[..., S3Store]
    ) -> None:
        forbidden = lambda method, path: 403 if method == "HEAD" else None  # noqa: E731
        with (
            StoreProxy(s3_server.endpoint, forbidden) as proxy,
            Misbehaving(LONG) as server,
            pytest.raises(PublishFailed, match="s3:ListBucket"),
        ):
            land(server.url, s3_store(proxy.endpoint))
        assert server.seen == []

    def test_an_object_by_which_another_writer_replaces_ours_at_once_is_left(
        self, s3_server: S3Server, s3_by: Callable[..., S3Store]
    ) -> None:
        def replaced(method: str, path: str) -> None:
            if method == "HEAD" and any(earlier == "PUT" for earlier, _ in proxy.requests):
                store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}/v1.mp4", Body=b"another")

        with StoreProxy(s3_server.endpoint, replaced) as proxy, Misbehaving(LONG) as server:
            store = s3_by(proxy.endpoint)
            with pytest.raises(PublishFailed, match="it may be another writer's and was left"):
                land(server.url, store, if_exists="overwrite")
        assert (store.read("v1.mp4"), store.leftovers()) == (b"another", [])

    def test_a_store_that_is_not_there_is_named(self, s3_store: Callable[..., S3Store]) -> None:
        store = s3_store(f"http://127.0.0.1:{free_port()}")
        with Misbehaving(LONG) as server, pytest.raises(PublishFailed, match=r"v1\.mp4"):
            land(server.url, store)
        assert store.names() == store.leftovers() == []


class TestUnfinishedUploads:
    """Parts of an upload that was not completed are invisible, and are paid for until they are discarded."""

    @pytest.fixture
    def anothers(self, s3_client: Any, s3_by: Callable[..., S3Store]) -> tuple[S3Store, str]:
        """A store, and the id of an upload to `v1.mp4` there that another writer is at."""
        store = s3_by()
        key = f"{store.prefix}/v1.mp4"
        begun = s3_client.create_multipart_upload(Bucket=store.bucket, Key=key)
        s3_client.upload_part(
            Bucket=store.bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"part"
        )
        return store, begun["UploadId"]

    def test_anothers_unfinished_upload_to_the_same_name_is_left_alone(
        self, anothers: tuple[S3Store, str]
    ) -> None:
        store, _ = anothers
        with Misbehaving(LONG) as server:
            land(server.url, store, options=IN_PARTS)
        assert store.names() == ["v1.mp4"]
        assert len(store.unfinished()) == 1

    def test_anothers_unfinished_upload_outlives_one_of_ours_that_fails(
        self, s3_server: S3Server, s3_client: Any, s3_by: Callable[..., S3Store]
    ) -> None:
        fails = STORE_ROWS["store fails at the completion"]
        with StoreProxy(s3_server.endpoint, fails) as proxy, Misbehaving(LONG) as server:
            store = s3_by(proxy.endpoint)
            s3_client.create_multipart_upload(Bucket=store.bucket, Key=f"{store.prefix}/v1.mp4")
            with pytest.raises(PublishFailed):
                land(server.url, store, options=IN_PARTS)
        assert len(store.unfinished()) == 1

    def test_an_unfinished_upload_that_nobody_can_be_at_any_more_is_discarded(
        self, anothers: tuple[S3Store, str]
    ) -> None:
        store, _ = anothers
        with Misbehaving(LONG) as server:
            land(server.url, store, options=replace(IN_PARTS, unfinished_after=0.0))
        assert (store.names(), store.unfinished()) == (["v1.mp4"], [])


class TestInterrupted:
    def test_an_interrupt_while_uploading_leaves_nothing(
        self, s3_server: S3Server, s3_by: Callable[..., S3Store]
    ) -> None:
        """The store says nothing more, and the task is ended from outside."""
        interrupted: list[str] = []

        def silent(method: str, path: str) -> int | None:
            if not is_part(method, path, 2):
                return None
            interrupted.append(path)
            os.kill(os.getpid(), signal.SIGINT)
            return 0

        with StoreProxy(s3_server.endpoint, silent) as proxy, Misbehaving(LONG) as server:
            store = s3_by(proxy.endpoint)
            with pytest.raises(KeyboardInterrupt):
                land(server.url, store, options=IN_PARTS)
        assert len(interrupted) == 1
        assert store.names() == store.leftovers() == []


class TestWhatIsThereAlready:
    def test_the_same_video_is_left_and_reported(self, store: Store) -> None:
        with Misbehaving(CLIP) as server:
            first = land(server.url, store)
            second = land(server.url, store)
        assert (first.skipped, second.skipped) == (False, True)
        assert {**first.as_dict(), "seconds": 0, "skipped": True} == {**second.as_dict(), "seconds": 0}

    def test_the_stores_metadata_saves_even_the_request(self, s3_store: Callable[..., S3Store]) -> None:
        store = s3_store()
        with Misbehaving(CLIP) as server:
            land(server.url, store)
            asked = len(server.seen)
            assert land(server.url, store).skipped
            assert len(server.seen) == asked

    def test_a_sidecar_saves_even_the_request(self, store: Store) -> None:
        with Misbehaving(CLIP) as server:
            landed = land(server.url, store, sidecar={"prompt": "a cat"})
            asked = len(server.seen)
            assert land(server.url, store).skipped
            assert len(server.seen) == asked
        sidecar = json.loads(store.read("v1.mp4.json") or b"")
        assert (sidecar["prompt"], sidecar["sha256"]) == ("a cat", landed.sha256)

    def test_a_sidecar_that_is_missing_is_written(self, store: Store) -> None:
        """A process was killed between the two."""
        with Misbehaving(CLIP) as server:
            landed = land(server.url, store)
            assert land(server.url, store, sidecar={"prompt": "a cat"}).skipped
        sidecar = json.loads(store.read("v1.mp4.json") or b"")
        assert (sidecar["prompt"], sidecar["sha256"], sidecar["skipped"]) == ("a cat", landed.sha256, False)

    def test_another_video_is_never_taken_for_this_one_nor_replaced(self, store: Store) -> None:
        with Misbehaving(CLIP) as server, Misbehaving(OTHER) as other:
            land(server.url, store)
            with pytest.raises(DestinationExists):
                land(other.url, store, file_name="v1.mp4", name_fields={})
        assert store.read("v1.mp4") == CLIP

    def test_overwrite_replaces_in_one_step(self, store: Store) -> None:
        with Misbehaving(CLIP) as server, Misbehaving(OTHER) as other, Watcher(store, "v1.mp4") as watcher:
            land(server.url, store)
            land(other.url, store, if_exists="overwrite")
        assert watcher.seen <= {CLIP, OTHER}
        assert store.read("v1.mp4") == OTHER

    def test_a_failed_overwrite_leaves_what_was_there(self, store: Store) -> None:
        with Misbehaving(CLIP) as server, Misbehaving(OTHER, forever=answer(404)) as other:
            land(server.url, store)
            with pytest.raises(Exception, match="404"):
                land(other.url, store, if_exists="overwrite")
        assert store.read("v1.mp4") == CLIP

    def test_fail_does_not_even_ask_the_videos_server(self, store: Store) -> None:
        with Misbehaving(CLIP) as server:
            land(server.url, store)
            asked = len(server.seen)
            with pytest.raises(DestinationExists):
                land(server.url, store, if_exists="fail")
            assert len(server.seen) == asked


class TestManyAtATime:
    def test_of_many_downloads_each_lands_or_fails_by_itself(self, store: Store) -> None:
        with Misbehaving(CLIP) as good, Misbehaving(OTHER, forever=answer(404)) as bad:
            common = {"destination": store.directory, "temp_dir": store.temp, "file_name": "{video_id}.{ext}"}
            results = download_many(
                [
                    {"url": good.url, "name_fields": {"video_id": "a"}},
                    {"url": bad.url, "name_fields": {"video_id": "b"}},
                    {"url": good.url, "name_fields": {"video_id": "c"}},
                ],
                parallel=2,
                **{**QUICK, **common},
            )
        assert [type(result).__name__ for result in results] == ["VideoFile", "LinkExpired", "VideoFile"]
        assert store.names() == ["a.mp4", "c.mp4"]
        assert store.leftovers() == []


PROGRAM = """
import json, sys
from airflow_video_provider.media import DownloadOptions, download
arguments = json.loads(sys.stdin.read())
storage = arguments.pop("storage", None)
if storage:
    from upath import UPath
    arguments["destination"] = UPath(arguments["destination"], **storage)
    if arguments.pop("boto3"):
        import boto3
        arguments["s3_client"] = boto3.session.Session().client(
            "s3",
            region_name="us-east-1",
            endpoint_url=storage["endpoint_url"],
            aws_access_key_id=storage["key"],
            aws_secret_access_key=storage["secret"],
        )
options = DownloadOptions(**arguments.pop("options"))
download(**arguments, options=options, progress=lambda moment: None)
"""


def start(arguments: dict[str, Any]) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(arguments))
    process.stdin.close()
    return process


class TestKilled:
    @pytest.mark.parametrize("seed", range(4))
    def test_a_kill_while_downloading_leaves_nothing_after_the_next_run(
        self, seed: int, store: Store
    ) -> None:
        moment = random.Random(seed).randrange(len(CLIP))  # noqa: S311
        arguments = self.arguments(store)
        # The server stops at the moment and waits for the hang-up, so the kill cannot come too late.
        with Misbehaving(CLIP, script=(stall(moment),)) as server:
            process = start({"url": server.url, **arguments})
            server.on_sent = lambda sent: process.kill() if sent >= moment else None
            if moment == 0:
                process.kill()
            process.wait(60)
            assert store.names() == []
            server.on_sent = None
            assert land(server.url, store).sha256 == digest(CLIP)
        assert (store.names(), store.leftovers()) == (["v1.mp4"], [])

    @pytest.mark.parametrize("number", range(1, PARTS + 1))
    def test_a_kill_while_uploading_leaves_nothing_after_the_next_run(
        self, number: int, s3_server: S3Server, s3_by: Callable[..., S3Store]
    ) -> None:
        victims: list[subprocess.Popen[str]] = []

        def kill(method: str, path: str) -> int | None:
            if victims and is_part(method, path, number):
                victims.pop().kill()
                return 0
            return None

        with StoreProxy(s3_server.endpoint, kill) as proxy, Misbehaving(LONG) as server:
            store = s3_by(proxy.endpoint)
            process = start({"url": server.url, **self.arguments(store)})
            victims.append(process)
            process.wait(60)
            assert victims == []
            assert store.names() == []
            assert store.unfinished() != []
            assert land(server.url, store).sha256 == digest(LONG)
        assert (store.names(), store.leftovers()) == (["v1.mp4"], [])

    def arguments(self, store: Store) -> dict[str, Any]:
        common = {
            "destination": str(store.directory),
            "temp_dir": str(store.temp),
            "file_name": "{video_id}.{ext}",
            "name_fields": {"video_id": "v1"},
            "allowed_hosts": ["127.0.0.1"],
            "options": {"upload_threshold": 2 * PART, "upload_part": PART, "block": PART},
        }
        if isinstance(store, S3Store):
            common["boto3"] = store.s3_client is not None
            common["storage"] = {
                k: store.directory.storage_options[k] for k in ("key", "secret", "endpoint_url")
            }
        return common


class TestDiskFull:
    def test_a_full_disk_is_an_error_before_the_first_byte(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import shutil

        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
        with Misbehaving(CLIP) as server, pytest.raises(NoSpace, match="10 bytes free"):
            land(server.url, store)
        assert store.names() == store.leftovers() == []

    def test_a_disk_that_fills_up_is_an_error(self, store: Store) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIDDLE, hard))
        try:
            with (
                Misbehaving(CLIP, forever=Fault("chunked")) as server,
                pytest.raises(NoSpace, match="no room"),
            ):
                land(server.url, store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.names() == store.leftovers() == []

    def test_a_file_from_another_disk_still_lands_in_one_step(
        self, local_store: LocalStore, tmp_path: Path
    ) -> None:
        """Copied to a temporary name beside the final one first, then renamed."""
        elsewhere = Path("/dev/shm")
        if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("needs two file systems")
        local_store.temp = elsewhere
        with Misbehaving(CLIP) as server, Watcher(local_store, "v1.mp4") as watcher:
            land(server.url, local_store)
        assert watcher.seen <= {CLIP}
        assert local_store.unfinished() == []


MEMORY = """
import json, resource, sys
import httpcore, fsspec, s3fs, av
from airflow_video_provider.media import MediaError, download
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
arguments = json.loads(sys.stdin.read())
before = peak()
try:
    download(**arguments, progress=lambda moment: None)
except MediaError as error:
    print(type(error).__name__, file=sys.stderr)
print(peak() - before)
"""


class TestMemory:
    @pytest.mark.parametrize(
        ("script", "forever"),
        [
            ((reset(30_000_000), reset(1_000_000)), Fault("fine")),
            ((), Fault("chunked")),
            ((), Fault("gzip")),
        ],
        ids=["resets", "unannounced length", "gzip bomb"],
    )
    def test_memory_stays_bounded(self, script: Any, forever: Fault, local_store: LocalStore) -> None:
        size = 128 * 2**20
        content = h264(seconds=1, faststart=False)
        padding = size - len(content)
        content += padding.to_bytes(4) + b"free" + bytes(padding - 8)
        with Misbehaving(content, script=script, forever=forever) as server:
            process = subprocess.run(
                [sys.executable, "-c", MEMORY],
                input=json.dumps(
                    {
                        "url": server.url,
                        "destination": str(local_store.root / "v.mp4"),
                        "allowed_hosts": ["127.0.0.1"],
                        "backoff": 0.001,
                    }
                ),
                capture_output=True,
                text=True,
                check=True,
            )
        assert int(process.stdout) < 64 * 2**20
