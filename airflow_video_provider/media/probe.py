"""Is it a whole video, and what is in it?

Three checks, each finding what the one before cannot: the first bytes (:mod:`.signature`: an error page), the
boxes of an MP4 file (a file cut short, found without any library), and PyAV's reading of every packet
(a file whose insides were damaged).
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_video_provider.media.errors import DamagedVideo, NotAVideo
from airflow_video_provider.media.options import MIB, Check
from airflow_video_provider.media.signature import MP4_FAMILY, Kind, describe, sniff

if TYPE_CHECKING:
    from av.container import InputContainer


log = logging.getLogger(__name__)

_HANDLER = re.compile(rb"hdlr.{8}(vide|soun)", re.S)
MAX_INDEX = 64 * MIB
MAX_TAIL = 64 * 1024
"""Bytes of nothing after the last box that are no reason to refuse a file which players play."""


@dataclass(frozen=True)
class Facts:
    """What is in a video file. ``duration`` in seconds, ``width`` and ``height`` in pixels."""

    kind: Kind
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    video_codec: str | None = None
    audio_codec: str | None = None


def probe_file(path: str, shown: str, *, check: Check = "packets") -> Facts:
    """Check that the file at *path* is a whole video and read what is in it.

    :param path: a local file.
    :param shown: what messages call it; usually the printable URL it came from.
    :param check: ``structure`` reads the first bytes and the boxes of an MP4; ``packets`` (default) also
        reads every packet with PyAV and counts them against the file's index; ``frames`` also decodes every
        frame, which finds a single damaged byte but takes about as long as an eighth of the playing time.
        Without PyAV every check is ``structure``.
    :raises NotAVideo: the bytes are something else.
    :raises DamagedVideo: it is truncated or corrupt.
    """
    with open(path, "rb") as file:
        head = file.read(512)
        kind = sniff(head)
        if kind is None:
            raise NotAVideo(f"{shown} is not a video but {describe(head)}")
        if kind.container in MP4_FAMILY:
            _walk_boxes(file, os.path.getsize(path), shown)
    if check == "structure":
        return Facts(kind)
    try:
        import av
    except ImportError:
        return Facts(kind)
    try:
        # Before PyAV 19, metadata that is not UTF-8 was an error unless one asked otherwise.
        tolerant: Any = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        with av.open(path, mode="r", **tolerant) as container:
            return _read(container, kind, shown, decode=check == "frames")
    except av.FFmpegError as error:
        raise DamagedVideo(
            f"{shown} begins like {kind.container} but cannot be read to its end: {error.strerror}"
        ) from None


def _walk_boxes(file: BinaryIO, size: int, shown: str) -> None:
    """Follow the top-level boxes of an MP4 file: they must end where the file ends."""
    position, seen = 0, set[bytes]()
    while position < size:
        file.seek(position)
        header = file.read(16)
        if _is_idle_tail(file, position, size, seen):
            left = size - position
            log.warning("%s: %d bytes of nothing (zeros, line ends) follow its last box", shown, left)
            break
        length, name = int.from_bytes(header[:4]), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16])
        elif length == 0:
            length = size - position
        if len(header) < 8 or length < 8 or not all(32 <= c < 127 or c == 0xA9 for c in name):
            raise DamagedVideo(
                f"{shown} is a damaged MP4: no box begins at byte {position}, where one should"
            )
        if position + length > size:
            raise DamagedVideo(
                f"{shown} is a truncated MP4: its {name.decode('latin-1')} box needs {position + length} "
                f"bytes, the file has {size}"
            )
        if name == b"moov" and length <= MAX_INDEX:
            file.seek(position)
            handlers = set(_HANDLER.findall(file.read(length)))
            if handlers == {b"soun"}:
                raise NotAVideo(f"{shown} is not a video but sound without a video, in an MP4 file")
        seen.add(name)
        position += length
    if b"meta" in seen and not seen & {b"moov", b"moof"}:
        raise NotAVideo(f"{shown} is not a video but a still picture (a HEIF image)")
    if not seen & {b"moov", b"moof"}:
        raise DamagedVideo(f"{shown} is a truncated MP4: it has no index (moov box)")


def _is_idle_tail(file: BinaryIO, position: int, size: int, seen: set[bytes]) -> bool:
    """Whether nothing but zeros and white space follows boxes that are complete."""
    if not {b"moov", b"mdat"} <= seen or size - position > MAX_TAIL:
        return False
    file.seek(position)
    return not file.read().strip(b"\x00 \t\r\n")


def _read(container: InputContainer, kind: Kind, shown: str, *, decode: bool) -> Facts:
    if not container.streams.video:
        raise NotAVideo(f"{shown} is not a video but {kind.container} without a video stream (sound only)")
    video = container.streams.video[0]
    if video.codec_context is None:
        raise DamagedVideo(
            f"{shown} is damaged, or in a codec that this FFmpeg does not know: its video stream cannot be "
            "read. check='structure' takes it as it is"
        )
    walker = _nal_walker(video)
    # What an AVI names in front is a length: it counts frames that repeat, too, of which nothing is there.
    is_index = kind.container in MP4_FAMILY
    expected = {stream.index: stream.frames for stream in container.streams if stream.frames and is_index}
    counted: dict[int, int] = dict.fromkeys(expected, 0)
    last_end = 0.0
    both = (*container.streams.video, *container.streams.audio)
    decoded = [s for s in both if decode and s.codec_context]  # FFmpeg may not know the codec of a sound
    if decode:
        video.codec_context.options = {"err_detect": "explode"}
        video.thread_type = "AUTO"
    for packet in container.demux():
        if packet.size == 0:
            if packet.stream in decoded:
                packet.decode()
            continue
        index = packet.stream.index
        counted[index] = counted.get(index, 0) + 1
        if packet.is_corrupt:
            raise DamagedVideo(
                f"{shown} is damaged: packet {counted[index]} of its stream {index} is cut short"
            )
        if index == video.index:
            if walker is not None and not walker(packet):
                raise DamagedVideo(
                    f"{shown} is damaged: the frame in packet {counted[index]} does not hold together"
                )
            if packet.pts is not None and packet.time_base is not None:
                last_end = max(last_end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream in decoded:
            for frame in packet.decode():
                if getattr(frame, "is_corrupt", False):
                    raise DamagedVideo(f"{shown} is damaged: a frame near {last_end:.2f} s does not decode")
    if not counted.get(video.index):
        raise DamagedVideo(f"{shown} has a video stream without a single frame")
    if any(counted[index] < number for index, number in expected.items()):
        counted = _count_all(container.name)
    for index, number in expected.items():
        if counted[index] < number:
            raise DamagedVideo(
                f"{shown} is damaged: its index names {number} packets in stream {index}, "
                f"{counted[index]} are there"
            )
    return _facts(container, kind, last_end)


def _facts(container: InputContainer, kind: Kind, last_end: float) -> Facts:
    video, sound = container.streams.video[0], next(iter(container.streams.audio), None)
    rate = video.average_rate or video.base_rate
    duration = container.duration / 1_000_000 if container.duration else last_end or None
    return Facts(
        kind,
        duration=round(duration, 3) if duration else None,
        width=video.codec_context.width or None,
        height=video.codec_context.height or None,
        fps=round(float(rate), 3) if rate else None,
        video_codec=video.codec_context.name,
        audio_codec=sound.codec_context.name if sound is not None and sound.codec_context else None,
    )


def _count_all(path: str) -> Counter[int]:
    """Count the packets of each stream, also those that an edit list leaves out: a video that was trimmed."""
    import av

    with av.open(path, mode="r", options={"ignore_editlist": "1"}) as container:
        packets = (packet for packet in container.demux() if packet.size and not packet.is_corrupt)
        return Counter(packet.stream.index for packet in packets)


def _nal_walker(video: Any) -> Any:
    """Return a function that tells whether the lengths inside an H.264 or HEVC packet add up.

    In MP4 and Matroska each frame is a row of units, each led by its length. Damage almost always breaks the
    row, and following it costs nothing beside reading the file; decoding would take a thousand times as long.
    """
    config = bytes(video.codec_context.extradata or b"")
    name = video.codec_context.name
    least, place = {"h264": (7, 4), "hevc": (23, 21)}.get(name, (0, 0))
    if not least or len(config) < least or config[0] != 1:
        return None
    width = config[place] % 4 + 1

    def adds_up(packet: Any) -> bool:
        data = memoryview(packet)
        position, size = 0, len(data)
        while position < size:
            length = int.from_bytes(data[position : position + width])
            position += width + length
            # The first bit of a unit is always 0, and there is no unit without a byte.
            if length == 0 or position > size or data[position - length] & 0x80:
                return False
        return True

    return adds_up
