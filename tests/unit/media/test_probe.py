from __future__ import annotations

import contextlib
import io
import logging
import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_video_provider.media import DamagedVideo, MediaError, NotAVideo
from airflow_video_provider.media.options import Check
from airflow_video_provider.media.probe import probe_file
from tests.system.videos import h264

CLIP = h264(seconds=1, faststart=False)
CHECKS: tuple[Check, ...] = ("structure", "packets", "frames")


def sound(container: str) -> bytes:
    """Half a second of silence."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as made:
        stream = made.add_stream("libopus" if container == "ogg" else "aac", rate=48_000)
        for index in range(24):
            frame = av.AudioFrame(format="fltp", layout="stereo", samples=960)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 960 * index, Fraction(1, 48_000)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return out.getvalue()


def with_sound() -> bytes:
    """Ten pictures, and silence to them."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as made:
        pictures, silence = made.add_stream("mpeg4", rate=24), made.add_stream("aac", rate=48_000)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        for index in range(10):
            made.mux(pictures.encode(av.VideoFrame(64, 48, "yuv420p")))
            frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 1024 * index, Fraction(1, 48_000)
            made.mux(silence.encode(frame))
        made.mux(pictures.encode(None))
        made.mux(silence.encode(None))
    return out.getvalue()


def encoded(path: Path, codec: str, **settings: int) -> bytes:
    """Four seconds of grey, in the container that the name says."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for index in range(96):
            frame = av.VideoFrame(160, 120, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([index]) * plane.buffer_size)
            frame.pts, frame.time_base = index, Fraction(1, 24)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return path.read_bytes()


def written(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "file"
    path.write_bytes(content)
    return str(path)


class TestPicturesAndSound:
    """Are no videos, and are called by their names."""

    @pytest.mark.parametrize("check", CHECKS)
    @pytest.mark.parametrize("container", ["mp4", "mov", "ogg"])
    def test_sound_is_named_by_what_is_in_the_container(
        self, container: str, check: Check, tmp_path: Path
    ) -> None:
        with pytest.raises(NotAVideo, match="sound"):
            probe_file(written(tmp_path, sound(container)), "it", check=check)

    def test_a_picture_under_a_videos_brand_is_told_by_its_boxes(self, tmp_path: Path) -> None:
        brands = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 0, b"mif1")
        picture = brands + struct.pack(">I4s", 16, b"meta") + bytes(8)
        with pytest.raises(NotAVideo, match="still picture"):
            probe_file(written(tmp_path, picture), "it")


class TestADamagedIndex:
    """Whatever is in it, PyAV's own exceptions and None in place of a codec do not come through."""

    @pytest.mark.parametrize("check", CHECKS)
    @given(data=st.data())
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_is_an_error_of_ours_or_no_matter(
        self, check: Check, tmp_path: Path, data: st.DataObject
    ) -> None:
        video = bytearray(CLIP)
        begin = video.index(b"moov")
        for _ in range(data.draw(st.integers(1, 3))):
            video[data.draw(st.integers(begin, len(video) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(MediaError):
            probe_file(written(tmp_path, bytes(video)), "it", check=check)

    @pytest.mark.parametrize("check", ["packets", "frames"])
    def test_that_names_no_codec_is_damage(self, check: Check, tmp_path: Path) -> None:
        nameless = CLIP.replace(b"stsd", b"free")
        with pytest.raises(DamagedVideo, match=r"codec that this FFmpeg does not know.*check='structure'"):
            probe_file(written(tmp_path, nameless), "it", check=check)
        assert probe_file(written(tmp_path, nameless), "it", check="structure").kind.container == "mp4"


class TestASoundWhoseCodecIsNotKnown:
    @pytest.mark.parametrize("check", ["packets", "frames"])
    def test_is_no_reason_to_refuse_the_video(self, check: Check, tmp_path: Path) -> None:
        film = with_sound()
        assert probe_file(written(tmp_path, film), "it", check=check).audio_codec == "aac"
        of_the_sound = film.rindex(b"stsd")
        strange = film[:of_the_sound] + b"free" + film[of_the_sound + 4 :]
        facts = probe_file(written(tmp_path, strange), "it", check=check)
        assert (facts.video_codec, facts.audio_codec) == ("mpeg4", None)


class TestBytesAfterTheLastBox:
    @pytest.mark.parametrize("check", CHECKS)
    @pytest.mark.parametrize("tail", [b"\n", b"\r\n", bytes(1), bytes(7), bytes(16), bytes(4096)])
    def test_zeros_and_line_ends_after_the_last_box_are_a_warning(
        self, tail: bytes, check: Check, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = written(tmp_path, h264(seconds=1) + tail)
        with caplog.at_level(logging.WARNING):
            facts = probe_file(path, "it", check=check)
        assert facts.kind.container == "mp4"
        assert f"{len(tail)} bytes of nothing" in caplog.text

    @pytest.mark.parametrize("tail", [b"junk", b"\x00\x00\x01\x00mo", bytes(100_000)])
    def test_other_bytes_after_the_last_box_are_damage(self, tail: bytes, tmp_path: Path) -> None:
        with pytest.raises(DamagedVideo):
            probe_file(written(tmp_path, h264(seconds=1) + tail), "it")

    def test_zeros_do_not_excuse_a_file_without_its_index(self, tmp_path: Path) -> None:
        cut = h264(seconds=1, faststart=False)
        cut = cut[: cut.rindex(b"moov") - 4]
        with pytest.raises(DamagedVideo):
            probe_file(written(tmp_path, cut + bytes(100)), "it")


class TestWhatTheIndexNames:
    def test_a_video_that_an_edit_list_trims_is_whole(self, tmp_path: Path) -> None:
        """As phones and cutting programs do it: the frames are there, and a list says which of them play."""
        clip = encoded(tmp_path / "clip.mp4", "libx264", gop_size=12)
        edit = clip.index(b"elst") + 12
        length, begin, rate = struct.unpack(">Iii", clip[edit : edit + 12])
        later = begin + 2 * int.from_bytes(clip[(mdhd := clip.index(b"mdhd")) + 16 : mdhd + 20])
        trimmed = clip[:edit] + struct.pack(">Iii", length // 2, later, rate) + clip[edit + 12 :]
        facts = probe_file(written(tmp_path, trimmed), "it")
        assert facts.duration == pytest.approx(2.0)

    def test_packets_that_are_missing_are_damage(self, tmp_path: Path) -> None:
        clip = h264(seconds=1)
        counts = clip.index(b"stsc") + 12  # the samples of the first chunk
        first = struct.unpack(">I", clip[counts + 4 : counts + 8])[0]
        short = clip[: counts + 4] + struct.pack(">I", first - 1) + clip[counts + 8 :]
        with pytest.raises(DamagedVideo):
            probe_file(written(tmp_path, short), "it")

    def test_the_number_in_front_of_an_avi_is_no_index(self, tmp_path: Path) -> None:
        """It is a length, and counts frames that are not there."""
        clip = encoded(tmp_path / "clip.avi", "mpeg4")
        header = clip.index(b"strh") + 8 + 32
        frames = int.from_bytes(clip[header : header + 4], "little")
        longer = clip[:header] + (frames + 1).to_bytes(4, "little") + clip[header + 4 :]
        assert probe_file(written(tmp_path, longer), "it").kind.container == "avi"
