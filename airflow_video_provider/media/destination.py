"""A final name: where a file is to lie, in whichever file system."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_video_provider.media.errors import BadDestination, excerpt, printable

LOCAL = frozenset({"file", "local"})


@dataclass(frozen=True)
class Destination:
    """A name in a file system.

    :ivar fs: an fsspec file system.
    :ivar path: the file system's own path.
    :ivar uri: what people know it by.
    """

    fs: Any
    path: str
    uri: str

    @classmethod
    def parse(cls, destination: Any) -> Destination:
        """Read a destination: a URL, a local path, or an fsspec / universal-pathlib path object.

        :raises BadDestination: it is none of these, or its file system is not installed.
        """
        fs, path = getattr(destination, "fs", None), getattr(destination, "path", None)
        if fs is not None and isinstance(path, str):
            place = cls(fs, path, str(destination))
            return _local(path) if place.is_local else place
        try:
            text = os.fspath(destination)
        except TypeError:
            raise BadDestination(f"the destination {destination!r} is neither a URL nor a path") from None
        if isinstance(text, bytes):
            text = os.fsdecode(text)
        if "://" not in text:
            return _local(text)
        import fsspec

        try:
            fs, path = fsspec.core.url_to_fs(text)
        except (ValueError, ImportError) as error:
            raise BadDestination(
                f"the destination {printable(text)} cannot be used: {excerpt(str(error))}"
            ) from None
        place = cls(fs, path, text)
        return _local(path, slash=text.endswith("/")) if place.is_local else place

    @property
    def protocols(self) -> frozenset[str]:
        """The names of the file system."""
        protocol = getattr(self.fs, "protocol", ())
        return frozenset((protocol,) if isinstance(protocol, str) else protocol)

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine."""
        return bool(self.protocols & LOCAL)

    @property
    def is_directory_name(self) -> bool:
        """Whether the name ends like a directory's."""
        return self.uri.endswith(("/", os.sep)) or not self.path.strip("/")

    @property
    def directory(self) -> Path:
        """The directory of a local name."""
        return Path(self.path).parent

    def child(self, name: str) -> Destination:
        """Return *name* in this directory."""
        return replace(self, path=f"{self.path.rstrip('/')}/{name}", uri=f"{self.uri.rstrip('/')}/{name}")

    def sibling(self, suffix: str) -> Destination:
        """Return the name that is this one with *suffix* after it."""
        return replace(self, path=self.path + suffix, uri=self.uri + suffix)


def _local(path: str, *, slash: bool = False) -> Destination:
    import fsspec

    full = os.path.abspath(path)
    slash = slash or path.endswith(("/", os.sep))
    return Destination(fsspec.filesystem("file"), full, Path(full).as_uri() + ("/" if slash else ""))
