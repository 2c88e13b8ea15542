"""Every reply that the documents show, every place and word of the wire contract, every trap, and rubbish."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_video_provider.gateway import NotFoundError, TaskState, UnreadableReplyError, VideoTask
from airflow_video_provider.gateway.task import read_created_id, says_something_of_a_task

#: A machine under load is no fault of the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DATA = Path(__file__).resolve().parents[2] / "data"
ID = "veo3.1-fast:1770350082-trii1OXZc3"
CDN = "https://cdn.example/v.mp4"


def read(body: object) -> VideoTask:
    return VideoTask.from_reply(body, video_id=ID)


def reading(body: object) -> dict[str, Any]:
    """What was read, without what is None; times as text, further videos only where there are some."""
    told = read(body).model_dump(mode="json", exclude={"raw", "video_id"}, exclude_none=True)
    urls = told.pop("video_urls")
    assert urls[:1] == ([told["video_url"]] if "video_url" in told else [])
    return told | ({"video_urls": urls} if len(urls) > 1 else {})


# -- the documents ------------------------------------------------------------------------------------------


def json_values(text: str) -> Iterator[Any]:
    """Every JSON value that stands in a text."""
    decoder, at = json.JSONDecoder(), 0
    while (at := min((i for i in (text.find("{", at), text.find("[", at)) if i >= 0), default=-1)) >= 0:
        try:
            value, at = decoder.raw_decode(text, at)
            yield value
        except ValueError:
            at += 1


def example_replies(name: str) -> list[dict[str, Any]]:
    """The example replies of a seed: objects, or JSON text in the `data` of a list of named examples."""
    found = []
    text = next((DATA / "seeds").glob(f"{name}_*.txt")).read_text(encoding="utf-8")
    for value in json_values(text):
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and isinstance(each.get("data"), str):
                each = json.loads(each["data"])
            if isinstance(each, dict) and {"id", "status"} <= each.keys():
                found.append(each)
    return found


VEO_DONE = {
    "state": "succeeded",
    "raw_status": "completed",
    "video_url": "https://pro.filesystem.site/cdn/20260206/1b50395bad4c6c7bc22e6ada144951.mp4",
    "model": "veo3.1-fast",
    "enhanced_prompt": (
        "Create a vibrant and whimsical animation that features a joyful scene of colorful animals playing "
        "together in a sunny meadow, surrounded by blooming flowers and butterflies fluttering by."
    ),
    "created_at": "2026-02-06T03:54:42.099000Z",
    "completed_at": "2026-02-06T03:58:48.994000Z",
}
SORA_WAITING = {
    "state": "queued",
    "raw_status": "pending",
    "progress": 93,
    "created_at": "2025-10-06T15:10:26.875729Z",
}
COW_WAITING = {
    "state": "queued",
    "raw_status": "pending",
    "enhanced_prompt": (
        "```\nA surreal and whimsical digital painting of a majestic brown cow with large, feathered wings "
        "soaring gracefully through a vibrant blue sky. The cow has a joyful expression, its tail streaming "
        "behind it as it flies among fluffy white clouds. Below, a patchwork of green farmland stretches "
        "into the distance, with tiny farm buildings and a group of astonished farmers looking up in "
        "amazement. The scene is bathed in warm golden sunlight, creating a dreamlike and magical "
        "atmosphere. Art style inspired by fantasy illustrations with soft brushstrokes and rich, saturated "
        "colors.\n```"
    ),
}
GROK_DONE = {
    "state": "succeeded",
    "raw_status": "completed",
    "video_url": (
        "https://soruxgpt-saas-yimeng.soruxgpt.com/file_download/ca10efbb-ae64-426e-99f0-f365bc3cd941.mp4"
    ),
    "progress": 100,
    "model": "grok-3",
    "thumbnail_url": (
        "https://soruxgpt-saas-yimeng.soruxgpt.com/file_download/f4fd6fe4-8091-4528-be32-335f4fc9af65.jpg"
    ),
    "completed_at": "2025-11-30T17:09:12Z",
}
SORA_DONE = {
    "state": "succeeded",
    "raw_status": "completed",
    "video_url": (
        "https://midjourney-plus.oss-us-west-1.aliyuncs.com/sora/cc4fb429-22a5-4747-a6f9-a6badccf8f42.mp4"
    ),
    "progress": 100,
    "model": "sora-2",
    "created_at": "2025-10-28T03:30:32Z",
    "completed_at": "2025-10-28T03:33:05Z",
}

SEEDS = {
    "000": [VEO_DONE],
    "001": [SORA_WAITING],
    "002": [COW_WAITING, GROK_DONE],
    "003": [SORA_WAITING, SORA_DONE],
    "004": [VEO_DONE, VEO_DONE],
}

WIRE: dict[str, dict[str, Any] | None] = {
    "create_grok_vectorengine": {"state": "running", "raw_status": "processing"},
    "create_sora_jxincm": {"state": "queued", "raw_status": "pending"},
    "create_veo_vectorengine": {"state": "queued", "raw_status": "pending"},
    "error_400_content_not_completed_newapi": None,
    "error_400_task_not_exist_newapi": None,
    "error_401_invalid_token_newapi": None,
    "error_fail_to_fetch_task_newapi": None,
    "generations_get_in_progress_octopusx": {
        "state": "running",
        "raw_status": "IN_PROGRESS",
        "progress": 50,
        "created_at": "2026-04-11T11:48:02Z",
    },
    "generations_get_succeeded_onetoken": {
        "state": "succeeded",
        "raw_status": "succeeded",
        "video_url": "https://onetoken.one/v1/videos/task_MQKsdsosLYRreob4Z4NzTFxZKtSoVRWZ/content",
    },
    "generations_get_success_newapi_5266": {
        "state": "succeeded",
        "raw_status": "SUCCESS",
        "video_url": (
            "https://ark-acg-cn-beijing.tos-cn-beijing.volces.com/doubao-seedance-2-0/"
            "02178451768578500000000000000000000ffffac193b29de8be8.mp4?X-Tos-Algorithm=TOS4-HMAC-SHA256"
            "&X-Tos-Credential=MASKED&X-Tos-Date=20260720T032525Z&X-Tos-Expires=86400"
            "&X-Tos-Signature=MASKED&X-Tos-SignedHeaders=host"
        ),
        "progress": 100,
        "model": "doubao-seedance-2-0",
        "created_at": "2026-07-20T03:21:18Z",
        "completed_at": "2026-07-20T03:26:09Z",
        "usage": {"quota": 5750000},
    },
    "query_generic_pending_aimanyi": COW_WAITING,
    "query_grok_completed_aimanyi": GROK_DONE,
    "query_grok_processing_octopusx": {"state": "running", "raw_status": "processing", "progress": 50},
    "query_sora_pending_gptplus5": SORA_WAITING,
    "query_veo_completed_gptplus5": VEO_DONE,
    "videos_content_json_starrise": {
        "state": "succeeded",
        "raw_status": "completed",
        "video_url": "https://filesystem.site/cdn/20251019/example.mp4",
        "progress": 100,
        "model": "sora-2",
        "created_at": "2026-03-11T09:12:10Z",
    },
    "videos_create_newapi_2860": {
        "state": "queued",
        "raw_status": "queued",
        "progress": 0,
        "model": "sora-2",
        "created_at": "2026-02-05T17:46:39Z",
    },
    "videos_get_completed_aimanyi": SORA_DONE,
    "videos_get_completed_poloapi": {
        "state": "succeeded",
        "raw_status": "completed",
        "video_url": "https://filesystem.site/cdn/20251205/ce929b930f8efce563d22c02104ded.mp4",
        "progress": 100,
        "model": "veo3.1",
        "created_at": "2025-12-05T01:51:21Z",
        "completed_at": "2025-12-05T01:52:59Z",
    },
    "videos_get_failed_moderation_openai": {
        "state": "failed",
        "raw_status": "failed",
        "failure": "Your request was blocked by our moderation system.",
        "failure_code": "moderation_blocked",
        "refusal": "input",
    },
    "videos_get_failed_tuzi": {
        "state": "failed",
        "raw_status": "failed",
        "progress": 0,
        "failure": "内容审核未通过：检测到真人形象",
        "failure_code": "content_policy_violation",
        "refusal": "input",
        "created_at": "2023-12-19T15:53:54.567000Z",
        "completed_at": "2023-12-19T15:57:36.789000Z",
    },
    "videos_get_pending_aimanyi": SORA_WAITING,
    "videos_get_processing_octopusx_veo": {
        "state": "running",
        "raw_status": "processing",
        "progress": 50,
        "model": "veo_3_1-fast",
        "created_at": "2025-01-01T00:00:00Z",
        "expires_at": "2025-01-02T00:00:00Z",
    },
    "videos_get_shell_unknown_newapi": {"state": "running", "raw_status": "unknown"},
    "balance_usage_token_newapi": None,
    "error_404_route_fastapi": None,
    "error_404_route_nest": None,
    "error_404_route_spring": None,
    "error_422_list_fastapi": None,
    "generations_get_error_minimax_base_resp": None,
    "generations_get_failed_kling_newapi": {
        "state": "failed",
        "raw_status": "FAILURE",
        "progress": 100,
        "failure": "Image pixel is invalid",
    },
    "generations_get_failed_kling_riskcontrol": {
        "state": "failed",
        "raw_status": "FAILURE",
        "progress": 100,
        "failure": "Failure to pass the risk control system",
        "refusal": "input",
    },
    "generations_get_failed_minimax_1026": {
        "state": "failed",
        "raw_status": "failed",
        "failure": "video description contains sensitive content",
        "failure_code": "1026",
        "refusal": "input",
    },
    "generations_get_failed_seedance_input": {
        "state": "failed",
        "raw_status": "failed",
        "failure": "The request failed because the input text may contain sensitive information.",
        "failure_code": "InputTextSensitiveContentDetected",
        "refusal": "input",
    },
    "generations_get_running_dashscope": {"state": "running", "raw_status": "RUNNING"},
    "generations_get_running_minimax_task": {"state": "running", "raw_status": "running"},
    "generations_get_succeeded_dashscope": {
        "state": "succeeded",
        "raw_status": "SUCCEEDED",
        "video_url": "https://dashscope-result.example/v/d2.mp4?Expires=1770003600&Signature=s",
        "usage": {"duration": 5, "video_count": 1, "SR": 1080},
    },
    "generations_get_success_result_url_localhost": {
        "state": "succeeded",
        "raw_status": "SUCCESS",
        "progress": 100,
        "video_url": "http://localhost:3000/v1/videos/task_l1/content",
    },
    "query_veo_failed_filter": {
        "state": "failed",
        "raw_status": "failed",
        "failure": "PUBLIC_ERROR_PROMINENT_PEOPLE_FILTER_FAILED",
        "refusal": "input",
        "completed_at": "2026-02-02T02:41:40Z",
    },
    "videos_get_completed_litellm": {
        "state": "succeeded",
        "raw_status": "completed",
        "progress": 100,
        "model": "sora-2",
        "created_at": "2026-02-02T02:40:00Z",
        "completed_at": "2026-02-02T02:41:30Z",
        "expires_at": "2026-02-02T03:40:00Z",
        "usage": {"duration_seconds": 4.0},
    },
    "videos_get_completed_openrouter": {
        "state": "succeeded",
        "raw_status": "completed",
        "video_url": "https://openrouter.example/api/v1/videos/gen-vid-1/content?index=0",
        "usage": {"cost": 0.5},
    },
    "videos_get_done_xai_newapi": {
        "state": "succeeded",
        "raw_status": "done",
        "video_url": "https://vidgen.example/x1.mp4",
        "usage": {"cost_in_usd_ticks": 3000000000},
    },
    "videos_get_failed_policy": {
        "state": "failed",
        "raw_status": "failed",
        "progress": 0,
        "failure": "This request may violate our content policies.",
        "refusal": "input",
    },
    "videos_get_first_xai_newapi": {"state": "running"},
}
#: What says that there is no such task, in a task's shape.
GONE = {"generations_get_unknown_dashscope"}


def wire_example(name: str) -> Any:
    return json.loads((DATA / "wire" / f"{name}.json").read_text(encoding="utf-8"))


class TestEveryReplyThatTheDocumentsShow:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_of_a_seed_reads_in_full(self, seed: str) -> None:
        assert [reading(reply) for reply in example_replies(seed)] == SEEDS[seed]

    def test_of_the_wire_is_in_the_table(self) -> None:
        assert {path.stem for path in (DATA / "wire").iterdir()} == set(WIRE) | GONE

    @pytest.mark.parametrize("name", [name for name, expected in WIRE.items() if expected])
    def test_of_the_wire_reads_in_full(self, name: str) -> None:
        assert reading(wire_example(name)) == WIRE[name]

    @pytest.mark.parametrize("name", [name for name, expected in WIRE.items() if expected is None])
    def test_an_error_body_is_no_task(self, name: str) -> None:
        assert not says_something_of_a_task(wire_example(name))
        with pytest.raises(UnreadableReplyError, match=ID):
            read(wire_example(name))

    @pytest.mark.parametrize("name", sorted(GONE))
    def test_of_an_id_that_the_gateway_does_not_know_is_not_found(self, name: str) -> None:
        with pytest.raises(NotFoundError, match=ID) as gone:
            read(wire_example(name))
        assert not gone.value.no_such_route

    @pytest.mark.parametrize("name", [name for name, expected in WIRE.items() if expected])
    def test_keeps_the_id_that_was_asked_for_and_the_whole_reply(self, name: str) -> None:
        body = wire_example(name)
        task = read(copy.deepcopy(body))
        assert (task.video_id, task.raw) == (ID, body)


# -- the table of status words ------------------------------------------------------------------------------

WORDS = {
    TaskState.QUEUED: (
        "queued pending submitted not_start initializing created queueing preparing waiting in_queue"
    ),
    TaskState.RUNNING: (
        "in_progress processing running generating image_uploading image_processing image_downloading "
        "video_generating video_generation_completed video_upsampling postprocessing unknown "
        "a_word_of_tomorrow video_upsampling_completed"
    ),
    TaskState.SUCCEEDED: "completed success succeeded succeed done finished ready",
    TaskState.FAILED: (
        "failed failure fail error video_generation_failed video_upsampling_failed nsfw rejected not_found"
    ),
    TaskState.CANCELLED: "cancelled canceled deleted",
    TaskState.EXPIRED: "expired",
}
EACH_WORD = [(word, state) for state, words in WORDS.items() for word in words.split()]


class TestStatusWord:
    @pytest.mark.parametrize(("word", "state"), EACH_WORD)
    def test_means_its_state_however_it_is_spelt(self, word: str, state: TaskState) -> None:
        for spelling in (word, word.upper(), word.title(), f" {word}\n"):
            task = read({"status": spelling})
            assert task.state is state
            assert task.raw_status == spelling.strip()

    @pytest.mark.parametrize("place", ["status", "data.status", "result.status", "task_status", "state"])
    def test_is_found_in_every_place(self, place: str) -> None:
        assert read(placed(place, "SUCCESS")).state is TaskState.SUCCEEDED

    def test_an_outer_word_rules_an_inner_one(self) -> None:
        assert read({"status": "pending", "data": {"status": "completed"}}).state is TaskState.QUEUED

    @pytest.mark.parametrize("nothing", [None, "", "  ", {}, [], 0, 3, True, "200", ["completed"]])
    def test_a_place_that_holds_no_word_does_not_hide_the_next(self, nothing: object) -> None:
        assert read({"status": nothing, "data": {"status": "completed"}}).state is TaskState.SUCCEEDED

    def test_no_word_at_all_is_running(self) -> None:
        task = read({"id": "video_1"})
        assert (task.state, task.raw_status) == (TaskState.RUNNING, None)

    def test_a_url_without_a_word_does_not_finish_a_task(self) -> None:
        assert read({"id": "video_1", "video_url": CDN}).state is TaskState.RUNNING

    def test_upsampling_completed_ends_the_task_only_with_a_url(self) -> None:
        assert read({"status": "video_upsampling_completed"}).state is TaskState.RUNNING
        assert read({"status": "VIDEO_UPSAMPLING_COMPLETED", "video_url": CDN}).state is TaskState.SUCCEEDED

    def test_final_states_are_those_that_do_not_change(self) -> None:
        assert {state for state in TaskState if not state.is_final} == {TaskState.QUEUED, TaskState.RUNNING}


# -- places --------------------------------------------------------------------------------------------------


def placed(place: str, value: object) -> dict[str, Any]:
    """A body that holds a value at a dotted place; numbers are places in lists."""
    for step in reversed(place.split(".")):
        value = [value] if step == "0" else {step: value}
    assert isinstance(value, dict)
    return value


def under(body: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Both together; what is nested in both is merged."""
    for name, value in extra.items():
        if isinstance(value, dict) and isinstance(body.get(name), dict):
            under(body[name], value)
        else:
            body[name] = value
    return body


NESTED_URLS = [
    "video_url",
    "url",
    "result_url",
    "output_url",
    "content_url",
    "download_url",
    "metadata.url",
    "video.url",
    "output",
    "output.url",
    "output.video_url",
    "result.video_url",
    "content.video_url",
    "detail.upsample_video_url",
    "detail.video_url",
    "detail.url",
    "task_result.videos.0.url",
]
ALL_URLS = [
    *(prefix + place for prefix in ("", "data.", "data.data.") for place in NESTED_URLS),
    "data.videos.0.url",
    "data.output",
    "data.outputs.0",
    "result_urls.0",
]


class TestVideoUrl:
    @pytest.mark.parametrize("place", ALL_URLS)
    def test_is_found_in_every_place(self, place: str) -> None:
        assert read(under({"status": "completed"}, placed(place, CDN))).video_url == CDN

    @pytest.mark.parametrize("second", [place for place in NESTED_URLS if place != "video_url"])
    def test_video_url_comes_first(self, second: str) -> None:
        body = under({"status": "completed", "video_url": CDN}, placed(second, "https://other.example/x"))
        assert read(body).video_url == CDN

    def test_the_upsampled_file_comes_before_the_other(self) -> None:
        detail = {"video_url": "https://cdn.example/low.mp4", "upsample_video_url": CDN}
        assert read({"status": "completed", "detail": detail}).video_url == CDN

    @pytest.mark.parametrize(
        "value",
        [
            None, "", {}, [], 0, 7, True, "MASKED", "null", "None", "/v1/videos/x/content", "//cdn.example/x",
            "ftp://cdn.example/x", "file:///etc/passwd", "data:video/mp4;base64,AAAA", "s3://bucket/key",
            "javascript:alert(1)", "https://", "http:///x", "https://[::1", "https://a b/c",
            "https://cdn.example/x\nHost: evil", "https://cdn.example/\ud800", ["https://cdn.example/x"],
        ],
    )  # fmt: skip
    def test_what_is_no_http_url_does_not_count_as_there(self, value: object) -> None:
        assert read({"status": "completed", "video_url": value}).video_url is None
        assert read({"status": "completed", "video_url": value, "url": CDN}).video_url == CDN

    @pytest.mark.parametrize(
        "url",
        [
            "https://cdn.example/a%2Fb%20c.mp4?X-Amz-Signature=a%2Bb%3D&e=1&x=%E4%BD%A0",
            "HTTPS://CDN.example:8443/v.mp4?sig=A+B==#t=1",
            "http://[2001:db8::1]/v.mp4",
            "https://cdn.example/视频.mp4?x='\"|",
        ],
    )
    def test_is_kept_byte_for_byte(self, url: str) -> None:
        assert read({"status": "completed", "video_url": url}).video_url == url

    @pytest.mark.parametrize("around", [" {}", "{}\n", "\t{} \r\n"])
    def test_white_space_around_it_is_cut(self, around: str) -> None:
        url = "https://cdn.example/a%20b.mp4?sig=A+B=="
        assert read({"status": "completed", "video_url": around.format(url)}).video_url == url

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1:3000", "[::1]:3000", "LOCALHOST"])
    def test_a_loopback_address_loses_to_any_other_hit(self, host: str) -> None:
        inside = f"http://{host}/v1/videos/x/content"
        body = {"status": "completed", "result_url": inside, "data": {"data": {"url": CDN}}}
        assert read(body).video_url == CDN

    def test_a_loopback_address_is_better_than_none(self) -> None:
        inside = "http://127.0.0.1:8080/v.mp4"
        assert read({"status": "completed", "result_url": inside}).video_url == inside


class TestFailure:
    NESTED = (
        "error.message",
        "error",
        "fail_reason",
        "error_message",
        "message",
        "detail.video_generation_error",
        "detail.error_message",
        "detail.failure_reason",
        "detail.pending_info.failure_reason",
    )

    @pytest.mark.parametrize("prefix", ["", "data."])
    @pytest.mark.parametrize("place", NESTED)
    def test_is_found_in_every_place(self, place: str, prefix: str) -> None:
        body = under({"status": "failed"}, placed(prefix + place, "too many hands"))
        assert read(body).failure == "too many hands"

    @pytest.mark.parametrize("word", ["failed", "cancelled", "expired"])
    def test_is_told_of_every_task_that_did_not_succeed(self, word: str) -> None:
        assert read({"status": word, "error": {"message": "why"}}).failure == "why"

    @pytest.mark.parametrize("word", ["completed", "processing", "pending", "no word of the table", ""])
    def test_is_not_told_of_a_task_that_has_not_failed(self, word: str) -> None:
        body = {"id": "x", "status": word, "error": {"code": "e1", "message": "an earlier try"}}
        assert (read(body).failure, read(body).failure_code) == (None, None)

    @pytest.mark.parametrize(
        ("code", "expected"),
        [("e1", "e1"), (1301, "1301"), ("", None), (0, None), (None, None), (True, None), ({}, None)],
    )
    def test_its_code_is_text(self, code: object, expected: str | None) -> None:
        assert read({"status": "failed", "error": {"message": "m", "code": code}}).failure_code == expected

    def test_a_failed_task_without_a_reason_is_failed_all_the_same(self) -> None:
        task = read({"status": "failed", "error": {"message": "", "code": ""}})
        assert (task.state, task.failure) == (TaskState.FAILED, None)

    def test_a_url_in_it_loses_its_query(self) -> None:
        """A reason is logged and stored; the query of a signed URL is a credential."""
        reason = 'Get "https://up.example/v1/x?key=SECRET&t=1": context deadline exceeded'
        told = read({"status": "failed", "fail_reason": reason}).failure or ""
        assert "SECRET" not in told
        assert told.startswith('Get "https://up.example/v1/x')
        assert told.endswith('": context deadline exceeded')


class TestProgress:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (0, 0), (50, 50), (100, 100), (49.6, 50), ("0", 0), ("50%", 50), (" 50 % ", 50), ("100%", 100),
            (-1, 0), (101, 100), ("1e3", 100), (10**400, None), (float("nan"), None), (float("inf"), None),
            ("nan", None), ("", None), ("%", None), ("half", None), (None, None), (True, None), ({}, None),
            ([], None), ([50], None),
        ],
    )  # fmt: skip
    def test_is_a_percentage_or_none(self, value: object, expected: int | None) -> None:
        assert read({"status": "processing", "progress": value}).progress == expected
        assert read({"status": "processing", "data": {"progress": value}}).progress == expected

    @pytest.mark.parametrize(
        ("value", "expected"), [(0, 0), (0.93, 93), (1, 100), (1.0, 100), ("0.5", 50), (7, 100), (None, None)]
    )
    def test_a_share_of_one_becomes_a_percentage(self, value: object, expected: int | None) -> None:
        body = {"status": "pending", "detail": {"pending_info": {"progress_pct": value}}}
        assert read(body).progress == expected
        assert read({"data": body}).progress == expected


class TestTimes:
    MOMENT = datetime(2026, 2, 6, 3, 54, 42, tzinfo=UTC)

    @pytest.mark.parametrize(
        "value",
        [
            1770350082, 1770350082.0, "1770350082", 1770350082000, "1770350082000", "2026-02-06T03:54:42Z",
            "2026-02-06T03:54:42", "2026-02-06 03:54:42+00:00", "2026-02-06T11:54:42+08:00",
        ],
    )  # fmt: skip
    def test_in_any_spelling_is_one_moment_in_utc(self, value: object) -> None:
        created = read({"status": "pending", "created_at": value}).created_at
        assert created == self.MOMENT
        assert created is not None
        assert created.utcoffset() == timedelta(0)

    @pytest.mark.parametrize(
        "value",
        [0, "0", 0.0, -1, None, "", "soon", True, [], {}, 1e300, 10**400, "0001-01-01T00:00:00+23:00",
         float("nan"), "inf"],
    )  # fmt: skip
    def test_what_is_no_time_is_none(self, value: object) -> None:
        assert read({"status": "pending", "created_at": value}).created_at is None

    def test_seconds_milliseconds_and_iso_are_mixed_within_one_reply(self) -> None:
        task = read(
            {
                "status": "completed",
                "created_at": "2026-02-06T03:54:42Z",
                "completed_at": 1770350328994,
                "expires_at": 1770436482,
            }
        )
        assert task.created_at == self.MOMENT
        assert task.completed_at == datetime(2026, 2, 6, 3, 58, 48, 994000, tzinfo=UTC)
        assert task.expires_at == self.MOMENT + timedelta(days=1)

    def test_the_border_between_seconds_and_milliseconds_is_at_1e11(self) -> None:
        for number, year in ((10**11, 5138), (10**11 + 1, 1973)):
            created = read({"status": "pending", "created_at": number}).created_at
            assert created is not None
            assert created.year == year

    @pytest.mark.parametrize("place", ["completed_at", "finish_time", "failed_at", "status_update_time"])
    def test_the_end_is_known_only_of_a_task_that_ended(self, place: str) -> None:
        assert read({"status": "failed", place: 1770350082}).completed_at == self.MOMENT
        assert read({"status": "processing", place: 1770350082}).completed_at is None


class TestOtherFacts:
    @pytest.mark.parametrize("place", ["thumbnail_url", "detail.gif_url", "cover_url"])
    def test_a_thumbnail_is_found_in_every_place(self, place: str) -> None:
        assert read(under({"status": "completed"}, placed(place, CDN))).thumbnail_url == CDN

    @pytest.mark.parametrize("place", ["enhanced_prompt", "detail.enhanced_prompt"])
    def test_an_enhanced_prompt_is_found_in_every_place(self, place: str) -> None:
        assert read(under({"status": "completed"}, placed(place, "a better cat"))).enhanced_prompt == (
            "a better cat"
        )


# -- the traps of the wire contract, section 2 ---------------------------------------------------------------


class TestTraps:
    def test_1_a_completed_task_with_an_old_error_message_has_succeeded(self) -> None:
        (body,) = example_replies("000")
        assert body["detail"]["error_message"]
        assert body["detail"]["video_generation_error"]
        task = read(body)
        assert (task.state, task.failure, task.failure_code) == (TaskState.SUCCEEDED, None, None)

    @pytest.mark.parametrize("error", ["", {}, [], None, {"code": 0}, {"message": "", "code": ""}])
    def test_1_an_empty_error_on_a_healthy_task_says_nothing(self, error: object) -> None:
        for word, state in (("processing", TaskState.RUNNING), ("completed", TaskState.SUCCEEDED)):
            task = read({"id": "x", "status": word, "error": error})
            assert (task.state, task.failure, task.failure_code) == (state, None, None)

    def test_2_the_upsampled_file_is_the_one_that_was_paid_for(self) -> None:
        (body,) = example_replies("000")
        assert read(body).video_url == body["detail"]["upsample_video_url"]
        assert read(body).video_url != body["detail"]["video_url"]

    def test_3_the_failure_text_may_lie_in_result_url(self) -> None:
        body = {"code": "success", "data": {"status": "FAILURE", "fail_reason": "", "result_url": "no luck"}}
        task = read(body)
        assert (task.state, task.failure, task.video_url) == (TaskState.FAILED, "no luck", None)

    def test_3_the_url_may_lie_in_fail_reason(self) -> None:
        task = read({"code": "success", "data": {"status": "SUCCESS", "fail_reason": CDN}})
        assert (task.state, task.failure, task.video_url) == (TaskState.SUCCEEDED, None, CDN)

    def test_3_a_url_in_fail_reason_is_no_reason(self) -> None:
        assert read({"status": "FAILURE", "fail_reason": CDN}).failure is None

    def test_4_succeeded_without_a_url_is_succeeded(self) -> None:
        task = read({"status": "completed", "video_url": None})
        assert (task.state, task.video_url) == (TaskState.SUCCEEDED, None)

    @pytest.mark.parametrize(
        "envelope",
        [{"code": "success"}, {"code": "success", "message": ""}, {"code": 1000, "message": "success"}],
    )
    @pytest.mark.parametrize(
        ("word", "state"),
        [
            ("IN_PROGRESS", TaskState.RUNNING),
            ("FAILURE", TaskState.FAILED),
            ("NOT_START", TaskState.QUEUED),
            ("SUCCESS", TaskState.SUCCEEDED),
        ],
    )
    def test_5_a_successful_envelope_says_nothing_of_the_task(
        self, envelope: dict[str, Any], word: str, state: TaskState
    ) -> None:
        task = read({**envelope, "data": {"status": word, "fail_reason": "no luck"}})
        assert task.state is state
        assert task.failure == ("no luck" if state is TaskState.FAILED else None)

    @pytest.mark.parametrize("body", [{"code": 400, "msg": "wrong"}, {"error": {"message": "wrong"}}])
    def test_5_a_wrapped_error_is_no_task(self, body: object) -> None:
        with pytest.raises(UnreadableReplyError):
            read(body)

    def test_6_a_presigned_url_is_used_byte_for_byte(self) -> None:
        body = wire_example("generations_get_success_newapi_5266")
        assert read(body).video_url == body["data"]["result_url"]

    def test_7_a_video_url_may_be_null_and_an_enhanced_prompt_missing(self) -> None:
        task = read({"id": "x", "status": "pending", "video_url": None})
        assert (task.video_url, task.enhanced_prompt) == (None, None)

    def test_the_id_in_the_reply_is_not_believed(self) -> None:
        assert read({"id": "another", "status": "pending", "detail": {"id": "a third"}}).video_id == ID


# -- the id in the reply to a create -------------------------------------------------------------------------


class TestCreatedId:
    @pytest.mark.parametrize(
        "place", ["id", "task_id", "data.task_id", "data.id", "data.taskId", "request_id", "data"]
    )
    def test_is_found_in_every_place(self, place: str) -> None:
        assert read_created_id(placed(place, "sora-2:task_1")) == "sora-2:task_1"

    @pytest.mark.parametrize("nothing", [None, "", " ", {}, [], True, 1.5])
    def test_what_is_no_id_does_not_count_as_there(self, nothing: object) -> None:
        assert read_created_id({"id": nothing}) is None
        assert read_created_id({"id": nothing, "data": {"task_id": "task_1"}}) == "task_1"

    def test_a_task_id_comes_before_the_number_of_a_row(self) -> None:
        assert read_created_id({"code": "success", "data": {"id": 6, "task_id": "task_1"}}) == "task_1"
        assert read_created_id({"id": 6, "task_id": "task_1"}) == "task_1"

    def test_a_number_is_an_id_where_there_is_no_other(self) -> None:
        assert read_created_id({"data": {"id": 6}}) == "6"

    @pytest.mark.parametrize("body", [{}, {"status": "pending"}, [], None, 7, {"data": None}, ""])
    def test_is_none_where_there_is_none(self, body: object) -> None:
        assert read_created_id(body) is None


# -- what a task tells on ------------------------------------------------------------------------------------


class TestAsJson:
    def test_leaves_out_the_reply_and_every_signed_url(self) -> None:
        signed = f"{CDN}?X-Amz-Signature=SECRET"
        task = read({"status": "completed", "video_url": signed, "thumbnail_url": signed})
        told = task.as_json()
        assert (told["video_url"], told["thumbnail_url"]) == (None, None)
        assert "raw" not in told
        assert "SECRET" not in json.dumps(told)
        assert task.video_url == signed

    @pytest.mark.parametrize(
        "url",
        [
            "https://user:pw@cdn.example/v.mp4",
            f"{CDN}#token=SECRET",
            f"{CDN};sig=SECRET",
            "https://cdn.example/v;token=SECRET/1.mp4",
            "https://cdn.example/hdnts=exp~hmac/v.mp4",
        ],
    )
    def test_leaves_out_other_urls_that_hold_a_secret(self, url: str) -> None:
        assert read({"status": "completed", "video_url": url}).as_json()["video_url"] is None

    @pytest.mark.parametrize("field", ["status", "model", "enhanced_prompt", "fail_reason", "error"])
    @pytest.mark.parametrize(
        "said",
        [
            f"{CDN}?X-Amz-Signature=SECRET",
            f"see {CDN.removeprefix('https://')}?X-Amz-Signature=SECRET",
            "Authorization: Bearer SECRET",
            "Bearer SECRET",
        ],
    )
    def test_leaves_out_a_credential_whichever_field_holds_it(self, field: str, said: str) -> None:
        for body in ({"status": "failed"}, {"status": "processing"}):
            task = read({**body, field: said})
            assert "SECRET" not in json.dumps(task.as_json()) + task.line

    def test_leaves_out_a_credential_in_a_code(self) -> None:
        task = read({"status": "failed", "error": {"message": "no", "code": f"at {CDN}?sig=SECRET"}})
        assert "SECRET" not in json.dumps(task.as_json())

    def test_keeps_a_plain_url_and_tells_times_as_text(self) -> None:
        told = read(example_replies("000")[0]).as_json()
        assert told["video_url"] == VEO_DONE["video_url"]
        assert told["created_at"] == "2026-02-06T03:54:42.099000Z"
        assert told["video_id"] == ID

    def test_a_task_is_frozen(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            read({"status": "pending"}).state = TaskState.SUCCEEDED  # type: ignore[misc]

    def test_the_reply_is_not_in_its_repr(self) -> None:
        assert "SECRET" not in repr(read({"status": "pending", "anything": "SECRET"}))

    @pytest.mark.parametrize(
        ("body", "line"),
        [
            ({"status": "queued"}, "queued"),
            ({"status": "pending", "progress": 93}, "queued (pending), 93 %"),
            ({"id": "x"}, "running"),
            ({"status": "FAILED"}, "failed"),
        ],
    )
    def test_has_one_line_for_people(self, body: object, line: str) -> None:
        assert read(body).line == line


# -- rubbish -------------------------------------------------------------------------------------------------

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
    | st.sampled_from([CDN, f"{CDN}?sig=SECRET", "completed", "failed", "50%", "", "https://[", 10**400])
    | st.text(st.characters(), max_size=5)
)  # fmt: skip
names = st.sampled_from(
    [
        "id",
        "task_id",
        "data",
        "status",
        "state",
        "result",
        "task_status",
        "video_url",
        "url",
        "output",
        "outputs",
        "metadata",
        "video",
        "content",
        "detail",
        "pending_info",
        "progress",
        "progress_pct",
        "error",
        "message",
        "code",
        "fail_reason",
        "result_url",
        "created_at",
        "completed_at",
        "expires_at",
        "finish_time",
        "model",
        "thumbnail_url",
        "enhanced_prompt",
        "task_result",
        "videos",
        "result_urls",
        "upsample_video_url",
        "task",
        "response",
        "done",
        "name",
        "raiMediaFilteredCount",
        "respect_moderation",
        "unsigned_urls",
        "usage",
        "cost",
        "errors",
    ]
) | st.text(max_size=5)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=8),
    max_leaves=30,
)
bodies = anything | st.dictionaries(names, anything, max_size=10)


class TestAnyReply:
    @given(body=bodies)
    @settings(PATIENT, max_examples=120)
    def test_is_a_task_or_unreadable_and_nothing_else(self, body: Any) -> None:
        before = copy.deepcopy(body)
        try:
            task = read(body)
        except UnreadableReplyError:
            assert not isinstance(body, dict) or not says_something_of_a_task(body)
            return
        except NotFoundError:
            assert body["output"]["task_status"] == "UNKNOWN"
            return
        assert repr(body) == repr(before)
        assert task.video_id == ID
        assert task.progress is None or (type(task.progress) is int and 0 <= task.progress <= 100)
        for moment in (task.created_at, task.completed_at, task.expires_at):
            assert moment is None or moment.utcoffset() == timedelta(0)
        if task.video_url is not None:
            assert urlsplit(task.video_url).scheme.lower() in {"http", "https"}
        if task.state in {TaskState.QUEUED, TaskState.RUNNING, TaskState.SUCCEEDED}:
            assert task.failure is None
            assert task.failure_code is None
        told = task.as_json()
        stored = json.dumps(told, allow_nan=False, ensure_ascii=False).encode()
        assert json.loads(stored) == told
        for url in filter(None, (told["video_url"], told["thumbnail_url"])):
            assert "?" not in url
        assert task.line.encode()

    @given(body=bodies)
    @settings(PATIENT, max_examples=120)
    def test_reads_the_same_twice_and_again_from_its_own_json(self, body: Any) -> None:
        try:
            task = read(body)
        except UnreadableReplyError:
            return
        told = task.as_json()
        assert read(copy.deepcopy(body)).as_json() == told
        again = VideoTask.model_validate(told)
        assert again.as_json() == told
        assert read(told).state is task.state

    @given(body=bodies)
    @settings(PATIENT, max_examples=120)
    def test_holds_an_id_that_can_be_stored_or_none(self, body: Any) -> None:
        created = read_created_id(body)
        assert created is None or (created.strip() and created.encode())
