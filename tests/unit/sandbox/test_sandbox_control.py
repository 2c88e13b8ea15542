"""The request log and the status page."""

from __future__ import annotations

import json
import re

import pytest

from airflow_video_provider.sandbox.faults import FAULTS


def test_the_request_log_tells_who_asked_what_and_never_the_key(desk) -> None:
    video_id = desk.submit("openai", model="kling-v2")
    desk.ask(video_id, "openai")
    desk.stranger.get("/v1/videos/x?key=sandbox-key")
    desk.client.get("/v1/nothing")
    log = desk.stranger.get("/sandbox/requests").json()["requests"]
    assert [(entry["method"], entry["status"], entry["authorised"]) for entry in log] == [
        ("POST", 200, True),
        ("GET", 200, True),
        ("GET", 401, False),
        ("GET", 404, None),
    ]
    assert log[2]["path"] == "/v1/videos/x?key=***"
    assert "sandbox-key" not in json.dumps(log)
    assert desk.stranger.delete("/sandbox/requests").json()["requests"] == []


def test_the_request_log_is_bounded(desk) -> None:
    for _ in range(1_005):
        desk.stranger.get("/v1/nothing")
    assert len(desk.stranger.get("/sandbox/requests").json()["requests"]) == 1_000


def test_a_dropped_request_is_in_the_log_without_a_status(desk) -> None:
    with pytest.raises(ConnectionResetError):
        desk.create(prompt="[create-drop]")
    assert desk.stranger.get("/sandbox/requests").json()["requests"][0]["status"] is None


def test_the_page_shows_tasks_payments_faults_and_the_connection(desk) -> None:
    desk.submit(prompt="a running cat")
    desk.wait()
    page = desk.stranger.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "a running cat" in page.text
    assert "Payments: 1, 0.35 USD" in page.text
    assert all(f"<code>[{fault.name}]</code>" in page.text for fault in FAULTS)
    assert "AIRFLOW_CONN_VIDEO_DEFAULT" in page.text
    link = re.search(r'href="([^"]+\.mp4[^"]*)"', page.text)
    assert link is not None
    assert desk.fetch(link[1].replace("&amp;", "&")).status_code == 200


def test_the_page_shows_a_double_payment_a_leak_and_a_mode(desk) -> None:
    for _ in range(2):
        _, reply = desk.finished()
    desk.client.get(reply["video_url"])
    desk.stranger.post("/sandbox/faults", json={"query": 503})
    page = desk.stranger.get("/").text
    assert "paid 2 times" in page
    assert "carried a key" in page
    assert "The whole gateway is in a mode" in page


def test_the_page_escapes_what_users_write(desk) -> None:
    attack = "<script>alert(1)</script>\"'&"
    desk.submit(prompt=attack, model="veo3<b>")
    page = desk.stranger.get("/").text
    assert "<script>alert" not in page
    assert "veo3<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_loads_nothing_from_elsewhere(desk) -> None:
    page = desk.stranger.get("/")
    assert not re.search(r'(src|href)="(https?:)?//(?!gateway\.test)', page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_control_routes_need_no_key(desk) -> None:
    for path in ("payments", "requests", "leaks", "faults", "tasks", "clock"):
        assert desk.stranger.get(f"/sandbox/{path}").status_code == 200
