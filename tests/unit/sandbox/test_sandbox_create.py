"""Create calls: what is accepted and paid, and what is turned down before it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

DIALECTS = ("unified", "openai", "newapi")
MODELS = ("veo3.1-fast", "sora-2", "grok-video-3", "kling-v2", "wan2.2")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_accepted_in_every_dialect_and_its_reply_holds_the_id(desk, dialect, model) -> None:
    video_id = desk.submit(dialect, model=model)
    assert desk.ask(video_id, dialect).status_code == 200


@pytest.mark.parametrize("model", MODELS)
def test_a_task_can_be_asked_for_through_every_dialect(desk, model) -> None:
    video_id = desk.submit("newapi", model=model)
    assert all(desk.ask(video_id, dialect).status_code == 200 for dialect in DIALECTS)


def test_a_create_is_a_payment(desk) -> None:
    video_id = desk.submit(model="sora-2", prompt="a dog")
    ledger = desk.stranger.get("/sandbox/payments").json()
    assert ledger == {
        "count": 1,
        "total": 0.15,
        "currency": "USD",
        "balance": None,
        "payments": [
            {
                "time": desk.clock.now,
                "video_id": video_id,
                "model": "sora-2",
                "prompt": "a dog",
                "dialect": "unified",
                "amount": 0.15,
            }
        ],
    }


def test_a_second_create_is_a_second_payment(desk) -> None:
    first, second = desk.submit(), desk.submit()
    assert first != second
    assert len(desk.payments()) == 2


def test_payments_are_reset_on_request(desk) -> None:
    desk.submit()
    assert desk.stranger.delete("/sandbox/payments").json()["count"] == 0
    assert desk.payments() == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "body",
    [{"prompt": ""}, {"prompt": "  "}, {"prompt": None}, {"prompt": 7}, {"model": ""}, {"model": None}],
    ids=str,
)
def test_an_order_without_prompt_or_model_is_a_400_and_costs_nothing(desk, dialect, body) -> None:
    reply = desk.create(dialect, **body)
    assert reply.status_code == 400
    told = reply.json().get("error") or reply.json()
    assert told["code"] == "invalid_request"
    assert "required" in told["message"]
    assert desk.payments() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object_is_a_400(desk, content) -> None:
    assert desk.client.post("/v1/video/create", content=content).status_code == 400
    assert desk.payments() == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_unknown_model_is_new_apis_503_and_costs_nothing(desk, dialect) -> None:
    reply = desk.create(dialect, model="no-such-model")
    assert reply.status_code == 503
    assert (reply.json().get("error") or reply.json())["code"] == "model_not_found"
    assert desk.payments() == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "sandbox-key", "Basic sandbox-key"])
def test_a_bad_key_is_a_401_and_costs_nothing(desk, dialect, header) -> None:
    route = {"unified": "/v1/video/create", "openai": "/v1/videos", "newapi": "/v1/video/generations"}
    headers = {} if header is None else {"Authorization": header}
    order = {"model": "veo3", "prompt": "a"}
    reply = desk.stranger.post(route[dialect], json=order, headers=headers)
    assert reply.status_code == 401
    error = reply.json()["error"]
    assert error["message"].startswith("无效的令牌 (request id: ")
    assert {key: error[key] for key in ("type", "code")} == {"type": "new_api_error", "code": ""}
    assert desk.payments() == []


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("unified", {"images": "https://x.test/a.png"}),
        ("unified", {"enable_upsample": "yes"}),
        ("unified", {"aspect_ratio": "4:3"}),
        ("unified", {"model": "veo3.1-frames", "images": ["a", "b", "c"]}),
        ("unified", {"model": "veo3-pro-frames", "images": ["a", "b"]}),
        ("unified", {"model": "sora-2", "duration": 12}),
        ("unified", {"model": "sora-2", "duration": "10"}),
        ("unified", {"model": "sora-2", "duration": True}),
        ("unified", {"model": "sora-2", "orientation": "sideways"}),
        ("unified", {"model": "grok-video-3", "aspect_ratio": "16:9"}),
        ("openai", {"seconds": 8}),
        ("openai", {"seconds": "eight"}),
        ("openai", {"size": "large"}),
        ("openai", {"input_reference": "not a link"}),
        ("newapi", {"duration": "5"}),
        ("newapi", {"metadata": "x"}),
    ],
    ids=str,
)
def test_a_field_of_the_wrong_kind_is_named_and_costs_nothing(desk, dialect, body) -> None:
    reply = desk.create(dialect, **body)
    assert reply.status_code == 400
    field = next(name for name in reversed(body))
    assert field in (reply.json().get("error") or reply.json())["message"]
    assert desk.payments() == []


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("unified", {"images": ["https://x.test/a.png"], "enhance_prompt": True, "enable_upsample": True}),
        ("unified", {"model": "sora-2", "duration": 15, "size": "large", "orientation": "portrait"}),
        ("unified", {"model": "grok-video-3", "aspect_ratio": "2:3", "size": "720P"}),
        ("unified", {"model": "kling-v2", "duration": 7, "camera": {"pan": 3}}),
        ("openai", {"seconds": "8", "size": "720x1280", "input_reference": "https://x.test/a.png"}),
        ("newapi", {"duration": 5, "metadata": {"seed": 1}, "image": "https://x.test/a.png"}),
    ],
    ids=str,
)
def test_what_the_documents_allow_is_accepted_and_remembered(desk, dialect, body) -> None:
    desk.submit(dialect, **body)
    task = desk.stranger.get("/sandbox/tasks").json()["tasks"][-1]
    assert task["body"] | body == task["body"]


def test_a_reference_file_arrives_in_a_multipart_body(desk) -> None:
    image = bytes(range(256)) * 40 + b"\r\n--\r\n"
    reply = desk.client.post(
        "/v1/videos",
        data={"model": "sora-2", "prompt": "猫 – a cat", "seconds": "10", "size": "1280x720"},
        files={"input_reference": ("first frame.png", image, "image/png")},
    )
    assert reply.status_code == 200
    task = desk.stranger.get("/sandbox/tasks").json()["tasks"][-1]
    assert task["prompt"] == "猫 – a cat"
    assert task["body"]["input_reference"] == {
        "filename": "first frame.png",
        "content_type": "image/png",
        "bytes": len(image),
    }


def test_a_multipart_body_without_a_boundary_is_a_400(desk) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    assert desk.client.post("/v1/videos", content=b"x", headers=headers).status_code == 400


def test_an_image_in_base64_is_not_kept_nor_echoed(desk) -> None:
    video_id = desk.submit(images=["data:image/png;base64," + "A" * 1_000_000])
    assert len(desk.ask(video_id).content) < 5_000
    assert len(desk.stranger.get("/sandbox/tasks").content) < 5_000


def test_the_balance_is_spent_and_then_refused(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(balance=0.75)
    desk.submit()
    desk.submit()
    reply = desk.create()
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "insufficient_user_quota"
    ledger = desk.stranger.get("/sandbox/payments").json()
    assert (ledger["count"], ledger["total"], ledger["balance"]) == (2, 0.7, 0.05)


def test_one_seed_gives_the_same_ids(make_desk: Callable[..., Any]) -> None:
    one, other = make_desk(), make_desk()
    assert [one.submit() for _ in range(3)] == [other.submit() for _ in range(3)]


@pytest.mark.parametrize(
    ("model", "pattern"),
    [("veo3.1-fast", "veo3.1-fast:1770350082-"), ("sora-2", "sora-2:task_01"), ("grok-video-3", "grok:"),
     ("kling-v2", "kling/kling-v2:")],
)  # fmt: skip
def test_ids_look_like_those_of_the_gateways(desk, model, pattern) -> None:
    assert desk.submit(model=model).startswith(pattern)


def test_an_id_with_a_slash_must_be_one_percent_encoded_segment(desk) -> None:
    video_id = desk.submit("openai", model="kling-v2")
    assert "/" in video_id
    assert desk.ask(video_id, "openai").status_code == 200
    bare = desk.client.get(f"/v1/videos/{video_id}")
    assert bare.status_code == 404
    assert bare.json()["error"]["message"].startswith("Invalid URL (GET /v1/videos/kling/")


@pytest.mark.parametrize(("dialect", "status"), [("unified", 400), ("newapi", 400), ("openai", 404)])
def test_an_unknown_id_does_not_exist(desk, dialect, status) -> None:
    reply = desk.ask("veo3.1-fast:1-none", dialect)
    assert reply.status_code == status
    assert "task_not_exist" in reply.text


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/nothing"), ("POST", "/v1/video/query"), ("GET", "/v1/videos/"),
     ("GET", "/v1/videos/a/b/c"), ("PUT", "/v1/videos/a"), ("GET", "/v1/video/generations/a/content"),
     ("GET", "/v1/video/create/")],
)  # fmt: skip
def test_an_unknown_route_is_an_invalid_url(desk, method, path) -> None:
    reply = desk.client.request(method, path)
    assert reply.status_code == 404
    assert reply.json() == {
        "error": {
            "message": f"Invalid URL ({method} {path})",
            "type": "invalid_request_error",
            "param": "",
            "code": "",
        }
    }


def test_a_prefix_stands_before_the_gateways_routes_only(make_desk: Callable[..., Any]) -> None:
    desk = make_desk(prefix="/relay")
    for dialect in DIALECTS:
        video_id = desk.submit(dialect, model="kling-v2")
        desk.wait()
        assert desk.ask(video_id, dialect).status_code == 200
        assert desk.content(video_id).status_code == 200
    assert desk.client.get("/v1/video/query?id=x").status_code == 404
    assert "/relay/v1/videos/" in desk.finished("newapi", model="grok-video-3")[1]["data"]["url"]
