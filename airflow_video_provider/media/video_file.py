"""The facts about a video that lies whole under its final name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self
from urllib.parse import quote, unquote


@dataclass(frozen=True)
class VideoFile:
    """A video that lies whole under its final name.

    :ivar uri: the final name, as a URI.
    :ivar size: bytes.
    :ivar sha256: of the bytes, as hexadecimal text.
    :ivar content_type: what the bytes are, whatever their server called them.
    :ivar container: ``mp4``, ``webm``...
    :ivar duration: playing time in seconds; None, like all that follow, when PyAV is not installed.
    :ivar width: pixels.
    :ivar height: pixels.
    :ivar fps: frames per second.
    :ivar video_codec: ``h264``, ``hevc``, ``av1``...
    :ivar audio_codec: None also when the video is silent.
    :ivar video_id: the id that was given for the name.
    :ivar source_host: the host that the bytes came from.
    :ivar seconds: how long the download took, from the call to the published file.
    :ivar skipped: whether the file was there already and nothing was written.
    """

    uri: str
    size: int
    sha256: str
    content_type: str
    container: str
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    video_id: str | None = None
    source_host: str | None = None
    seconds: float = 0.0
    skipped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON."""
        return asdict(self)

    @classmethod
    def from_facts(cls, uri: str, facts: Mapping[str, Any]) -> Self | None:
        """Read what an object's metadata or a sidecar tells; None when it does not tell enough."""
        known = {field.name for field in fields(cls)}
        told = {name: value for name, value in facts.items() if name in known and name != "uri" and value}
        try:
            return cls(uri=uri, **told)
        except TypeError:
            return None

    def as_metadata(self, upload: str) -> dict[str, str]:
        """The facts as an object store keeps them: a few short ASCII texts.

        :param upload: what tells this upload from another one of the same video.
        """
        facts = {
            name: value
            for name, value in self.as_dict().items()
            if name not in ("uri", "sha256", "video_id", "seconds", "skipped")
        }
        return {
            "videoid": quote(self.video_id or "", errors="surrogatepass"),
            "sha256": self.sha256,
            "facts": json.dumps(facts, separators=(",", ":")),
            "upload": upload,
        }


def facts_in_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The counterpart of :meth:`VideoFile.as_metadata`; None for metadata that is not ours."""
    try:
        found = metadata or {}
        return {
            "video_id": unquote(found["videoid"], errors="surrogatepass"),
            "sha256": found["sha256"],
            **json.loads(found["facts"]),
        }
    except (KeyError, TypeError, ValueError):
        return None
