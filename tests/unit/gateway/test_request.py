"""What is asked for is checked before anything is paid, and said no to in words that help."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from airflow_video_provider.gateway import InvalidRequestError, ReferenceFile, VideoRequest
from airflow_video_provider.gateway.request import request_from

NEEDED = {"prompt": "a cat", "model": "veo3.1-fast"}


def made(**knobs: Any) -> VideoRequest:
    return request_from(**{**NEEDED, **knobs})


def given(request: VideoRequest) -> dict[str, Any]:
    """The knobs that are set beside the two that must be."""
    return request.model_dump(exclude=set(NEEDED), exclude_defaults=True)


class TestTemplatedText:
    @pytest.mark.parametrize(
        ("knob", "text", "value"),
        [
            ("seconds", "10", 10),
            ("seconds", " 10 ", 10),
            ("duration", "10", 10),
            ("enhance_prompt", "True", True),
            ("enhance_prompt", "false", False),
            ("enable_upsample", "1", True),
            ("watermark", "False", False),
            ("private", "true", True),
            ("aspect_ratio", " 16:9 ", "16:9"),
            ("size", " 720P ", "720P"),
            ("orientation", "portrait", "portrait"),
            ("images", "https://cdn.example/a.png", ("https://cdn.example/a.png",)),
            ("images", ["https://cdn.example/a.png"], ("https://cdn.example/a.png",)),
        ],
    )
    def test_is_read_as_the_value_it_stands_for(self, knob: str, text: object, value: object) -> None:
        assert given(made(**{knob: text})) == {knob.replace("duration", "seconds"): value}

    @pytest.mark.parametrize("nothing", ["", "  ", "None", None])
    @pytest.mark.parametrize(
        "knob",
        [
            "seconds",
            "duration",
            "enhance_prompt",
            "enable_upsample",
            "watermark",
            "private",
            "aspect_ratio",
            "size",
            "orientation",
            "images",
            "input_reference",
        ],
    )
    def test_that_renders_to_nothing_means_not_given(self, knob: str, nothing: object) -> None:
        assert given(made(**{knob: nothing})) == {}

    def test_keeps_the_words_of_a_prompt(self) -> None:
        assert made(prompt="  一只猫 [slow]\n in the rain ").prompt == "一只猫 [slow]\n in the rain"


class TestRefusals:
    @pytest.mark.parametrize(
        ("knobs", "words"),
        [
            ({"prompt": ""}, ["prompt", "empty"]),
            ({"prompt": " \n"}, ["prompt", "empty"]),
            ({"prompt": None}, ["prompt", "empty"]),
            ({"model": ""}, ["model", "empty"]),
            ({"prompt": 7}, ["prompt", "text"]),
            ({"prompt": "\ud800"}, ["prompt"]),
            ({"seconds": 0}, ["seconds", "greater than 0"]),
            ({"seconds": -5}, ["seconds", "greater than 0"]),
            ({"seconds": 3601}, ["seconds", "3600"]),
            ({"seconds": "long"}, ["seconds", "whole number"]),
            ({"seconds": 2.5}, ["seconds", "whole number"]),
            ({"aspect_ratio": "wide"}, ["aspect_ratio", "16:9"]),
            ({"aspect_ratio": "0:9"}, ["aspect_ratio", "16:9"]),
            ({"orientation": "upright"}, ["orientation", "'portrait'", "'landscape'"]),
            ({"enhance_prompt": "maybe"}, ["enhance_prompt", "true or false"]),
            ({"images": [""]}, ["images", "empty"]),
            ({"images": 5}, ["images", "must be a text, or a list of texts"]),
            ({"metadata": "text"}, ["metadata", "dictionary"]),
            ({"extra_body": "text"}, ["extra_body", "dictionary"]),
            ({"extra_body": {"x": object()}}, ["extra_body", "JSON"]),
            ({"extra_body": {"x": float("nan")}}, ["extra_body", "JSON"]),
            ({"extra_body": {"x": "\ud800"}}, ["extra_body", "JSON"]),
            ({"metadata": {"x": {1, 2}}}, ["metadata", "JSON"]),
            ({"resolution": "4k"}, ["resolution", "extra_body"]),
        ],
    )
    def test_name_the_field_and_what_it_may_be(self, knobs: dict[str, Any], words: list[str]) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            made(**knobs)
        for word in [*words, "nothing was paid"]:
            assert word in str(refused.value)
        assert not refused.value.retryable
        assert not refused.value.maybe_accepted

    def test_are_all_told_at_once(self) -> None:
        with pytest.raises(InvalidRequestError, match=r"orientation:.*prompt:.*seconds:"):
            request_from(model="m", prompt="", seconds=0, orientation="x")

    def test_do_not_repeat_what_was_given(self) -> None:
        """A reference may be a signed URL, a prompt may be somebody's secret."""
        with pytest.raises(InvalidRequestError) as refused:
            made(orientation="SECRET", extra_body={"token": b"SECRET"})
        assert "SECRET" not in str(refused.value)
        with pytest.raises(ValidationError) as invalid:
            VideoRequest(**NEEDED, orientation="SECRET")  # type: ignore[arg-type]
        assert "SECRET" not in str(invalid.value)

    def test_both_names_of_the_length_are_one_too_many(self) -> None:
        with pytest.raises(InvalidRequestError, match="duration"):
            made(seconds=5, duration=10)


class TestReferenceFile:
    def test_hides_its_bytes(self) -> None:
        file = ReferenceFile("cat.png", b"SECRET BYTES", "image/png")
        assert repr(file) == "ReferenceFile('cat.png', 12 bytes, 'image/png')"
        assert "SECRET" not in repr(made(input_reference=file))

    def test_is_kept_as_it_is(self) -> None:
        file = ReferenceFile("cat.png", b"\x89PNG", "image/png")
        assert made(input_reference=file).input_reference is file


def test_a_request_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        made().prompt = "a dog"  # type: ignore[misc]


def test_extra_fields_are_passed_through_untouched() -> None:
    extra = {"seed": "007", "deep": {"list": [1, None, True, "None", ""]}, "空": ""}
    assert made(extra_body=extra).extra_body == extra
