"""The MP4 files: small, real, playable, different for every prompt and the same for the same prompt."""

from __future__ import annotations

import array
import asyncio
import colorsys
import hashlib
import io
import math
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av

FRAMES_PER_SECOND = 12
SECONDS = 2
"""Length of every file: enough to see it move, little enough to render in a tenth of a second."""
SAMPLE_RATE = 24_000
LONG_SIDE = 640
"""Pixels of the longer side of an ordinary file; see ``frame_size``."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What decides the bytes of a file."""

    prompt: str
    width: int
    height: int


def frame_size(body: Mapping[str, Any], *, upsampled: bool = False) -> tuple[int, int]:
    """The size of a task's picture: the asked shape, on a scale that renders fast.

    The longer side has 640 pixels, 960 when a large size is asked for, twice that when upsampled.
    """
    wide, high = _shape(body)
    size = str(body.get("size", "")).casefold()
    long_side = LONG_SIDE * 3 // 2 if size in ("large", "1080p") else LONG_SIDE
    scale = long_side / max(wide, high) * (2 if upsampled else 1)
    # H.264 in 4:2:0 wants even sides.
    return max(16, round(wide * scale / 2) * 2), max(16, round(high * scale / 2) * 2)


def _shape(body: Mapping[str, Any]) -> tuple[int, int]:
    for name, separator in (("size", "x"), ("aspect_ratio", ":")):
        left, _, right = str(body.get(name, "")).partition(separator)
        if left.isdecimal() and right.isdecimal() and 0 < int(left) <= 8 * int(right) <= 64 * int(left):
            return int(left), int(right)
    return (9, 16) if body.get("orientation") == "portrait" else (16, 9)


def render(clip: Clip) -> bytes:
    """A whole MP4 file: H.264 (MPEG-4 part 2 where libx264 is not built in) and a soft tone in AAC."""
    # The index goes to the front (faststart), as on CDNs; that needs a file that can be read again.
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        path = Path(folder) / "video.mp4"
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(path), "w", format="mp4", options=options) as container:
            _write(container, clip)
        return path.read_bytes()


def render_still(clip: Clip) -> bytes:
    """The first picture of a clip as a JPEG, for thumbnails."""
    out = io.BytesIO()
    with av.open(out, "w", format="image2pipe") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuvj420p"
        stream.codec_context.options = {"strict": "unofficial"}
        frame = next(_pictures(clip, "yuvj420p"))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def _write(container: av.container.OutputContainer, clip: Clip) -> None:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    video = cast(av.VideoStream, container.add_stream(codec, rate=FRAMES_PER_SECOND))
    video.width, video.height, video.pix_fmt = clip.width, clip.height, "yuv420p"
    # One thread, so that the bytes do not depend on the machine.
    video.codec_context.thread_count = 1
    if codec == "libx264":
        video.codec_context.options = {"preset": "ultrafast", "crf": "26"}
    audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
    audio.codec_context.bit_rate = 48_000
    for picture in _pictures(clip, "yuv420p"):
        container.mux(video.encode(picture))
    container.mux(video.encode(None))
    for sound in _sounds(clip):
        container.mux(audio.encode(sound))
    container.mux(audio.encode(None))


def _pictures(clip: Clip, pixel_format: str) -> Iterator[av.VideoFrame]:
    """Slanted waves of light in two colours, and a ball that goes around."""
    digest = hashlib.sha256(clip.prompt.encode()).digest()
    width, height = clip.width, clip.height
    period = max(32, width // (2 + digest[0] % 3))
    wave = bytes(round(118 + 62 * math.sin(2 * math.pi * x / period)) for x in range(period))
    wave *= (2 * width + height) // period + 2
    slant, speed = 1 - digest[1] % 3, 4 + digest[2] % 8
    back, ball = _chroma(digest[3] / 256), _chroma(digest[3] / 256 + 0.5)
    radius = min(width, height) // 6
    for n in range(FRAMES_PER_SECOND * SECONDS):
        angle = 2 * math.pi * (n / (FRAMES_PER_SECOND * SECONDS) + digest[4] / 256)
        at = (
            round(width / 2 + (width / 2 - radius) * 0.8 * math.cos(angle)),
            round(height / 2 + (height / 2 - radius) * 0.8 * math.sin(angle)),
        )
        frame = av.VideoFrame(width, height, pixel_format)
        light = [
            wave[start : start + width]
            for start in ((n * speed + (slant * row) % period) % period for row in range(height))
        ]
        _fill(frame.planes[0], light, at, radius, 225)
        for plane, colour, ball_colour in zip(frame.planes[1:], back, ball, strict=True):
            rows = [bytes([colour]) * (width // 2)] * (height // 2)
            _fill(plane, rows, (at[0] // 2, at[1] // 2), radius // 2, ball_colour)
        frame.pts = n
        yield frame


def _chroma(hue: float) -> tuple[int, int]:
    red, green, blue = (255 * part for part in colorsys.hsv_to_rgb(hue % 1, 0.75, 0.9))
    return (
        round(128 - 0.169 * red - 0.331 * green + 0.5 * blue),
        round(128 + 0.5 * red - 0.419 * green - 0.081 * blue),
    )


def _fill(
    plane: av.video.plane.VideoPlane, rows: list[bytes], at: tuple[int, int], radius: int, value: int
) -> None:
    x, y = at
    rows = list(rows)
    for dy in range(-radius, radius + 1):
        if 0 <= y + dy < len(rows):
            half = math.isqrt(radius * radius - dy * dy)
            row, left = rows[y + dy], max(0, x - half)
            ball = bytes([value]) * (min(len(row), x + half) - left)
            rows[y + dy] = row[:left] + ball + row[left + len(ball) :]
    padding = bytes(plane.line_size - len(rows[0]))
    plane.update(b"".join(row + padding for row in rows))


def _sounds(clip: Clip) -> Iterator[av.AudioFrame]:
    pitch = 220 * 2 ** (hashlib.sha256(clip.prompt.encode()).digest()[5] % 12 / 12)
    step = 2 * math.pi * pitch / SAMPLE_RATE
    for start in range(0, SAMPLE_RATE * SECONDS, 1024):
        count = min(1024, SAMPLE_RATE * SECONDS - start)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=count)
        samples = array.array("f", (0.1 * math.sin(step * (start + i)) for i in range(count))).tobytes()
        frame.planes[0].update(samples + bytes(frame.planes[0].buffer_size - len(samples)))
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        yield frame


class Studio:
    """Renders each file once, off the event loop, and keeps the latest.

    :param keep: how many files stay in memory, about 100 kB each.
    :param workers: how many are rendered at a time; the event loop must stay quick beside them.
    """

    def __init__(self, *, keep: int = 256, workers: int = 2) -> None:
        self._keep = keep
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="sandbox-studio")
        self._lock = threading.Lock()
        self._films: OrderedDict[tuple[Callable[[Clip], bytes], Clip], Future[bytes]] = OrderedDict()

    async def film(self, clip: Clip) -> bytes:
        """The clip as MP4."""
        return await self._made(render, clip)

    async def still(self, clip: Clip) -> bytes:
        """The clip's first picture as JPEG."""
        return await self._made(render_still, clip)

    async def _made(self, how: Callable[[Clip], bytes], clip: Clip) -> bytes:
        with self._lock:
            future = self._films.get((how, clip))
            if future is None or (future.done() and future.exception()):
                future = self._films[how, clip] = self._pool.submit(how, clip)
            self._films.move_to_end((how, clip))
            while len(self._films) > self._keep:
                self._films.popitem(last=False)
        return await asyncio.shield(asyncio.wrap_future(future))
