from __future__ import annotations

from airflow_video_provider.media import VideoFile
from airflow_video_provider.media.video_file import facts_in_metadata

VIDEO = VideoFile("s3://b/v.mp4", 7, "ab" * 32, "video/mp4", "mp4", duration=1.5, video_id="veo:1 ä")


def test_metadata_is_ascii_and_gives_the_video_back() -> None:
    metadata = VIDEO.as_metadata(upload="token")
    assert all(value.isascii() for value in metadata.values())
    facts = facts_in_metadata(metadata)
    assert facts is not None
    assert VideoFile.from_facts(VIDEO.uri, facts) == VIDEO


def test_metadata_of_others_says_nothing() -> None:
    for metadata in (None, {}, {"videoid": "a"}, {"videoid": "a", "sha256": "b", "facts": "{"}):
        assert facts_in_metadata(metadata) is None


def test_too_few_facts_make_no_video() -> None:
    assert VideoFile.from_facts("x", {"video_id": "a", "size": 7}) is None
