from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_video_provider.media import BadDestination
from airflow_video_provider.media.filename import MAX_NAME, file_name, safe_part

IDS = st.text(max_size=300) | st.text(alphabet=string.ascii_letters + ":/._-\\ %", max_size=40)


class TestNames:
    def test_a_safe_id_is_kept_as_it_is(self) -> None:
        assert file_name("{video_id}.{ext}", {"video_id": "sora-2_abc.1", "ext": "mp4"}) == "sora-2_abc.1.mp4"

    def test_an_unsafe_id_is_shown_with_a_digest(self) -> None:
        name = file_name("{video_id}.{ext}", {"video_id": "veo3.1-fast:17-trii", "ext": "mp4"})
        assert name.startswith("veo3.1-fast_17-trii-")
        assert name.endswith(".mp4")

    @given(IDS)
    def test_every_name_is_safe_for_every_store(self, video_id: str) -> None:
        name = file_name("{video_id}.{ext}", {"video_id": video_id, "ext": "mp4"})
        assert set(name) <= set(string.ascii_letters + string.digits + "._-")
        assert not name.startswith((".", "-"))
        assert ".." not in (name, name.split(".")[0] + ".")
        assert len(name) <= MAX_NAME

    @given(IDS, IDS)
    def test_distinct_ids_make_distinct_names(self, one: str, other: str) -> None:
        if one != other:
            assert safe_part(one) != safe_part(other)

    @pytest.mark.parametrize(
        "video_id", ["..", ".", "", "../../etc/passwd", "CON", "a/b", "a\\b", "x" * 500, "\x00"]
    )
    def test_hostile_ids_stay_in_the_directory(self, video_id: str) -> None:
        name = file_name("{video_id}.{ext}", {"video_id": video_id, "ext": "mp4"})
        assert "/" not in name
        assert "\\" not in name
        assert name not in (".", "..")

    @pytest.mark.parametrize(
        ("template", "says"),
        [
            ("{nothing}.mp4", "nothing is known for {nothing}"),
            ("a/{video_id}", "separator"),
            ("{video_id", "not a readable template"),
            ("{video_id.__class__}", "only plain fields"),
            ("{video_id!r}", "only plain fields"),
            ("{video_id:>9}", "only plain fields"),
            ("", "no usable name"),
            ("..", "no usable name"),
        ],
    )
    def test_a_wrong_template_is_refused(self, template: str, says: str) -> None:
        with pytest.raises(BadDestination, match=says):
            file_name(template, {"video_id": "a", "ext": "mp4"})
