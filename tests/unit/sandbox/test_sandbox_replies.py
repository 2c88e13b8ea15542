"""What a task looks like while time passes, in each family's words."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from airflow_video_provider.sandbox.tasks import FAMILIES

MODELS = ("veo3.1-fast", "sora-2", "grok-video-3", "kling-v2", "wan2.2")


def walk(desk, video_id, dialect="unified", steps=40):
    """Every reply over the generation time."""
    for _ in range(steps + 1):
        yield desk.told(video_id, dialect)
        desk.wait(1 / steps)


def words(replies):
    return list(dict.fromkeys(reply["status"] for reply in replies))


def test_veo_goes_through_its_steps_with_images_and_upsampling(desk) -> None:
    video_id = desk.submit(images=["https://x.test/a.png"], enable_upsample=True)
    assert words(walk(desk, video_id)) == [
        "pending",
        "image_uploading",
        "image_processing",
        "video_generating",
        "video_generation_completed",
        "video_upsampling",
        "completed",
    ]


def test_veo_without_images_and_upsampling_skips_those_steps(desk) -> None:
    assert words(walk(desk, desk.submit())) == ["pending", "video_generating", "completed"]


def test_veo_tells_no_progress_and_no_url_before_the_end(desk) -> None:
    for reply in list(walk(desk, desk.submit()))[:-1]:
        text = json.dumps(reply)
        assert "progress" not in text
        assert "video_url" not in text


def test_a_completed_veo_has_the_shape_of_seed_000(desk) -> None:
    video_id, reply = desk.finished(images=["https://x.test/a.png"], enable_upsample=True)
    detail = reply["detail"]
    assert reply["id"] == detail["id"] == video_id
    assert reply["status"] == detail["status"] == "completed"
    assert reply["status_update_time"] == int((desk.clock.now) * 1000)
    assert detail["completed_at"] - detail["created_at"] == 20_000
    assert reply["video_url"] == detail["upsample_video_url"] != detail["video_url"]
    # Of an earlier try: a reader that takes these for a failure loses a paid video.
    assert detail["error_message"].startswith("[403] ")
    assert "rejected by google" in detail["video_generation_error"]
    assert (detail["max_retries"], detail["retry_count"], detail["running"]) == (3, 3, False)


def test_veo_without_upsampling_has_one_url(desk) -> None:
    _, reply = desk.finished()
    assert reply["video_url"] == reply["detail"]["video_url"]
    assert "upsample_video_url" not in reply["detail"]


def test_a_waiting_sora_has_the_shape_of_seed_001(desk) -> None:
    video_id = desk.submit(model="sora-2", orientation="portrait")
    desk.wait(0.93)
    reply = desk.told(video_id)
    inner = reply["detail"]["pending_info"]
    assert (reply["status"], reply["detail"]["status"], inner["status"]) == (
        "pending",
        "pending",
        "processing",
    )
    assert reply["id"] == video_id == f"sora-2:{reply['detail']['id']}"
    assert inner["progress_pct"] == pytest.approx(0.93)
    assert datetime.fromisoformat(inner["created_at"]).timestamp() == desk.clock.now - 18.6
    assert reply["status_update_time"] > 1e12
    assert inner["failure_reason"] is None
    assert inner["moderation_result"]["type"] == "passed"


@pytest.mark.parametrize("dialect", ["unified", "openai"])
def test_sora_waits_in_the_unified_shape_whatever_the_dialect(desk, dialect) -> None:
    video_id = desk.submit(dialect, model="sora-2")
    assert "pending_info" in desk.told(video_id, dialect)["detail"]


def test_a_completed_sora_has_the_openai_shape_in_that_dialect(desk) -> None:
    video_id, reply = desk.finished("openai", model="sora-2", seconds="12")
    assert reply.pop("video_url").endswith(".mp4")
    assert reply == {
        "id": video_id,
        "object": "video",
        "model": "sora-2",
        "status": "completed",
        "progress": 100,
        "created_at": int(desk.clock.now) - 20,
        "completed_at": int(desk.clock.now),
        "seconds": "12",
        "size": "1280x720",
    }


def test_grok_is_flat_with_progress_and_seconds(desk) -> None:
    video_id = desk.submit(model="grok-video-3")
    desk.wait(0.5)
    waiting = desk.told(video_id)
    assert waiting == {
        "id": video_id,
        "status": "processing",
        "video_url": None,
        "status_update_time": int(desk.clock.now) - 8,
        "progress": 50,
    }
    desk.wait(0.5)
    reply = desk.told(video_id)
    assert (reply["error"], reply["progress"], reply["status"]) == ("", 100, "completed")
    assert reply["completed_at"] == reply["status_update_time"] == int(desk.clock.now)
    assert desk.fetch(reply["thumbnail_url"]).content.startswith(b"\xff\xd8\xff")


def test_other_models_are_generic_and_flat(desk) -> None:
    video_id = desk.submit(model="wan2.2")
    assert desk.told(video_id) == {
        "id": video_id,
        "status": "pending",
        "video_url": None,
        "enhanced_prompt": "",
        "status_update_time": int(desk.clock.now * 1000),
    }


def test_veo_in_the_openai_dialect_has_every_field_and_a_healthy_error(desk) -> None:
    video_id = desk.submit("openai")
    desk.wait(0.5)
    reply = desk.told(video_id, "openai")
    assert reply["error"] == {"message": "", "code": ""}
    assert (reply["status"], reply["progress"]) == ("in_progress", 50)
    assert (reply["completed_at"], reply["video_url"]) == (0, "")
    assert desk.submit("openai") != video_id


def test_the_openai_dialect_goes_from_queued_to_completed(desk) -> None:
    assert words(walk(desk, desk.submit("openai"), "openai")) == ["queued", "in_progress", "completed"]


@pytest.mark.parametrize("model", ["grok-video-3", "wan2.2"])
def test_some_openai_flavours_have_no_url_but_content(desk, model) -> None:
    video_id, reply = desk.finished("openai", model=model)
    assert reply["status"] == "completed"
    assert "http" not in json.dumps(reply)
    assert desk.content(video_id).headers["content-type"] == "video/mp4"


def test_kling_in_the_openai_dialect_has_its_url_in_the_metadata(desk) -> None:
    video_id = desk.submit("openai", model="kling-v2")
    assert desk.told(video_id, "openai")["metadata"] == {"url": ""}
    desk.wait()
    assert desk.fetch(desk.told(video_id, "openai")["metadata"]["url"]).status_code == 200


def test_the_newapi_dialect_tells_its_row(desk) -> None:
    video_id = desk.submit("newapi")
    desk.wait(0.5)
    reply = desk.told(video_id, "newapi")
    row = reply["data"]
    assert (reply["code"], reply["message"]) == ("success", "")
    assert (row["id"], row["task_id"]) == (1, video_id)
    assert (row["status"], row["progress"], row["finish_time"]) == ("IN_PROGRESS", "50%", 0)
    desk.wait(0.5)
    row = desk.told(video_id, "newapi")["data"]
    assert (row["status"], row["progress"]) == ("SUCCESS", "100%")
    assert row["finish_time"] == int(desk.clock.now)
    assert desk.fetch(row["result_url"]).status_code == 200


def test_a_failed_newapi_row_has_its_reason_where_the_url_would_be(desk) -> None:
    _, reply = desk.finished("newapi", prompt="a cat [fail]")
    row = reply["data"]
    assert row["status"] == "FAILURE"
    assert row["fail_reason"] == row["result_url"] == "generation failed: the upstream model gave up"


def test_grok_in_the_newapi_dialect_points_at_the_content_route(desk) -> None:
    _, reply = desk.finished("newapi", model="grok-video-3")
    assert reply["data"]["status"] == "succeeded"
    url = reply["data"]["url"]
    assert url.endswith("/content")
    assert desk.fetch(url).status_code == 401
    assert desk.client.get(url).status_code == 200


def test_upsampling_is_offered_by_veo_only(desk) -> None:
    _, reply = desk.finished(model="wan2.2", enable_upsample=True)
    assert reply["status"] == "completed"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
def test_no_reply_ever_goes_back_in_progress(desk, model, dialect) -> None:
    video_id = desk.submit(dialect, model=model)
    shown = []
    for _ in range(21):
        task = desk.stranger.get("/sandbox/tasks").json()["tasks"][0]
        shown.append(task["progress"])
        desk.told(video_id, dialect)
        desk.wait(0.05)
    assert shown == sorted(shown)
    assert shown[-1] == 100


def test_a_generation_time_of_nothing_is_done_at_once(make_desk) -> None:
    desk = make_desk()
    video_id = desk.submit(prompt="quick [time=0]")
    assert desk.told(video_id)["status"] == "completed"


def test_the_clock_can_be_moved_from_outside(desk) -> None:
    video_id = desk.submit()
    assert desk.stranger.post("/sandbox/clock", json={"advance": 20}).json()["ahead"] == 20
    assert desk.told(video_id)["status"] == "completed"
    assert desk.stranger.post("/sandbox/clock", json={"advance": "x"}).status_code == 400


def test_every_family_has_a_price_and_a_step_for_the_start() -> None:
    assert all(family.cents > 0 and family.steps[0] == (0.0, "pending") for family in FAMILIES)


def test_the_list_has_the_newest_tasks_first_and_twenty_at_most(desk) -> None:
    ids = []
    for number in range(22):
        ids.append(desk.submit("openai", prompt=f"a cat, number {number}"))
        desk.wait(0.01)
    page = desk.client.get("/v1/videos").json()
    assert [task["id"] for task in page["data"]] == ids[:1:-1]
    assert (page["object"], page["first_id"]) == ("list", ids[-1])
    assert desk.stranger.get("/v1/videos").status_code == 401
