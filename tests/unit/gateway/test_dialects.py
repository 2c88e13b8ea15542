"""How each dialect is asked: bodies as the contract spells them, refusals by name, ids in one piece."""

from __future__ import annotations

import base64
import copy
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_video_provider.gateway import InvalidRequestError, ReferenceFile
from airflow_video_provider.gateway.dialects import (
    DIALECTS,
    WireRequest,
    content_request,
    create_request,
    query_request,
)
from airflow_video_provider.gateway.request import request_from

#: A machine under load is no fault of the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PICTURE = "https://cdn.example/a.png"
FILE = ReferenceFile("cat.png", b"\x89PNG\r\n", "image/png")


def create(dialect: str, **knobs: Any) -> WireRequest:
    return create_request(DIALECTS[dialect], request_from(**{"model": "m", "prompt": "a cat", **knobs}))


def body_of(dialect: str, **knobs: Any) -> dict[str, Any]:
    body = create(dialect, **knobs).json
    assert body is not None
    return body


def exactly(value: object) -> str:
    """As JSON tells it: 10 is not "10", and True is not 1."""
    return repr(value)


class TestRoutes:
    @pytest.mark.parametrize(
        ("dialect", "create_path", "query_path"),
        [
            ("unified", "/v1/video/create", "/v1/video/query?id=task_1"),
            ("openai", "/v1/videos", "/v1/videos/task_1"),
            ("newapi", "/v1/video/generations", "/v1/video/generations/task_1"),
        ],
    )
    def test_are_those_of_the_dialect(self, dialect: str, create_path: str, query_path: str) -> None:
        assert (create(dialect).method, create(dialect).path) == ("POST", create_path)
        query = query_request(DIALECTS[dialect], "task_1")
        assert query == WireRequest("GET", query_path)
        assert content_request(DIALECTS[dialect], "task_1") == WireRequest("GET", "/v1/videos/task_1/content")

    def test_there_are_three(self) -> None:
        assert list(DIALECTS) == ["unified", "openai", "newapi"]


class TestCreateBody:
    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_holds_only_what_is_given(self, dialect: str) -> None:
        assert body_of(dialect) == {"model": "m", "prompt": "a cat"}

    @pytest.mark.parametrize(
        ("dialect", "knobs", "body"),
        [
            (
                "unified",
                {
                    "model": "veo3.1-fast",
                    "images": [PICTURE],
                    "aspect_ratio": "9:16",
                    "enhance_prompt": True,
                    "enable_upsample": False,
                },
                {
                    "images": [PICTURE],
                    "aspect_ratio": "9:16",
                    "enhance_prompt": True,
                    "enable_upsample": False,
                },
            ),
            (
                "unified",
                {
                    "model": "sora-2",
                    "images": [PICTURE],
                    "orientation": "landscape",
                    "size": "small",
                    "seconds": "15",
                    "watermark": False,
                    "private": True,
                },
                {
                    "images": [PICTURE],
                    "orientation": "landscape",
                    "size": "small",
                    "duration": 15,
                    "watermark": False,
                    "private": True,
                },
            ),
            (
                "unified",
                {
                    "model": "grok-video-3",
                    "aspect_ratio": "2:3",
                    "size": "720P",
                    "extra_body": {"seconds": "6"},
                },
                {"aspect_ratio": "2:3", "size": "720P", "seconds": "6"},
            ),
            (
                "openai",
                {"model": "sora-2", "seconds": 8, "size": "1280x720", "images": [PICTURE]},
                {"seconds": "8", "size": "1280x720", "input_reference": PICTURE},
            ),
            (
                "openai",
                {"model": "sora-2", "input_reference": PICTURE},
                {"input_reference": PICTURE},
            ),
            (
                "newapi",
                {
                    "model": "kling",
                    "images": [PICTURE],
                    "size": "1280x720",
                    "duration": "5",
                    "metadata": {"seed": 7},
                },
                {"images": [PICTURE], "size": "1280x720", "duration": 5, "metadata": {"seed": 7}},
            ),
        ],
    )
    def test_is_spelt_as_the_documents_spell_it(
        self, dialect: str, knobs: dict[str, Any], body: dict[str, Any]
    ) -> None:
        expected = {"model": knobs["model"], "prompt": "a cat", **body}
        told = body_of(dialect, **knobs)
        assert {name: exactly(value) for name, value in told.items()} == {
            name: exactly(value) for name, value in expected.items()
        }

    @pytest.mark.parametrize(
        ("dialect", "name", "value"),
        [("unified", "duration", 10), ("openai", "seconds", "10"), ("newapi", "duration", 10)],
    )
    def test_spells_the_length_as_the_dialect_does(self, dialect: str, name: str, value: object) -> None:
        told = body_of(dialect, seconds=10)
        assert exactly(told.pop(name)) == exactly(value)
        assert not {"seconds", "duration"} & told.keys()

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_passes_extra_fields_through_untouched(self, dialect: str) -> None:
        extra = {"seed": "007", "deep": {"list": [1, None, True]}, "off": False, "空": ""}
        before = copy.deepcopy(extra)
        told = body_of(dialect, extra_body=extra)
        assert {name: told[name] for name in extra} == before == extra

    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.parametrize("name", ["prompt", "model", "size"])
    def test_an_extra_field_that_contradicts_a_knob_is_refused(self, dialect: str, name: str) -> None:
        with pytest.raises(InvalidRequestError, match=rf"extra_body\.{name}"):
            create(dialect, size="x", extra_body={name: "another"})

    def test_an_extra_field_that_contradicts_a_translated_knob_is_refused(self) -> None:
        with pytest.raises(InvalidRequestError, match=r"extra_body\.duration"):
            create("unified", seconds=10, extra_body={"duration": 15})

    def test_an_extra_field_that_says_the_same_is_no_contradiction(self) -> None:
        assert body_of("unified", seconds=10, extra_body={"duration": 10})["duration"] == 10


CANNOT = {
    "unified": ["metadata"],
    "openai": [
        "aspect_ratio",
        "orientation",
        "enhance_prompt",
        "enable_upsample",
        "watermark",
        "private",
        "metadata",
    ],
    "newapi": ["aspect_ratio", "orientation", "enhance_prompt", "enable_upsample", "watermark", "private"],
}
SAMPLE = {
    "aspect_ratio": "16:9",
    "orientation": "portrait",
    "enhance_prompt": True,
    "enable_upsample": False,
    "watermark": False,
    "private": True,
    "metadata": {"a": 1},
}


class TestRefusals:
    @pytest.mark.parametrize(
        ("dialect", "knob"), [(d, knob) for d, knobs in CANNOT.items() for knob in knobs]
    )
    def test_what_a_dialect_cannot_express_is_refused_by_name(self, dialect: str, knob: str) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            create(dialect, **{knob: SAMPLE[knob]})
        message = str(refused.value)
        assert message.startswith(f"{knob}: the {dialect} dialect")
        for can in DIALECTS[dialect].spelling:
            assert can in message

    @pytest.mark.parametrize("knob", ["aspect_ratio", "orientation"])
    def test_what_says_the_same_is_named(self, knob: str) -> None:
        with pytest.raises(InvalidRequestError, match="use size"):
            create("openai", **{knob: SAMPLE[knob]})

    @pytest.mark.parametrize(
        ("model", "knobs", "words"),
        [
            ("veo3.1-fast", {"aspect_ratio": "1:1"}, ["aspect_ratio", "16:9, 9:16"]),
            ("VEO3", {"aspect_ratio": "4:3"}, ["aspect_ratio", "16:9, 9:16"]),
            ("sora-2", {"size": "huge"}, ["size", "large, small"]),
            ("sora-2-pro", {"seconds": 12}, ["seconds", "10, 15, 25", "'duration'"]),
            ("grok-video-3", {"aspect_ratio": "16:9"}, ["aspect_ratio", "1:1, 2:3, 3:2"]),
            ("grok-video-3", {"size": "4K"}, ["size", "1080P, 720P"]),
            ("veo3-pro-frames", {"images": [PICTURE] * 2}, ["images", "at most 1", "2 are given"]),
            ("veo3-fast-frames", {"images": [PICTURE] * 3}, ["images", "at most 2"]),
            ("veo2-fast-components", {"images": [PICTURE] * 4}, ["images", "at most 3"]),
            ("veo3-pro-frames", {"images": [PICTURE], "input_reference": PICTURE}, ["images", "at most 1"]),
        ],
    )
    def test_a_value_that_a_unified_model_does_not_take_names_those_it_takes(
        self, model: str, knobs: dict[str, Any], words: list[str]
    ) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            create("unified", model=model, **knobs)
        for word in [*words, model]:
            assert word in str(refused.value)

    def test_a_gateway_that_takes_it_all_the_same_is_asked_by_extra_body(self) -> None:
        assert body_of("unified", model="sora-2", extra_body={"duration": 12})["duration"] == 12

    @pytest.mark.parametrize("model", ["kling-v2", "a-model-of-tomorrow"])
    def test_an_unknown_model_takes_any_value(self, model: str) -> None:
        told = body_of("unified", model=model, size="4K", seconds=7, aspect_ratio="21:9")
        assert (told["size"], told["duration"], told["aspect_ratio"]) == ("4K", 7, "21:9")

    def test_openai_takes_one_picture(self) -> None:
        with pytest.raises(InvalidRequestError, match="images: the openai dialect takes one"):
            create("openai", images=[PICTURE, PICTURE])


class TestReferenceFile:
    def test_goes_as_multipart_where_the_dialect_has_it(self) -> None:
        wire = create(
            "openai", seconds=8, size="1280x720", input_reference=FILE, extra_body={"n": 1, "x": True}
        )
        assert wire.json is None
        assert wire.file is FILE
        assert wire.form == {
            "model": "m",
            "prompt": "a cat",
            "seconds": "8",
            "size": "1280x720",
            "n": "1",
            "x": "true",
        }
        assert "PNG" not in repr(wire)

    @pytest.mark.parametrize("dialect", ["unified", "newapi"])
    def test_goes_as_base64_where_it_has_not(self, dialect: str) -> None:
        (picture,) = body_of(dialect, input_reference=FILE)["images"]
        head, _, tail = picture.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(tail) == FILE.content

    @pytest.mark.parametrize("dialect", ["unified", "newapi"])
    def test_by_url_goes_among_the_images_where_there_is_no_field_for_it(self, dialect: str) -> None:
        told = body_of(dialect, images=["https://cdn.example/first.png"], input_reference=PICTURE)
        assert told["images"] == ["https://cdn.example/first.png", PICTURE]
        assert "input_reference" not in told


class TestIds:
    @pytest.mark.parametrize(
        ("video_id", "segment"),
        [
            ("veo3.1-fast:1770350082-trii1OXZc3", "veo3.1-fast%3A1770350082-trii1OXZc3"),
            ("a/b", "a%2Fb"),
            ("../../admin", "..%2F..%2Fadmin"),
            ("a%2Fb", "a%252Fb"),
            ("a?b#c&d=e+f", "a%3Fb%23c%26d%3De%2Bf"),
            ("任务", "%E4%BB%BB%E5%8A%A1"),
            ("{id}", "%7Bid%7D"),
        ],
    )
    def test_are_encoded_as_one_segment(self, video_id: str, segment: str) -> None:
        assert query_request(DIALECTS["unified"], video_id).path == f"/v1/video/query?id={segment}"
        assert query_request(DIALECTS["openai"], video_id).path == f"/v1/videos/{segment}"
        assert query_request(DIALECTS["newapi"], video_id).path == f"/v1/video/generations/{segment}"
        assert content_request(DIALECTS["openai"], video_id).path == f"/v1/videos/{segment}/content"

    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.parametrize(
        "video_id",
        ["", " ", "a b", "a\nb", "a\r\nHost: evil", "a\tb", "\x00", "a\x7f", ".", "..", "x" * 1025, None, 7,
         b"a", "half\ud800"],
    )  # fmt: skip
    def test_that_cannot_be_one_are_refused_by_name(self, dialect: str, video_id: Any) -> None:
        for ask in (query_request, content_request):
            with pytest.raises(InvalidRequestError, match="video_id"):
                ask(DIALECTS[dialect], video_id)

    @settings(PATIENT)
    @given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=60))
    def test_arrive_as_they_were(self, video_id: str) -> None:
        if video_id in {".", ".."}:
            return
        path = query_request(DIALECTS["openai"], video_id).path
        assert path.count("/") == 3
        assert unquote(path.rpartition("/")[2]) == video_id
        query = urlsplit(query_request(DIALECTS["unified"], video_id).path).query
        assert parse_qs(query, keep_blank_values=True, strict_parsing=True) == {"id": [video_id]}
