from __future__ import annotations

from pathlib import Path

import pytest

from airflow_video_provider.media import BadDestination
from airflow_video_provider.media.destination import Destination


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_local_path_is_read_however_it_is_written(tmp_path: Path, slash: str) -> None:
    for written in (tmp_path, str(tmp_path) + slash, tmp_path.as_uri() + slash):
        place = Destination.parse(written)
        assert (place.path, place.is_local) == (str(tmp_path), True)
        assert place.is_directory_name is str(written).endswith("/")


def test_children_and_siblings_keep_path_and_uri_together() -> None:
    place = Destination.parse("memory://films/").child("a.mp4")
    assert (place.path, place.uri) == ("/films/a.mp4", "memory://films/a.mp4")
    assert place.sibling(".json").uri == "memory://films/a.mp4.json"
    assert not place.is_local


@pytest.mark.parametrize("destination", [5, None, "nosuch://x/y"])
def test_what_is_no_destination_is_refused(destination: object) -> None:
    with pytest.raises(BadDestination):
        Destination.parse(destination)
