"""Real H.264 files, made in memory."""

from __future__ import annotations

import random
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import av


@cache
def h264(seed: int = 1, seconds: int = 2, faststart: bool = True, noise: bool = True) -> bytes:
    """Return an MP4 of 160x120 pixels and 24 frames a second; other seeds make other bytes."""
    directory = tempfile.TemporaryDirectory()  # an index in front is written in a second pass, over a file
    path = Path(directory.name, "clip.mp4")
    rng = random.Random(seed)  # noqa: S311
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "18"}
        for index in range(24 * seconds):
            frame = av.VideoFrame(160, 120, "yuv420p")
            for number, plane in enumerate(frame.planes):
                size = plane.buffer_size
                value = rng.randrange(256)
                plane.update(rng.randbytes(size) if noise and number == 0 else bytes([value]) * size)
            frame.pts, frame.time_base = index, Fraction(1, 24)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    with directory:
        return path.read_bytes()
