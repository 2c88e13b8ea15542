"""Stores that cannot be had on this machine, played by a few lines."""

from __future__ import annotations

import os
import sys
import threading
import types
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fsspec.asyn import get_loop

from airflow_video_provider.media import DestinationExists, DownloadOptions, PublishFailed, VideoFile
from airflow_video_provider.media.calls import Patience
from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.media.destination import Destination
from airflow_video_provider.media.stores import Upload, store_for
from airflow_video_provider.media.tempfile import TempFile

OPTIONS = DownloadOptions()
VIDEO = VideoFile("uri", 7, "ab" * 32, "video/mp4", "mp4", duration=1.5, video_id="veo:1 ä")
METADATA = VIDEO.as_metadata(upload="this one")


class Store:
    """An asynchronous fsspec file system of one file."""

    async_impl = True
    s3_additional_kwargs = None

    def __init__(self, protocol: str, failure: Exception | None = None) -> None:
        self.protocol = (protocol,)
        self.loop = get_loop()
        self.failure = failure
        self.told: dict[str, Any] = {}
        self.content: bytes | None = None
        self.has_length = False

    @property
    def service_client(self) -> Store:
        return self

    @asynccontextmanager
    async def get_blob_client(self, container: str, name: str) -> Any:
        assert (container, name) == ("videos", "v.mp4")
        yield self

    async def upload_blob(self, data: Any, **told: Any) -> None:
        if self.content is not None and not told["overwrite"]:
            from azure.core.exceptions import ResourceExistsError

            raise ResourceExistsError("the blob exists")
        self.told = told
        self.has_length = hasattr(data, "fileno")
        self.content = data.read(-1)

    async def _put_file(self, path: str, name: str, **told: Any) -> None:
        if self.failure is not None:
            raise self.failure
        if self.content is not None and told.get("mode") == "create":
            raise FileExistsError(name)
        self.told = told
        self.content = Path(path).read_bytes()  # noqa: ASYNC240

    async def _info(self, name: str) -> dict[str, Any]:
        if self.content is None:
            raise FileNotFoundError(name)
        return {"type": "file", "size": len(self.content), "metadata": self.told.get("metadata")}

    def split_path(self, path: str) -> tuple[str, str, None]:
        container, _, name = path.partition("/")
        return container, name, None

    def invalidate_cache(self, path: str | None = None) -> None:
        pass


def place_in(store: Any) -> Destination:
    return Destination(store, "videos/v.mp4", f"{store.protocol[0]}://videos/v.mp4")


def put(
    store: Any, tmp_path: Path, size: int = 7, *, exclusive: bool = True, upload: str = "this one"
) -> Any:
    """Put *size* bytes, and return our side of the store."""
    place = place_in(store)
    ours = store_for(place, Patience(Deadline.after(60), threading.Event()), OPTIONS)
    with TempFile(tmp_path) as file:
        os.ftruncate(file.fd, size)
        metadata = {**METADATA, "upload": upload}
        ours.put(file, place, Upload(size, "video/mp4", metadata, exclusive=exclusive))
    return ours


class TestAzure:
    @pytest.fixture(autouse=True)
    def library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        blob: Any = types.ModuleType("azure.storage.blob")
        blob.ContentSettings = lambda content_type: {"type": content_type}
        exceptions: Any = types.ModuleType("azure.core.exceptions")
        exceptions.ResourceExistsError = type("ResourceExistsError", (Exception,), {})
        monkeypatch.setitem(sys.modules, "azure.storage.blob", blob)
        monkeypatch.setitem(sys.modules, "azure.core.exceptions", exceptions)

    def test_azure_gets_the_type_and_the_metadata(self, tmp_path: Path) -> None:
        store = Store("abfs")
        ours = put(store, tmp_path)
        assert store.told["content_settings"] == {"type": "video/mp4"}
        assert ours.metadata(place_in(store)) == {**METADATA, "is_directory": "false"}

    def test_a_large_file_for_azure_is_not_read_whole(self, tmp_path: Path) -> None:
        small, large = Store("az"), Store("az")
        put(small, tmp_path, OPTIONS.block)
        put(large, tmp_path, OPTIONS.block + 1)
        assert (small.has_length, large.has_length) == (True, False)
        assert len(large.content or b"") == OPTIONS.block + 1


class TestAnExclusiveWrite:
    """Somebody else writes the name between the look at it and the upload."""

    library = TestAzure.library

    @pytest.mark.parametrize("protocol", ["gs", "abfs"])
    def test_an_exclusive_write_replaces_nothing(self, protocol: str, tmp_path: Path) -> None:
        store = Store(protocol)
        put(store, tmp_path, upload="another one")
        with pytest.raises(DestinationExists):
            put(store, tmp_path, 8)
        assert len(store.content or b"") == 7

    @pytest.mark.parametrize("protocol", ["gs", "abfs"])
    def test_an_exclusive_write_that_meets_itself_has_succeeded(self, protocol: str, tmp_path: Path) -> None:
        """The reply to the first request was lost, and the client sent it again."""
        store = Store(protocol)
        put(store, tmp_path)
        put(store, tmp_path)

    @pytest.mark.parametrize("protocol", ["gs", "abfs"])
    def test_a_write_that_may_replace_has_no_condition(self, protocol: str, tmp_path: Path) -> None:
        store = Store(protocol)
        put(store, tmp_path)
        put(store, tmp_path, 8, exclusive=False)
        assert len(store.content or b"") == 8


@pytest.mark.parametrize(
    ("now_of", "words"),
    [(None, "it was removed again"), ("another one", "it may be another writer's and was left")],
)
def test_an_object_that_is_not_shown_whole_is_removed_unless_another_writer_replaced_it(
    now_of: str | None, words: str, tmp_path: Path
) -> None:
    removed: list[str] = []

    class Losing(Store):
        async def _info(self, name: str) -> dict[str, Any]:
            return {"type": "file", "size": 3, "metadata": {**METADATA, "upload": now_of or "this one"}}

        async def _rm_file(self, name: str) -> None:
            removed.append(name)

    with pytest.raises(PublishFailed, match=f"showed 3 bytes after 7 were uploaded; {words}"):
        put(Losing("gs"), tmp_path)
    assert removed == ([] if now_of else ["videos/v.mp4"])


class TestOtherFileSystems:
    def test_other_file_systems_get_the_file_under_a_temporary_name_first(self, tmp_path: Path) -> None:
        from fsspec.implementations.memory import MemoryFileSystem

        class Moving(MemoryFileSystem):
            protocol = "moving"
            store: dict[str, Any] = {}  # noqa: RUF012
            pseudo_dirs = [""]  # noqa: RUF012
            moved: list[tuple[str, str]] = []  # noqa: RUF012

            def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
                self.moved.append((path1, path2))
                super().mv(path1, path2, **kwargs)

        fs: Any = Moving()
        place = Destination(fs, "/films/v.mp4", "moving://films/v.mp4")
        ours = store_for(place, Patience(Deadline(), threading.Event()), OPTIONS)
        assert ours.stat(place) is None
        with TempFile(tmp_path) as file:
            os.write(file.fd, b"content")
            ours.put(file, place, Upload(7, "video/mp4"))
        assert fs.cat_file("/films/v.mp4") == b"content"
        assert [(path1 != path2, path2) for path1, path2 in fs.moved] == [(True, "/films/v.mp4")]
        assert [name.rpartition("/")[2] for name in fs.ls("/films", detail=False)] == ["v.mp4"]

    def test_a_file_system_that_hangs_is_given_up(self, tmp_path: Path) -> None:
        over = threading.Event()

        class Hanging:
            protocol = ("sftp",)

            def invalidate_cache(self, path: str) -> None:
                pass

            def info(self, path: str) -> None:
                over.wait(60)

        place = place_in(Hanging())
        ours = store_for(place, Patience(Deadline.after(0.1), threading.Event()), OPTIONS)
        with pytest.raises(PublishFailed, match="no answer within the timeout"):
            ours.stat(place)
        over.set()


class Answered(Exception):
    """As Azure's client raises it."""

    def __init__(self, status: int) -> None:
        super().__init__("no")
        self.status_code = status


class Coded(Exception):
    """As gcsfs raises it."""

    def __init__(self, code: int) -> None:
        super().__init__("no")
        self.code = code


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (Answered(403), False),
        (Answered(404), False),
        (Answered(503), True),
        (Coded(401), False),
        (Coded(429), True),
        (OSError("Forbidden: https://h/b\nno access"), False),
        (OSError("the line is dead"), True),
        (PermissionError("no"), False),
    ],
    ids=repr,
)
def test_a_store_that_refuses_is_not_asked_again(failure: Exception, again: bool, tmp_path: Path) -> None:
    with pytest.raises(PublishFailed) as caught:
        put(Store("gs", failure), tmp_path)
    assert caught.value.retryable is again
    assert list(tmp_path.iterdir()) == []
