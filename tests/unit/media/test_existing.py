from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.media import DestinationExists, DownloadOptions, VideoFile
from airflow_video_provider.media.calls import Patience
from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.media.destination import Destination
from airflow_video_provider.media.existing import Existing
from airflow_video_provider.media.filename import Naming
from airflow_video_provider.media.stores import store_for

SHA = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
"""Of the text `content`."""


@pytest.fixture
def looks(tmp_path: Path) -> Any:
    """`looks(if_exists)`: what lies in the directory, as a download of the video `a` looks at it."""

    def make(if_exists: Any, template: str = "{video_id}.{ext}") -> Existing:
        options = DownloadOptions(if_exists=if_exists, check="structure")
        place = Destination.parse(tmp_path)
        naming = Naming(Destination.parse(f"{tmp_path}/"), template, {"video_id": "a"})
        store = store_for(place, Patience(Deadline(), threading.Event()), options)
        return Existing(store, naming, options, video_id="a", temp_dir=str(tmp_path))

    return make


def video(place: Path, **changes: Any) -> VideoFile:
    return VideoFile(**{
        "uri": place.as_uri(), "size": 7, "sha256": SHA, "content_type": "video/mp4", "container": "mp4",
        "video_id": "a", **changes,
    })  # fmt: skip


@pytest.mark.parametrize("if_exists", ["skip", "overwrite", "fail"])
def test_nothing_there_is_nothing_found(if_exists: str, looks: Any, tmp_path: Path) -> None:
    existing = looks(if_exists)
    assert existing.before_asking() is None
    assert existing.after_head("mp4", 7, "h") is None
    assert existing.after_bytes(Destination.parse(tmp_path / "a.mp4"), video(tmp_path / "a.mp4")) is None


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mov"])
def test_fail_raises_for_whatever_is_there_before_anything_is_asked(
    name: str, looks: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("content")
    with pytest.raises(DestinationExists):
        looks("fail").before_asking()


def test_overwrite_never_looks(looks: Any, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("content")
    assert looks("overwrite").before_asking() is None
    assert looks("overwrite").after_head("mp4", 9, "h") is None


def test_what_a_sidecar_says_of_the_very_file_is_enough(looks: Any, tmp_path: Path) -> None:
    place = tmp_path / "a.mp4"
    place.write_text("content")
    Path(f"{place}.json").write_text(json.dumps(video(place).as_dict()))
    found = looks("skip").before_asking()
    assert found.video == video(place)


@pytest.mark.parametrize("changes", [{"size": 8}, {"video_id": "b"}])
def test_what_a_sidecar_says_of_another_file_is_nothing(
    changes: dict[str, Any], looks: Any, tmp_path: Path
) -> None:
    place = tmp_path / "a.mp4"
    place.write_text("content")
    Path(f"{place}.json").write_text(json.dumps(video(place, **changes).as_dict()))
    assert looks("skip").before_asking() is None


@pytest.mark.parametrize("sidecar", ["", "no JSON", "[" * 100_000, "5"])
def test_a_sidecar_that_is_none_says_nothing(sidecar: str, looks: Any, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("content")
    (tmp_path / "a.mp4.json").write_text(sidecar)
    assert looks("skip").before_asking() is None


def test_another_length_is_another_file(looks: Any, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("content")
    with pytest.raises(DestinationExists, match="with 7 bytes, and this video has 9"):
        looks("skip").after_head("mp4", 9, "h")


def test_the_same_bytes_are_the_same_video(looks: Any, tmp_path: Path) -> None:
    place = tmp_path / "film.mp4"
    place.write_text("content")
    assert looks("skip").after_bytes(Destination.parse(place), video(place)).video == video(place)


def test_other_bytes_of_the_same_length_are_another_file(looks: Any, tmp_path: Path) -> None:
    place = tmp_path / "film.mp4"
    place.write_text("CONTENT")
    with pytest.raises(DestinationExists, match="with other bytes"):
        looks("skip").after_bytes(Destination.parse(place), video(place))
