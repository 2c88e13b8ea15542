from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.media import (
    BadDestination,
    BadURL,
    DestinationExists,
    VideoFile,
    download,
)
from tests.system.videos import h264


class TestWrongArguments:
    """Each is found before anything is fetched: the URL is one that nobody answers."""

    URL = "http://192.0.2.1/x.mp4"

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"destination": "/tmp/"}, BadDestination),
            ({"destination": 5}, BadDestination),
            ({"destination": "nosuch://x/y"}, BadDestination),
            ({"destination": "/tmp/x", "file_name": "{what}"}, BadDestination),
            ({"destination": "/tmp/x", "if_exists": "perhaps"}, BadDestination),
            ({"destination": "/tmp/x", "allowed_hosts": [""]}, BadDestination),
            ({"destination": "/tmp/x", "url": "ftp://h/x"}, BadURL),
        ],
    )
    def test_a_wrong_argument_is_named_before_anything_is_fetched(
        self, arguments: dict[str, object], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            download(**{"url": self.URL, **arguments})  # type: ignore[arg-type]


class TestAnotherWriterWhoWasFaster:
    """Between the last look at the name and the write to it."""

    URL = "data:video/mp4;base64," + base64.b64encode(h264(seconds=1)).decode()

    def landed(
        self, path: Path, others: bytes, monkeypatch: pytest.MonkeyPatch, **policies: Any
    ) -> VideoFile:
        link = os.link

        def too_late(source: Any, target: Any) -> None:
            Path(target).write_bytes(others)
            link(source, target)

        monkeypatch.setattr(os, "link", too_late)
        return download(self.URL, path, progress=lambda moment: None, **policies)

    def test_the_same_video_of_a_faster_writer_is_as_good(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.landed(tmp_path / "v.mp4", h264(seconds=1), monkeypatch).skipped

    def test_another_video_of_a_faster_writer_is_not_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(DestinationExists, match="exists already"):
            self.landed(tmp_path / "v.mp4", b"another", monkeypatch)
        assert (tmp_path / "v.mp4").read_bytes() == b"another"

    def test_a_faster_writer_is_an_error_where_nothing_may_be_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(DestinationExists):
            self.landed(tmp_path / "v.mp4", h264(seconds=1), monkeypatch, if_exists="fail")


def test_a_policy_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="patience"):
        download("http://192.0.2.1/x.mp4", "/tmp/x", patience=3)  # type: ignore[call-arg]


class TestOddFacts:
    URL = "data:video/mp4;base64," + base64.b64encode(h264(seconds=1)).decode()

    def test_an_id_that_is_no_text_is_written_as_one(self, tmp_path: Path) -> None:
        fields: Any = {"video_id": 7}
        landed = download(self.URL, tmp_path, file_name="{video_id}.{ext}", name_fields=fields)
        assert (landed.video_id, landed.uri) == ("7", (tmp_path / "7.mp4").as_uri())

    def test_an_id_that_is_not_known_is_missing_in_the_template(self, tmp_path: Path) -> None:
        fields: Any = {"video_id": None}
        with pytest.raises(BadDestination, match=r"nothing is known for \{video_id\}"):
            download(self.URL, tmp_path, file_name="{video_id}.{ext}", name_fields=fields)

    def test_half_a_character_in_a_fact_keeps_no_video_from_landing(self, tmp_path: Path) -> None:
        """Of an emoji, which JSON writes as two halves, a prompt that was cut keeps one."""
        landed = download(
            self.URL,
            tmp_path,
            file_name="{video_id}.{ext}",
            name_fields={"video_id": "v\ud83d"},
            sidecar={"prompt": "a fox \ud83d"},
        )
        sidecar = json.loads((tmp_path / f"{landed.uri.rpartition('/')[2]}.json").read_bytes())
        assert sidecar["prompt"] == "a fox ?"
