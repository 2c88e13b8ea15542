"""A refusal by moderation is told from a failure, in both directions, and the input's from the output's."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from airflow_video_provider.gateway import ModerationError, TaskState, VideoTask, error_from_reply
from airflow_video_provider.gateway.refusals import SIGNS, Refusal

INPUT = [
    "Failure to pass the risk control system",
    "This request may violate our content policies.",
    "This content may violate our guardrails concerning similarity to third-party content.",
    "PUBLIC_ERROR_PROMINENT_PEOPLE_FILTER_FAILED",
    "PUBLIC_ERROR_UNSAFE_GENERATION",
    "PUBLIC_ERROR_MINOR",
    "InputTextSensitiveContentDetected",
    "InputImageSensitiveContentDetected.PrivacyInformation",
    "The request failed because the input text may contain sensitive information.",
    "video description contains sensitive content",
    "1026",
    "input new_sensitive",
    "moderation_blocked",
    "content_policy_violation",
    "content_moderated",
    "content_filter",
    "sentinel_block",
    "sensitive_words_detected",
    "DataInspectionFailed",
    "<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content.",
    "SAFETY.INPUT.TEXT",
    "InputTextRiskDetection",
    "Request Moderated",
    "nsfw",
    "Your request was blocked by our moderation system.",
    "Your request was rejected as a result of our safety system.",
    "The content could not be processed because it contained material flagged by a content checker.",
    "your request contains unsafe prompt or images, such as porn, violence, minors etc., has been rejected",
    "Sorry, we can't create videos with real people's names or likenesses.",
    "The prompt violates Vertex AI's usage guidelines.",
    "Your input violates our terms of service",
    "内容审核未通过：检测到真人形象",
    "提示词包含敏感词",
    "图片内容违规，请修改后重试",
    "输入内容涉敏",
    "生成视频失败：内容审核未通过",
    "提示词未通过风控",
    "文本包含不当内容",
    "risk control",
    "AuditSubmitIllegal",
    "TaskPromptPolicyViolation",
    "PROHIBITED_CONTENT",
    "1301",
    "Trigger the content security policy of the platform",
    "触发平台内容安全策略",
    "提示词触发风控",
    "content filter",
    "Your prompt may contain sensitive words",
    "prompt is considered harmful",
]
OUTPUT = [
    "OutputVideoSensitiveContentDetected",
    "OutputVideoSensitiveContentDetected.PolicyViolation",
    "OutputAudioSensitiveContentDetected.PolicyViolation",
    "The request failed because the output video may contain sensitive information. Request id: 02178",
    "The request failed because the output audio may be related to copyright restrictions.",
    "Output data may contain inappropriate content.",
    "1027",
    "output new_sensitive",
    "SAFETY.OUTPUT.VIDEO",
    "PUBLIC_ERROR_AUDIO_FILTERED",
    "raiMediaFilteredReasons",
    "We encountered an issue with the audio for your prompt and could not create your video.",
    "Veo could not generate 1 videos based on the prompt provided. Try rephrasing the prompt.",
    "Blocked by the audio safety filter",
    "The generated video was flagged by our safety system",
    "We blocked the generated video",
    "Content Moderated",
    "生成的视频可能包含敏感信息",
    "输出内容涉敏",
    "The generated audio was filtered",
    "output image violates our policies",
    "CreationPolicyViolation",
    "Generated image rejected by content moderation.",
    "The generated video failed our moderation",
    "Output blocked by content filtering policy",
    "the audio track could not be generated due to safety filters",
    "生成物触发风控",
]
#: Each of these is worth a retry; taken for a refusal, none would be made.
ORDINARY = [
    "internal error",
    "safety timeout of the upstream",
    "policy rate limit",
    "audio codec",
    "risk of duplicate task id",
    "upstream timed out",
    "The moderation service timed out, try again",
    "content moderation is temporarily unavailable",
    "timeout while waiting for the moderation service",
    "ContentSecurityDetectionError",
    "content filter service: connection reset by peer",
    "429 too many requests: content policy rate limit",
    "new row violates row-level security policy for table tasks",
    "violates foreign key constraint on table tasks",
    "violates the following Content Security Policy directive",
    "Access denied by bucket policy",
    "retry policy exhausted",
    "parameter names are case-sensitive",
    "参数大小写敏感",
    "内容审核服务超时，请稍后重试",
    "审核系统繁忙",
    "账号触发风控，请联系管理员",
    "This account is restricted by risk control",
    "system risk level raised, load shedding",
    "failed to generate audio track",
    "audio generation failed: encoder error",
    "output video could not be uploaded",
    "the generated video is empty",
    "input image could not be downloaded",
    "Image pixel is invalid",
    "PUBLIC_ERROR_SOMETHING_WENT_WRONG",
    "PUBLIC_ERROR_HIGH_TRAFFIC",
    "INTERNAL.BAD_OUTPUT.CODE01",
    "generation failed",
    "视频生成失败",
    "生成超时",
    "11026",
    "task 1026 failed",
    "content length mismatch",
    "Error initializing audio filter graph",
    "audio filter failed: ffmpeg exited with 1",
    "output video filter graph could not be configured",
    "the generated video was rejected by the object store",
    "worker blocked while writing output data",
    "output data violates the JSON schema",
    "output data block size mismatch",
    "image aspect ratio is inappropriate",
    "inappropriate parameter: seconds",
    "request method prohibited",
    "prohibited content-type",
    "connection refused by the content review service",
    "blocked by CORS policy",
    "PUBLIC_ERROR_AUDIO_ENCODING_FAILED",
    "no key frames found in the video",
    "safety margin of the scheduler exceeded",
    "sensitivity analysis failed",
    "the policy engine crashed",
    "moderation queue: connection reset",
    "risk score service error 500",
    "upstream filter chain error",
    "guidance scale out of range",
    "model is a minor version behind",
    "request blocked: too many concurrent tasks",
    "rejected by the scheduler",
    "insufficient balance",
    "",
    "risk control system busy, try again later",
    "the moderation system is busy",
    "生成结果风控服务超时",
    "the generated video is waiting; moderation queue: connection reset",
    "audio muxer failed; safety margin exceeded",
    "error 1301 while reading",
    "SUCCEED",
]
SIDES = [(words, "input") for words in INPUT] + [(words, "output") for words in OUTPUT]


def failed(reason: str | None = None, code: object = None) -> VideoTask:
    body: dict[str, Any] = {"id": "x", "status": "failed", "error": {"message": reason, "code": code}}
    return VideoTask.from_reply(body, video_id="x")


class TestARefusal:
    @pytest.mark.parametrize(("words", "refusal"), SIDES)
    def test_is_seen_whatever_its_case_and_its_side_is_told(self, words: str, refusal: str) -> None:
        for spelling in (words, words.upper(), f" {words}\n"):
            assert failed(spelling).refusal == refusal
            assert failed("words of no meaning", spelling).refusal == refusal

    @pytest.mark.parametrize("words", ORDINARY)
    def test_is_not_imagined_of_an_ordinary_failure(self, words: str) -> None:
        assert failed(words).refusal is None
        assert failed("words of no meaning", words).refusal is None
        assert error_from_reply(400, {}, words.encode()).kind != "moderation"

    @pytest.mark.parametrize(
        ("code", "reason", "refusal"),
        [
            ("DataInspectionFailed", "Output data may contain inappropriate content.", "output"),
            ("DataInspectionFailed", "Input data may contain inappropriate content.", "input"),
            ("content_policy_violation", "The generated video was flagged", "output"),
            ("1027", "output new_sensitive", "output"),
            (1026, "video description contains sensitive content", "input"),
            ("OutputVideoSensitiveContentDetected", "may contain sensitive information", "output"),
            (None, "Failure to pass the risk control system", "input"),
            ("sentinel_block", None, "input"),
            ("internal_error", "internal error", None),
            ("timeout", "upstream timed out", None),
            (None, None, None),
        ],
    )
    def test_is_read_from_code_and_reason_together(
        self, code: object, reason: str | None, refusal: str | None
    ) -> None:
        assert failed(reason, code).refusal == refusal

    @pytest.mark.parametrize("word", ["nsfw", "Content Moderated", "content_moderated"])
    def test_is_read_from_a_status_word(self, word: str) -> None:
        task = VideoTask.from_reply({"id": "x", "status": word}, video_id="x")
        assert task.state is TaskState.FAILED
        assert task.refusal

    @pytest.mark.parametrize("word", ["completed", "processing", "queued", ""])
    def test_is_told_only_of_a_task_that_did_not_succeed(self, word: str) -> None:
        body = {"id": "x", "status": word, "error": {"code": "moderation_blocked", "message": "nsfw"}}
        assert VideoTask.from_reply(body, video_id="x").refusal is None

    def test_every_row_says_who_says_so(self) -> None:
        assert all(sign.source and isinstance(sign.refusal, Refusal) for sign in SIGNS)


class TestARefusalByHttp:
    @pytest.mark.parametrize("status", [400, 403, 422])
    @pytest.mark.parametrize(("words", "refusal"), [side for side in SIDES if not side[0].isdigit()])
    def test_is_final_and_names_its_side(self, status: int, words: str, refusal: str) -> None:
        error = error_from_reply(status, {}, b'{"error": "%s"}' % words.encode())
        assert isinstance(error, ModerationError)
        assert error.refusal == refusal

    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    def test_of_a_failing_server_is_believed_by_its_code_alone(self, status: int) -> None:
        """A query that fails for an hour must not end the wait for a paid task by its choice of words."""
        plain = error_from_reply(status, {}, b'{"error": "content policy engine: sensitive content"}')
        assert plain.retryable
        coded = error_from_reply(status, {}, b'{"error": "InputTextSensitiveContentDetected: no"}')
        assert coded.kind == "moderation"

    def test_of_a_firewalls_page_is_not_one(self) -> None:
        page = b"<html><title>Blocked: content policy</title></html>"
        assert error_from_reply(403, {}, page).kind == "invalid_request"

    def test_by_a_bot_check_says_what_may_cure_it(self) -> None:
        error = error_from_reply(400, {}, b'{"error": {"code": "sentinel_block", "message": "try later"}}')
        assert error.kind == "moderation"
        assert "User-Agent" in str(error)
        assert "User-Agent" not in str(
            error_from_reply(400, {}, b'{"error": {"code": "moderation_blocked", "message": "no"}}')
        )


class TestWordsOfAnyLength:
    @pytest.mark.parametrize(
        "piece", ["Output", "PUBLIC_ERROR_", "prompt ", "a/", "x", "审核", "the generated ", "error_", "404 "]
    )
    def test_are_judged_at_once(self, piece: str) -> None:
        started = time.monotonic()
        failed(piece * 500_000)
        error_from_reply(404, {}, json.dumps({"error": piece * 500_000}).encode())
        assert time.monotonic() - started < 5
