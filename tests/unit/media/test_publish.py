"""Stores that cannot be had on this machine, played by a few lines: what they are told, and what they say."""

from __future__ import annotations

import os
import sys
import time
import types
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fsspec.asyn import get_loop

from airflow_video_provider.media.errors import PublishFailed
from airflow_video_provider.media.publish import UPLOAD_PART, Spool, Target, publish

NOTES = {"video_id": "veo:1 ä", "sha256": "ab" * 32, "size": 7, "duration": 1.5}


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
        self.told = told
        self.has_length = hasattr(data, "fileno")
        self.content = data.read(-1)

    async def _put_file(self, path: str, name: str, **told: Any) -> None:
        if self.failure is not None:
            raise self.failure
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


def put(store: Store, tmp_path: Path, size: int = 7) -> Target:
    uri = f"{store.protocol[0]}://videos/v.mp4"
    target = Target(store, "videos/v.mp4", uri, deadline=time.monotonic() + 60)
    with Spool(tmp_path) as spool:
        os.ftruncate(spool.fd, size)
        publish(spool, target, size=size, exclusive=True, content_type="video/mp4", notes=NOTES)
    return target


class TestAzure:
    @pytest.fixture(autouse=True)
    def library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library: Any = types.ModuleType("azure.storage.blob")
        library.ContentSettings = lambda content_type: {"type": content_type}
        monkeypatch.setitem(sys.modules, "azure.storage.blob", library)

    def test_is_told_the_type_and_the_notes(self, tmp_path: Path) -> None:
        store = Store("abfs")
        notes = put(store, tmp_path).notes()
        assert store.told["content_settings"] == {"type": "video/mp4"}
        assert all(value.isascii() for value in store.told["metadata"].values())
        assert notes == NOTES

    def test_does_not_read_a_large_file_whole(self, tmp_path: Path) -> None:
        small, large = Store("az"), Store("az")
        put(small, tmp_path, UPLOAD_PART)
        put(large, tmp_path, UPLOAD_PART + 1)
        assert (small.has_length, large.has_length) == (True, False)
        assert len(large.content or b"") == UPLOAD_PART + 1


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
