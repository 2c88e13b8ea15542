"""Whatever the destination does, and whenever the process dies: nothing half, nothing left."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.media import (
    DestinationExists,
    NoSpace,
    PublishFailed,
    SourceRefused,
    download_many,
    upload,
)
from scripts.services import S3Server, free_port
from tests.system.misbehaving import Fault, Misbehaving, answer, cut, digest, reset, stall
from tests.system.store_proxy import StoreProxy
from tests.system.stores import LocalStore, S3Store, Store, Watcher
from tests.system.test_download_faults import CLIP, MIDDLE, OTHER, QUICK, land
from tests.system.videos import h264


@pytest.fixture(params=[upload.EARLY, 0], ids=["complete", "still coming"])
def small_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload even a small file in parts: when it is complete, and while it is still coming."""
    monkeypatch.setattr(upload, "EARLY", request.param)
    monkeypatch.setattr(upload, "WORTH_IT", 0)
    monkeypatch.setattr(upload, "PART", 100_000)


def is_part(method: str, path: str, number: int) -> bool:
    return method == "PUT" and f"partNumber={number}" in path


LAST_PART = -(-len(CLIP) // 100_000)

STORE_ROWS = {
    "store refuses": lambda method, path: 403 if method in ("PUT", "POST") else None,
    "store fails at the last part": lambda method, path: (
        500 if is_part(method, path, LAST_PART) or (method == "PUT" and "partNumber" not in path) else None
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
    def test_is_an_error_and_leaves_nothing(
        self, row: str, s3_server: S3Server, s3_store: Callable[..., S3Store], small_parts: None
    ) -> None:
        with (
            StoreProxy(s3_server.endpoint, STORE_ROWS[row]) as proxy,
            Misbehaving(CLIP) as server,
        ):
            store = s3_store(proxy.endpoint)
            with Watcher(store, "v1.mp4") as watcher, pytest.raises(PublishFailed) as caught:
                land(server.url, store, timeout=4.0)
        assert "v1.mp4" in str(caught.value)
        assert watcher.seen == set()
        assert store.names() == store.leftovers() == []

    def test_stands_in_the_documentation(self, pytestconfig: pytest.Config) -> None:
        text = (pytestconfig.rootpath / "docs" / "downloads.md").read_text()
        assert [row for row in STORE_ROWS if f"| {row} |" not in text] == []

    def test_that_passes_is_overcome(
        self, s3_server: S3Server, s3_store: Callable[..., S3Store], small_parts: None
    ) -> None:
        failed: list[str] = []

        def once(method: str, path: str) -> int | None:
            if is_part(method, path, LAST_PART) and not failed:
                failed.append(path)
                return 503
            return None

        with StoreProxy(s3_server.endpoint, once) as proxy, Misbehaving(CLIP) as server:
            store = s3_store(proxy.endpoint)
            landed = land(server.url, store)
        assert (landed.sha256, store.read("v1.mp4"), store.leftovers()) == (digest(CLIP), CLIP, [])

    def test_a_store_that_takes_no_signed_links_is_written_the_usual_way(
        self, s3_server: S3Server, s3_store: Callable[..., S3Store], small_parts: None
    ) -> None:
        refuse = lambda method, path: 403 if "X-Amz-Signature" in path else None  # noqa: E731
        with StoreProxy(s3_server.endpoint, refuse) as proxy, Misbehaving(CLIP) as server:
            store = s3_store(proxy.endpoint)
            land(server.url, store)
        assert (store.read("v1.mp4"), store.leftovers()) == (CLIP, [])

    @pytest.mark.parametrize("asked", ["HEAD", "GET"])
    def test_a_store_that_says_nothing_to_a_question_is_given_up(
        self, asked: str, s3_server: S3Server, s3_store: Callable[..., S3Store], eager: None
    ) -> None:
        silent = lambda method, path: 0 if method == asked else None  # noqa: E731
        with StoreProxy(s3_server.endpoint, silent) as proxy, Misbehaving(CLIP) as server:
            store = s3_store(proxy.endpoint)
            with pytest.raises(PublishFailed, match="no answer within the timeout"):
                land(server.url, store, timeout=1.0)
        assert store.names() == []

    def test_a_store_that_is_not_there_is_named(self, s3_store: Callable[..., S3Store]) -> None:
        store = s3_store(f"http://127.0.0.1:{free_port()}")
        with Misbehaving(CLIP) as server, pytest.raises(PublishFailed, match=r"v1\.mp4"):
            land(server.url, store)
        assert store.names() == store.leftovers() == []


class TestEarlyUploads:
    """Large files are uploaded while they come; `eager` makes every file a large one."""

    def test_begin_before_the_last_byte_has_come_and_end_after_every_check(
        self, s3_server: S3Server, s3_store: Callable[..., S3Store], eager: None
    ) -> None:
        uploaded = threading.Event()

        def notice(method: str, path: str) -> None:
            if is_part(method, path, 1):
                uploaded.set()

        with StoreProxy(s3_server.endpoint, notice) as proxy, Misbehaving(CLIP) as server:
            # The server keeps the last bytes back until the store has been asked to take the first part.
            server.on_sent = lambda sent: sent < MIDDLE or uploaded.wait(20) or None
            store = s3_store(proxy.endpoint)
            landed = land(server.url, store, connections=1)
            assert uploaded.is_set()
            assert landed.sha256 == digest(store.read("v1.mp4") or b"")
        assert store.leftovers() == []

    @pytest.mark.parametrize("sidecar", [False, True], ids=["read anew", "by its sidecar"])
    def test_are_found_again_with_everything_that_is_known_of_them(
        self, sidecar: bool, s3_store: Callable[..., S3Store], eager: None
    ) -> None:
        """Their notes are as old as the upload's beginning and hold no digest."""
        store = s3_store()
        with Misbehaving(CLIP) as server:
            landed = land(server.url, store, sidecar=sidecar)
            asked = len(server.seen)
            again = land(server.url, store, sidecar=sidecar)
            assert len(server.seen) == asked
        assert again == replace(landed, skipped=True, seconds=again.seconds)
        assert landed.duration

    def test_of_bytes_that_were_thrown_away_are_thrown_away_as_well(
        self, s3_store: Callable[..., S3Store], eager: None
    ) -> None:
        store = s3_store()
        script = (cut(MIDDLE), Fault("new_version"))
        with Misbehaving(CLIP, script=script, next_version=OTHER) as server:
            assert land(server.url, store, connections=1).sha256 == digest(OTHER)
        assert (store.read("v1.mp4"), store.leftovers()) == (OTHER, [])

    def test_whose_parts_are_still_on_their_way_end_with_the_download(
        self, s3_server: S3Server, s3_store: Callable[..., S3Store], eager: None
    ) -> None:
        """The store takes the first part and answers never; the video's server gives up in the middle."""
        over, taken = threading.Event(), threading.Event()

        def hold(method: str, path: str) -> None:
            if is_part(method, path, 1):
                taken.set()
                over.wait(60)

        with (
            StoreProxy(s3_server.endpoint, hold) as proxy,
            Misbehaving(CLIP, script=(reset(MIDDLE),), forever=answer(451)) as server,
        ):
            server.on_sent = lambda sent: sent < MIDDLE or taken.wait(20) or None
            store = s3_store(proxy.endpoint)
            try:
                with pytest.raises(SourceRefused, match="451"):
                    land(server.url, store, connections=1)
                assert not over.is_set()
                assert not [t for t in threading.enumerate() if t.name.startswith("video-upload")]
            finally:
                over.set()
        assert store.names() == store.leftovers() == []


class TestInterrupted:
    def test_while_uploading_leaves_nothing(
        self, s3_server: S3Server, s3_store: Callable[..., S3Store], small_parts: None
    ) -> None:
        """The store says nothing more, and the task is ended from outside."""
        interrupted: list[str] = []

        def silent(method: str, path: str) -> int | None:
            if not is_part(method, path, 2):
                return None
            interrupted.append(path)
            os.kill(os.getpid(), signal.SIGINT)
            return 0

        with StoreProxy(s3_server.endpoint, silent) as proxy, Misbehaving(CLIP) as server:
            store = s3_store(proxy.endpoint)
            with pytest.raises(KeyboardInterrupt):
                land(server.url, store)
        assert len(interrupted) == 1
        assert store.names() == store.leftovers() == []


class TestWhatIsThereAlready:
    def test_the_same_video_is_left_and_reported(self, store: Store) -> None:
        with Misbehaving(CLIP) as server:
            first = land(server.url, store)
            second = land(server.url, store)
        assert (first.skipped, second.skipped) == (False, True)
        assert {**first.as_dict(), "seconds": 0, "skipped": True} == {**second.as_dict(), "seconds": 0}

    def test_notes_of_the_store_save_even_the_request(self, s3_store: Callable[..., S3Store]) -> None:
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

    def test_fail_does_not_even_ask(self, store: Store) -> None:
        with Misbehaving(CLIP) as server:
            land(server.url, store)
            asked = len(server.seen)
            with pytest.raises(DestinationExists):
                land(server.url, store, if_exists="fail")
            assert len(server.seen) == asked


class TestManyAtATime:
    def test_each_lands_or_fails_by_itself(self, store: Store) -> None:
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
from airflow_video_provider.media import download, upload
arguments = json.loads(sys.stdin.read())
upload.WORTH_IT, upload.PART, upload.EARLY = 0, 100_000, arguments.pop("early")
options = arguments.pop("storage", None)
if options:
    from upath import UPath
    arguments["destination"] = UPath(arguments["destination"], **options)
download(**arguments, progress=lambda moment: None)
"""


def start(arguments: dict[str, Any]) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(arguments))
    process.stdin.close()
    return process


class TestKilled:
    @pytest.mark.parametrize("seed", range(4))
    def test_while_downloading_leaves_nothing_after_the_next_run(self, seed: int, store: Store) -> None:
        moment = random.Random(seed).randrange(len(CLIP))  # noqa: S311
        arguments = {**self.arguments(store), "early": 0 if seed % 2 else upload.EARLY}
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

    @pytest.mark.parametrize("early", [upload.EARLY, 0], ids=["complete", "still coming"])
    @pytest.mark.parametrize("number", range(1, LAST_PART + 1))
    def test_while_uploading_leaves_nothing_after_the_next_run(
        self, number: int, early: int, s3_server: S3Server, s3_store: Callable[..., S3Store]
    ) -> None:
        victims: list[subprocess.Popen[str]] = []

        def kill(method: str, path: str) -> int | None:
            if victims and is_part(method, path, number):
                victims.pop().kill()
                return 0
            return None

        with StoreProxy(s3_server.endpoint, kill) as proxy, Misbehaving(CLIP) as server:
            store = s3_store(proxy.endpoint)
            process = start({"url": server.url, "early": early, **self.arguments(store)})
            victims.append(process)
            process.wait(60)
            assert victims == []
            assert store.names() == []
            assert store.unfinished() != []
            assert land(server.url, store).sha256 == digest(CLIP)
        assert (store.names(), store.leftovers()) == (["v1.mp4"], [])

    def arguments(self, store: Store) -> dict[str, Any]:
        common = {
            "destination": str(store.directory),
            "temp_dir": str(store.temp),
            "file_name": "{video_id}.{ext}",
            "name_fields": {"video_id": "v1"},
            "allowed_hosts": ["127.0.0.1"],
        }
        if isinstance(store, S3Store):
            common["storage"] = {
                k: store.directory.storage_options[k] for k in ("key", "secret", "endpoint_url")
            }
        return common


class TestDiskFull:
    def test_before_the_first_byte(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        import shutil

        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
        with Misbehaving(CLIP) as server, pytest.raises(NoSpace, match="10 bytes free"):
            land(server.url, store)
        assert store.names() == store.leftovers() == []

    def test_in_the_middle(self, store: Store) -> None:
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

    def test_where_the_temporary_directory_is_another_disk(
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
from airflow_video_provider.media import MediaError, engine
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
arguments = json.loads(sys.stdin.read())
before = peak()
try:
    engine.download(**arguments, progress=lambda moment: None)
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
    def test_stays_bounded(self, script: Any, forever: Fault, local_store: LocalStore) -> None:
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
