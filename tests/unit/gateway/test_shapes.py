"""Shapes of other providers under these routes: each read to its end, and the real reason told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.gateway import NotFoundError, TaskState, VideoTask
from airflow_video_provider.gateway.dialects import known_dialects
from airflow_video_provider.gateway.task import read_created_id

CDN = "https://cdn.example/v.mp4"
MORE = ["https://cdn.example/v.mp4", "https://cdn.example/w.mp4"]
WIRE = Path(__file__).resolve().parents[2] / "data" / "wire"
#: An id that is not known, and an error within HTTP 200.
NO_TASK = {"generations_get_unknown_dashscope", "generations_get_error_minimax_base_resp"}
OPERATION = "projects/p/locations/l/publishers/google/models/m/operations/o1"


def of_kling(**inner: Any) -> dict[str, Any]:
    return {"data": {"status": "FAILURE", "fail_reason": "SUCCEED", "data": {"message": "SUCCEED", **inner}}}


FINISHED: list[dict[str, Any]] = [
    {"output": {"task_id": "d", "task_status": "SUCCEEDED", "video_url": CDN}},
    {"task": {"id": "m", "status": "succeeded", "content": {"url": CDN}}},
    {
        "data": {
            "status": "SUCCESS",
            "data": {"output": {"task_status": "SUCCEEDED", "video_url": CDN}},
        }
    },
    {
        "data": {
            "status": "SUCCESS",
            "data": {"task": {"status": "succeeded", "content": {"url": CDN}}},
        }
    },
    {
        "data": {
            "status": "SUCCESS",
            "data": {"code": 0, "data": {"task_result": {"videos": [{"url": CDN}]}}},
        }
    },
    {"id": "p", "status": "succeeded", "output": [CDN]},
    {"id": "p", "status": "completed", "output": [{"type": "video", "url": CDN}]},
    {
        "id": "g",
        "state": "completed",
        "assets": {"video": CDN, "progress_video": "https://x.example/p"},
    },
    {"state": "success", "creations": [{"id": "c", "url": CDN}]},
    {"id": "o", "status": "completed", "unsigned_urls": [CDN]},
    {"id": "o", "status": "completed", "urls": [CDN]},
    {"id": "v", "status": "completed", "videos": [CDN]},
    {"id": "i", "status": "completed", "output_video": {"type": "video", "uri": CDN}},
    {"status": "done", "video": {"url": CDN, "respect_moderation": True}},
    {"id": "x", "status": "complete", "url": CDN},
    {"task_status": "SUCCESS", "video_result": [{"url": CDN, "cover_image_url": "https://x.example/c"}]},
    {"id": "b", "status": "Ready", "result": {"sample": CDN}},
    {"task": {"task_id": "n", "status": "TASK_STATUS_SUCCEED"}, "videos": [{"video_url": CDN}]},
    {"taskId": "k", "state": "success", "response": {"resultUrls": [CDN]}},
    {"name": OPERATION, "done": True, "response": {"videos": [{"uri": CDN}]}},
    {
        "name": "operations/o1",
        "done": True,
        "response": {"generateVideoResponse": {"generatedSamples": [{"video": {"uri": CDN}}]}},
    },
    {
        "name": OPERATION,
        "done": True,
        "response": {"raiMediaFilteredCount": 1, "videos": [{"uri": CDN}]},
    },
]
FAILED: list[dict[str, Any]] = [
    of_kling(data={"task_status": "failed", "task_status_msg": "the reason"}),
    of_kling(task_status="failed", task_status_msg="the reason"),
    {"data": {"task_status": "failed", "task_status_msg": "the reason"}, "message": "SUCCEED"},
    {"task": {"status": "failed", "error": {"code": "1000", "message": "the reason"}}},
    {"output": {"task_status": "FAILED", "code": "InternalError", "message": "the reason"}},
    {
        "task_id": "1",
        "status": "Fail",
        "base_resp": {"status_code": 1000, "status_msg": "the reason"},
    },
    {"state": "fail", "failMsg": "the reason", "failCode": "501"},
    {"task": {"task_id": "n", "status": "TASK_STATUS_FAILED", "reason": "the reason"}},
    {"status": "failed", "failure_reason": "the reason"},
    {"state": "failed", "failure_reason": "the reason", "failure_code": "generation_failed"},
    {"status": "FAILED", "failure": "the reason", "failureCode": "INTERNAL.BAD_OUTPUT.CODE01"},
    {"status": "failed", "errors": [{"code": "c", "message": "the reason"}]},
    {"status": "failed", "detail": [{"loc": [], "msg": "the reason", "type": "x"}]},
    {"name": OPERATION, "done": True, "error": {"code": 3, "message": "the reason"}},
    {"status": "failed", "error": {"msg": "the reason"}},
]


def reply(body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


def read(body: object) -> VideoTask:
    return VideoTask.from_reply(body, video_id="x")


class TestAFinishedTask:
    @pytest.mark.parametrize("body", FINISHED)
    def test_is_done_and_its_file_is_found(self, body: object) -> None:
        task = read(body)
        assert (task.state, task.video_url, task.refusal) == (TaskState.SUCCEEDED, CDN, None)
        assert task.video_urls == (CDN,)

    def test_of_an_operation_without_a_url_is_done(self) -> None:
        body = {"name": OPERATION, "done": True, "response": {"videos": [{"gcsUri": "gs://b/o.mp4"}]}}
        assert (read(body).state, read(body).video_url) == (TaskState.SUCCEEDED, None)

    def test_says_when(self) -> None:
        assert read({"status": "completed", "finished_at": 1770000000}).completed_at is not None
        assert read({"task": {"status": "succeeded", "finished_at": 1770000000}}).completed_at is not None


class TestSeveralVideos:
    @pytest.mark.parametrize(
        "body",
        [
            {"status": "succeeded", "output": MORE},
            {"status": "completed", "output": [{"url": url} for url in MORE]},
            {"state": "success", "creations": [{"url": url} for url in MORE]},
            {"data": {"task_status": "succeed", "task_result": {"videos": [{"url": url} for url in MORE]}}},
            {"status": "completed", "unsigned_urls": MORE},
            {"status": "completed", "video_url": MORE[0], "video_urls": MORE},
            {"status": "completed", "url": MORE[0], "data": {"videos": [{"url": url} for url in MORE]}},
            {"name": OPERATION, "done": True, "response": {"videos": [{"uri": url} for url in MORE]}},
        ],
    )
    def test_are_all_told_and_the_first_is_the_video(self, body: object) -> None:
        task = read(body)
        assert (task.video_url, list(task.video_urls)) == (MORE[0], MORE)
        assert task.as_json()["video_urls"] == MORE

    def test_the_video_url_comes_first_whatever_the_list(self) -> None:
        assert read({"status": "completed", "url": MORE[1], "urls": MORE}).video_urls == (MORE[1], MORE[0])

    def test_a_list_of_other_files_is_not_mixed_in(self) -> None:
        body = {
            "status": "completed",
            "video_url": CDN,
            "urls": ["https://cdn.example/a", "https://cdn.example/b"],
        }
        assert read(body).video_urls == (CDN,)

    def test_signed_ones_are_not_stored(self) -> None:
        body = {"status": "succeeded", "output": [f"{url}?sig=SECRET" for url in MORE]}
        assert len(read(body).video_urls) == 2
        assert read(body).as_json()["video_urls"] == []

    @pytest.mark.parametrize(
        "body", [{"status": "queued"}, {"status": "completed"}, {"output": "x", "status": "done"}]
    )
    def test_where_there_is_none_there_is_none(self, body: object) -> None:
        assert read(body).video_urls == ()


class TestARunningTask:
    @pytest.mark.parametrize(
        ("body", "state"),
        [
            ({"output": {"task_id": "d", "task_status": "RUNNING"}}, TaskState.RUNNING),
            ({"output": {"task_id": "d", "task_status": "PENDING"}}, TaskState.QUEUED),
            ({"task": {"id": "m", "status": "queued"}}, TaskState.QUEUED),
            ({"id": "m", "task": {"status": "dreaming"}}, TaskState.RUNNING),
            ({"name": OPERATION}, TaskState.RUNNING),
            ({"name": OPERATION, "done": False}, TaskState.RUNNING),
            ({"name": OPERATION, "metadata": {}}, TaskState.RUNNING),
            # Elsewhere than in DashScope's place it is new-api's word for what it has not asked yet.
            ({"status": "UNKNOWN"}, TaskState.RUNNING),
            (
                {"data": {"status": "IN_PROGRESS", "data": {"output": {"task_status": "UNKNOWN"}}}},
                TaskState.RUNNING,
            ),
            ({"status": "running", "output": {"task_status": "UNKNOWN"}}, TaskState.RUNNING),
            ({"status": "processing", "done": True}, TaskState.RUNNING),
        ],
    )
    def test_goes_on(self, body: object, state: TaskState) -> None:
        assert read(body).state is state

    def test_that_dashscope_does_not_know_is_not_found(self) -> None:
        with pytest.raises(NotFoundError):
            read({"request_id": "q", "output": {"task_id": "d", "task_status": "UNKNOWN"}})


class TestTheReason:
    @pytest.mark.parametrize(
        "word", ["SUCCEED", "success", "ok", "", "none", "null", "NULL", " Succeed. ", "成功"]
    )
    def test_is_no_word_that_says_nothing(self, word: str) -> None:
        assert read({"status": "failed", "fail_reason": word, "message": word}).failure is None
        body = {
            "status": "failed",
            "fail_reason": word,
            "message": word,
            "task_status_msg": "Image is too small",
        }
        assert read(body).failure == "Image is too small"

    @pytest.mark.parametrize("body", FAILED)
    def test_is_found_where_the_provider_has_it(self, body: object) -> None:
        task = read(body)
        assert (task.state, task.failure) == (TaskState.FAILED, "the reason")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"error": {"message": "the reason"}}', "the reason"),
            ('{"error": {"message": "the reason", "code": "c1"}}', "the reason (c1)"),
            ('{"error": "{\\"message\\": \\"the reason\\"}"}', "the reason"),
            ('{"detail": [{"loc": ["body", "prompt"], "msg": "the reason"}]}', "prompt: the reason"),
            ("{not JSON", "{not JSON"),
            ("{}", None),
            ('{"a": 1}', '{"a": 1}'),
            ("{" * 5000, "{" * 5000),
        ],
    )
    def test_is_taken_out_of_a_providers_whole_error(self, text: str, reason: str | None) -> None:
        assert read({"status": "failed", "fail_reason": text}).failure == reason

    def test_of_moderation_is_seen_within_it(self) -> None:
        text = '{"error": {"message": "no", "code": "content_policy_violation"}}'
        assert read({"status": "failed", "fail_reason": text}).refusal == "input"

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"task": {"status": "failed", "error": {"code": "1026"}}}, "1026"),
            ({"output": {"task_status": "FAILED", "code": "DataInspectionFailed"}}, "DataInspectionFailed"),
            ({"status": "FAILED", "failureCode": "SAFETY.INPUT.TEXT"}, "SAFETY.INPUT.TEXT"),
            ({"status": "Fail", "base_resp": {"status_code": 1027}}, "1027"),
            ({"state": "failed", "failure_code": "content_moderated"}, "content_moderated"),
            ({"state": "failed", "err_code": "AuditSubmitIllegal"}, "AuditSubmitIllegal"),
        ],
    )
    def test_has_its_code(self, body: object, code: str) -> None:
        assert read(body).failure_code == code

    @pytest.mark.parametrize(
        ("word", "state"),
        [
            ("timeout", TaskState.FAILED),
            ("aborted", TaskState.FAILED),
            ("Content Moderated", TaskState.FAILED),
        ],
    )
    def test_of_an_odd_word_ends_the_task(self, word: str, state: TaskState) -> None:
        assert read({"id": "x", "status": word}).state is state


class TestAVideoThatModerationWithheld:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (
                {
                    "name": OPERATION,
                    "done": True,
                    "response": {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": ["why"]},
                },
                "why",
            ),
            (
                {"name": OPERATION, "done": True, "response": {"raiMediaFilteredCount": 1}},
                "raiMediaFilteredCount is 1",
            ),
            (
                {"done": True, "response": {"generateVideoResponse": {"raiMediaFilteredReasons": ["why"]}}},
                "why",
            ),
            ({"id": "v", "status": "completed", "raiMediaFilteredReasons": ["why"]}, "why"),
            (
                {"data": {"status": "SUCCESS", "data": {"response": {"raiMediaFilteredReasons": ["why"]}}}},
                "why",
            ),
            ({"status": "done", "video": {"respect_moderation": False}}, "respect_moderation is false"),
            (
                {"status": "done", "video": {"url": CDN, "respect_moderation": False}},
                "respect_moderation is false",
            ),
        ],
    )
    def test_is_a_refused_output_whatever_the_word(self, body: object, reason: str) -> None:
        task = read(body)
        assert (task.state, task.refusal, task.failure) == (TaskState.FAILED, "output", reason)

    def test_for_its_prompt_is_a_refused_input(self) -> None:
        reasons = ["The prompt violates our usage guidelines."]
        body = {"name": OPERATION, "done": True, "response": {"raiMediaFilteredReasons": reasons}}
        assert read(body).refusal == "input"

    def test_by_soras_own_flag_is_a_refused_output(self) -> None:
        flags = {"pending_info": {"moderation_result": {"is_output_rejection": True}}}
        assert read({"status": "failed", "detail": flags}).refusal == "output"
        assert read({"status": "pending", "detail": flags}).refusal is None

    def test_is_told_in_the_json(self) -> None:
        told = read({"status": "done", "video": {"respect_moderation": False}}).as_json()
        assert told["refusal"] == "output"


class TestCreatedIds:
    @pytest.mark.parametrize(
        ("body", "video_id"),
        [
            ({"request_id": "q", "output": {"task_id": "d", "task_status": "PENDING"}}, "d"),
            ({"task": {"id": "m", "status": "queued"}}, "m"),
            ({"data": {"task": {"id": "m"}}, "request_id": "q"}, "m"),
            ({"name": OPERATION}, OPERATION),
            ({"name": "a cat", "request_id": "q"}, "q"),
            ({"name": "a cat"}, None),
        ],
    )
    def test_are_the_tasks_and_not_the_requests(self, body: object, video_id: str | None) -> None:
        assert read_created_id(body) == video_id


class TestInEveryDialect:
    """The request follows the dialect, and the reply may come in another's shape."""

    @pytest.mark.parametrize("dialect", known_dialects())
    @pytest.mark.parametrize("number", range(len(FINISHED)))
    def test_a_finished_task_is_done_and_its_file_is_found(
        self, connect: Any, peer: Any, dialect: str, number: int
    ) -> None:
        task = connect(peer(reply(FINISHED[number])).url, dialect=dialect).get_task("x")
        assert (task.state, task.video_urls) == (TaskState.SUCCEEDED, (CDN,))

    @pytest.mark.parametrize("dialect", known_dialects())
    @pytest.mark.parametrize("number", range(len(FAILED)))
    def test_a_failed_task_says_why(self, connect: Any, peer: Any, dialect: str, number: int) -> None:
        task = connect(peer(reply(FAILED[number])).url, dialect=dialect).get_task("x")
        assert (task.state, task.failure) == (TaskState.FAILED, "the reason")

    @pytest.mark.parametrize("body", [body for body in FINISHED if "data" not in body])
    def test_a_finished_task_is_found_in_the_row_of_new_api_that_hands_it_on(
        self, body: dict[str, Any]
    ) -> None:
        row = {"task_id": "t", "status": "SUCCESS", "fail_reason": "", "progress": "100%", "data": body}
        task = read({"code": "success", "message": "", "data": row})
        assert (task.state, task.video_urls) == (TaskState.SUCCEEDED, (CDN,))

    @pytest.mark.parametrize("body", [body for body in FAILED if "data" not in body])
    def test_a_failed_task_says_why_in_the_row_of_new_api_that_hands_it_on(
        self, body: dict[str, Any]
    ) -> None:
        row = {"task_id": "t", "status": "FAILURE", "fail_reason": "", "data": body}
        task = read({"code": "success", "message": "", "data": row})
        assert (task.state, task.failure) == (TaskState.FAILED, "the reason")

    @pytest.mark.parametrize("dialect", known_dialects())
    def test_a_reply_of_the_documents_reads_as_in_its_own(
        self, connect: Any, peer: Any, dialect: str
    ) -> None:
        names = sorted(path.stem for path in WIRE.glob("*_get_*.json") if path.stem not in NO_TASK)
        bodies = [json.loads((WIRE / f"{name}.json").read_text(encoding="utf-8")) for name in names]
        client = connect(peer(*map(reply, bodies)).url, dialect=dialect)
        for name, body in zip(names, bodies, strict=True):
            there, here = client.get_task("x"), read(body)
            for fact in ("state", "failure", "failure_code", "refusal", "usage", "progress"):
                assert getattr(there, fact) == getattr(here, fact), (name, fact)
            assert (there.video_url is None) == (here.video_url is None), name
