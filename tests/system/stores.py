"""The two kinds of destination that every fault is tried on, and a thread that watches the final name."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_video_provider.media.tempfile import TEMP_PREFIX


@dataclass
class Store:
    """A directory to land in. ``temp`` is where the bytes are gathered; both must be clean afterwards."""

    directory: Any
    temp: Path
    s3_client: Any = field(default=None, kw_only=True)

    def names(self) -> list[str]:
        raise NotImplementedError

    def read(self, name: str) -> bytes | None:
        raise NotImplementedError

    def unfinished(self) -> list[str]:
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Whatever is there beside what has landed, journals of uploads included."""
        temporary = [path.name for path in self.temp.iterdir() if path.name.startswith(TEMP_PREFIX)]
        return temporary + self.unfinished()


@dataclass
class LocalStore(Store):
    root: Path = Path()

    def names(self) -> list[str]:
        return (
            sorted(p.name for p in self.root.iterdir() if not p.name.startswith("."))
            if self.root.exists()
            else []
        )

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def unfinished(self) -> list[str]:
        return [p.name for p in self.root.iterdir() if p.name.startswith(".")] if self.root.exists() else []


@dataclass
class S3Store(Store):
    client: Any = None
    bucket: str = ""
    prefix: str = ""

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + "/").get("Contents", ())
        return sorted(entry["Key"].removeprefix(self.prefix + "/") for entry in found)

    def read(self, name: str) -> bytes | None:
        try:
            return self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None

    def unfinished(self) -> list[str]:
        try:
            answer = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix + "/")
        except self.client.exceptions.NoSuchUpload:  # how this server says that there is none
            return []
        found = answer.get("Uploads", ())
        return [entry["Key"] for entry in found if entry["Key"].startswith(self.prefix)]


@dataclass
class Watcher:
    """Reads the final name over and over, from another thread, and keeps every distinct content it saw."""

    store: Store
    name: str
    seen: set[bytes] = field(default_factory=set)

    def __enter__(self) -> Watcher:
        self._stop = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._looked.wait(10)
        return self

    def _watch(self) -> None:
        while True:
            content = self.store.read(self.name)
            if content is not None:
                self.seen.add(content)
            self._looked.set()
            if self._stop.wait(0.005):
                return

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
