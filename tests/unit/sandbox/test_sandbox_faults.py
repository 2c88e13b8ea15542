"""Every row of the fault table does what it says, and is documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.sandbox.faults import ALWAYS, FAULTS, asked_for, mode_from
from airflow_video_provider.sandbox.replies import UNKNOWN_WORD

DOCS = Path(__file__).parents[3] / "docs" / "sandbox.md"

CREATE = {
    # name -> status, what the reply holds, headers
    "moderation": (451, "sentinel_block"),
    "moderation-400": (400, "sentinel_block"),
    "quota": (403, "insufficient_user_quota"),
    "quota-429": (429, "insufficient_user_quota"),
    "rate-limit": (429, None),
    "rate-limit-seconds": (429, "rate_limit_exceeded"),
    "rate-limit-date": (429, "rate_limit_exceeded"),
    "create-500": (500, "do_request_failed"),
    "create-502": (502, "<html>"),
    "create-503": (503, "get_channel_failed"),
    "create-wrapped": (200, '"code":400'),
    "create-drop": (None, None),
    "create-drop-paid": (None, None),
    "create-hang-paid": (200, "veo3.1-fast:"),
    "create-500-paid": (500, "do_request_failed"),
    "create-524-paid": (524, "<html>"),
    "create-html-paid": (200, "<html>"),
    "create-no-id-paid": (200, "{}"),
}
QUERY = {
    "flap": (503, 502, 500),
    "query-html": (200, 200, 200),
    "query-empty": (200, 200, 200),
    "query-wrapped": (500, 500, 500),
    "query-429": (429, 429, 429),
    "query-429-seconds": (429, 429, 429),
    "query-429-date": (429, 429, 429),
    "query-404": (404, 404),
    "query-401": (401, 401, 401, 401, 401),
    "query-drop": (None, None, None),
}
ENDINGS = {"fail": 0.5, "fail-moderation": 1.0, "fail-output": 1.0, "cancelled": 0.5, "expired": 1.0}
OTHERS: dict[str, Callable[[Any], None]] = {}


def claim(name: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    def note(check: Callable[[Any], None]) -> Callable[[Any], None]:
        OTHERS[name] = check
        return check

    return note


def status_of(ask: Callable[[], Any]) -> int | None:
    try:
        return int(ask().status_code)
    except ConnectionResetError:
        return None


@pytest.mark.parametrize("name", CREATE)
@pytest.mark.parametrize("how", ["prompt", "model"])
def test_a_create_fault_answers_so_and_is_paid_only_if_its_name_says_so(desk, name, how) -> None:
    marker = f"{name}=0.01" if name == "create-hang-paid" else name
    order = {"prompt": f"a cat [{marker}]"} if how == "prompt" else {"model": f"veo3.1-fast@{marker}"}
    status, holds = CREATE[name]
    assert status_of(lambda: desk.create(**order)) == status
    if status is not None:
        reply = desk.create(**order)
        assert (holds in reply.text) if holds else reply.content == b""
    paid = name.endswith("-paid")
    assert len(desk.payments()) == (0 if not paid else 1 if status is None else 2)


def test_a_create_fault_happens_as_often_as_asked(desk) -> None:
    order = {"prompt": "a cat [rate-limit=2]"}
    assert [desk.create(**order).status_code for _ in range(4)] == [429, 429, 200, 200]
    assert len(desk.payments()) == 2


def test_a_refusal_in_the_newapi_dialect_has_its_envelope(desk) -> None:
    reply = desk.create("newapi", prompt="a cat [moderation]")
    assert reply.status_code == 451
    assert reply.json()["code"] == "sentinel_block"
    assert reply.json()["data"] is None


@pytest.mark.parametrize("prefix", ["rate-limit", "query-429"])
def test_retry_after_comes_as_nothing_as_seconds_and_as_a_date(desk, prefix) -> None:
    def header(name: str) -> str | None:
        if prefix == "rate-limit":
            return desk.create(prompt=f"[{name}]").headers.get("retry-after")
        return desk.ask(desk.submit(prompt=f"[{name}]")).headers.get("retry-after")

    assert header(prefix) is None
    assert header(f"{prefix}-seconds") == "2"
    date = parsedate_to_datetime(header(f"{prefix}-date") or "")
    assert date == datetime.fromtimestamp(desk.clock.now + 2, UTC)


@pytest.mark.parametrize("name", QUERY)
@pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
def test_a_query_fault_answers_so_and_then_the_task_is_well(desk, name, dialect) -> None:
    video_id = desk.submit(dialect, prompt=f"a cat [{name}]")
    told = [status_of(lambda: desk.ask(video_id, dialect)) for _ in QUERY[name]]
    assert told == list(QUERY[name])
    if asked_for("", f"[{name}]")[name] != ALWAYS:
        assert video_id in desk.ask(video_id, dialect).text
    assert len(desk.payments()) == 1


def test_query_html_and_empty_are_no_json(desk) -> None:
    for name in ("query-html", "query-empty"):
        reply = desk.ask(desk.submit(prompt=f"[{name}]"))
        with pytest.raises(ValueError, match="Expecting value"):
            reply.json()


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("model", ["veo3", "sora-2", "grok-video-3", "kling-v2", "wan2.2"])
@pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
def test_an_ending_comes_at_its_time_with_its_reason(desk, name, model, dialect) -> None:
    video_id = desk.submit(dialect, model=model, prompt=f"a cat [{name}]")
    desk.wait(ENDINGS[name] - 0.01)
    before = desk.told(video_id, dialect)
    desk.wait(0.02)
    after = desk.told(video_id, dialect)
    task = desk.stranger.get("/sandbox/tasks").json()["tasks"][0]
    wanted = "failed" if name.startswith("fail") else name
    assert task["state"] == wanted
    status = (after.get("data") or after)["status"].casefold()
    assert {"failure": "failed"}.get(status, status) == wanted
    assert task["reason"]
    assert task["reason"] in json.dumps(after)
    assert task["reason"] not in json.dumps(before)
    assert ".mp4" not in json.dumps(after)
    assert desk.content(video_id).status_code == 400


@claim("never")
def _never(desk) -> None:
    video_id = desk.submit("openai", prompt="[never]")
    desk.wait(10_000)
    assert desk.told(video_id, "openai")["progress"] == 99


@claim("slow")
def _slow(desk) -> None:
    video_id = desk.submit(prompt="[slow]")
    desk.wait(4.99)
    assert desk.told(video_id)["status"] == "video_generating"
    desk.wait(0.02)
    assert desk.told(video_id)["status"] == "completed"


@claim("time")
def _time(desk) -> None:
    video_id = desk.submit(prompt="[time=3]")
    desk.clock.now += 3
    assert desk.told(video_id)["status"] == "completed"


@claim("unknown-word")
def _unknown_word(desk) -> None:
    for dialect in ("unified", "openai", "newapi"):
        video_id = desk.submit(dialect, prompt="[unknown-word]")
        reply = desk.told(video_id, dialect)
        assert (reply.get("data") or reply)["status"] == UNKNOWN_WORD
        desk.wait()
        assert UNKNOWN_WORD not in desk.ask(video_id, dialect).text


@claim("no-status")
def _no_status(desk) -> None:
    for dialect in ("unified", "openai", "newapi"):
        video_id = desk.submit(dialect, prompt="[no-status]")
        assert '"status"' not in desk.ask(video_id, dialect).text
        desk.wait()
        assert '"status"' in desk.ask(video_id, dialect).text


@claim("url-late")
def _url_late(desk) -> None:
    for dialect in ("unified", "newapi"):
        video_id = desk.submit(dialect, prompt="[url-late=2]")
        desk.ask(video_id, dialect)
        desk.wait()
        assert [".mp4" in desk.ask(video_id, dialect).text for _ in range(3)] == [False, False, True]


@claim("url-lost")
def _url_lost(desk) -> None:
    for dialect in ("unified", "openai", "newapi"):
        for model in ("veo3", "sora-2", "grok-video-3", "kling-v2", "wan2.2"):
            video_id, reply = desk.finished(dialect, model=model, prompt="[url-lost]")
            assert "http" not in json.dumps(reply)
            assert desk.content(video_id).status_code == 200


@claim("url-gone")
def _url_gone(desk) -> None:
    video_id, reply = desk.finished(prompt="[url-gone]")
    assert reply["status"] == "completed"
    assert "http" not in json.dumps(reply)
    assert desk.content(video_id).status_code == 404


@claim("url-expires")
def _url_expires(desk) -> None:
    video_id, reply = desk.finished(prompt="[url-expires=5]")
    assert desk.fetch(reply["video_url"]).status_code == 200
    desk.clock.now += 6
    assert desk.fetch(reply["video_url"]).status_code == 403
    assert desk.fetch(desk.told(video_id)["video_url"]).status_code == 200


@claim("url-in-fail-reason")
def _url_in_fail_reason(desk) -> None:
    _, reply = desk.finished("newapi", prompt="[url-in-fail-reason]")
    row = reply["data"]
    assert (row["status"], row["result_url"]) == ("SUCCESS", "")
    assert desk.fetch(row["fail_reason"]).status_code == 200


@claim("data-url")
def _data_url(desk) -> None:
    assert desk.finished(prompt="[data-url]")[1]["video_url"].startswith("data:video/mp4;base64,AAAA")


@claim("content-url")
def _content_url(desk) -> None:
    _, reply = desk.finished(prompt="[content-url]")
    assert desk.fetch(reply["video_url"]).status_code == 401
    assert desk.client.get(reply["video_url"]).status_code == 200


@claim("videos")
def _videos(desk) -> None:
    for dialect in ("unified", "openai", "newapi"):
        for model in ("veo3", "grok-video-3", "kling-v2"):
            _, reply = desk.finished(dialect, model=model, prompt="a fox [videos=3]")
            if dialect == "newapi":
                listed = [video["url"] for video in reply["data"]["data"]["task_result"]["videos"]]
                assert listed[0] == reply["data"]["result_url"]
            else:
                listed = reply["video_urls"]
                assert listed[0] == reply["video_url"]
            assert len({desk.fetch(url).content for url in listed}) == len(listed) == 3
    assert len(desk.finished(prompt="[videos=1000]")[1]["video_urls"]) == 8
    assert "video_urls" not in desk.finished(prompt="[videos=1]")[1]


@claim("cdn-403")
def _cdn_403(desk) -> None:
    _, reply = desk.finished(prompt="[cdn-403]")
    assert desk.fetch(reply["video_url"]).status_code == 403


@claim("cdn-404")
def _cdn_404(desk) -> None:
    video_id, reply = desk.finished(prompt="[cdn-404=1]")
    assert [desk.fetch(reply["video_url"]).status_code for _ in range(2)] == [404, 200]
    assert desk.content(video_id).status_code == 200


@claim("cdn-500")
def _cdn_500(desk) -> None:
    _, reply = desk.finished(prompt="[cdn-500=3]")
    assert [desk.fetch(reply["video_url"]).status_code for _ in range(4)] == [500, 502, 503, 200]


@claim("cdn-drop")
def _cdn_drop(desk) -> None:
    _, reply = desk.finished(prompt="[cdn-drop=1]")
    assert [status_of(lambda: desk.fetch(reply["video_url"])) for _ in range(2)] == [None, 200]


@claim("cdn-redirect")
def _cdn_redirect(desk) -> None:
    for model in ("veo3", "kling-v2"):
        _, reply = desk.finished(model=model, prompt="[cdn-redirect]")
        hop = desk.fetch(reply["video_url"])
        assert hop.status_code == 302
        assert desk.fetch(hop.headers["location"]).headers["content-type"] == "video/mp4"


@claim("content-json")
def _content_json(desk) -> None:
    video_id, _ = desk.finished("openai", prompt="[content-json]")
    reply = desk.content(video_id).json()
    assert desk.fetch(reply["url"]).status_code == 200


@claim("content-redirect")
def _content_redirect(desk) -> None:
    video_id, _ = desk.finished("openai", prompt="[content-redirect]")
    reply = desk.content(video_id)
    assert reply.status_code == 302
    assert desk.fetch(reply.headers["location"]).status_code == 200


@claim("truncated")
def _truncated(desk) -> None:
    _, reply = desk.finished(prompt="[truncated=1]")
    assert [status_of(lambda: desk.fetch(reply["video_url"])) for _ in range(2)] == [None, 200]


@claim("short")
def _short(desk) -> None:
    _, good = desk.finished()
    _, reply = desk.finished(prompt="a cat [short]")
    half = desk.fetch(reply["video_url"])
    assert int(half.headers["content-length"]) == len(half.content)
    assert len(half.content) < len(desk.fetch(good["video_url"]).content) * 0.6


@claim("wrong-type")
def _wrong_type(desk) -> None:
    _, reply = desk.finished(prompt="[wrong-type]")
    assert desk.fetch(reply["video_url"]).headers["content-type"].startswith("text/plain")


@claim("not-a-video")
def _not_a_video(desk) -> None:
    _, reply = desk.finished(prompt="[not-a-video]")
    fetched = desk.fetch(reply["video_url"])
    assert (fetched.status_code, fetched.text[:6]) == (200, "<html>")


@claim("no-length")
def _no_length(desk) -> None:
    _, reply = desk.finished(prompt="[no-length]")
    fetched = desk.stranger.send(desk.stranger.build_request("GET", reply["video_url"]), stream=True)
    assert "content-length" not in fetched.headers


@claim("no-range")
def _no_range(desk) -> None:
    _, reply = desk.finished(prompt="[no-range]")
    fetched = desk.fetch(reply["video_url"], range="bytes=0-9")
    assert (fetched.status_code, fetched.headers["accept-ranges"]) == (200, "none")


@claim("slow-bytes")
def _slow_bytes(desk) -> None:
    _, good = desk.finished()
    _, reply = desk.finished(prompt="[slow-bytes=0.1]")
    assert len(desk.fetch(reply["video_url"]).content) > 10_000
    assert desk.fetch(good["video_url"]).status_code == 200


@claim("big")
def _big(desk) -> None:
    _, reply = desk.finished(prompt="[big=3]")
    assert 3 * 2**20 < len(desk.fetch(reply["video_url"]).content) < 4 * 2**20
    tail = desk.fetch(reply["video_url"], range="bytes=-10")
    assert tail.content == bytes(10)


@pytest.mark.parametrize("name", OTHERS)
def test_a_fault_does_what_its_row_says(desk, name) -> None:
    OTHERS[name](desk)
    assert desk.payments()


def test_every_row_of_the_table_is_exercised_here() -> None:
    assert {*CREATE, *QUERY, *ENDINGS, *OTHERS} == {fault.name for fault in FAULTS}


def test_every_row_of_the_table_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    missing = [fault.name for fault in FAULTS if f"| `{fault.name}` | {fault.text} |" not in text]
    assert missing == []


def test_faults_can_be_combined_and_ordinary_brackets_are_none() -> None:
    assert asked_for("veo3@slow=2@nonsense", "[flap=always] [a cat] [1] [fail=x]") == {
        "slow": 2,
        "flap": ALWAYS,
        "fail": ALWAYS,
    }


def test_a_model_suffix_does_not_show_in_the_id_nor_in_the_reply(desk) -> None:
    video_id, reply = desk.finished("openai", model="veo3.1-fast@slow=1")
    assert "slow" not in video_id
    assert reply["model"] == "veo3.1-fast"


# --- the whole gateway --------------------------------------------------------------------------------


def switch(desk, **mode: Any) -> None:
    assert desk.stranger.post("/sandbox/faults", json=mode).status_code == 200


def test_a_mode_hits_one_stage_as_often_as_asked(desk) -> None:
    video_id = desk.submit()
    switch(desk, query=503, times=2)
    assert desk.create().status_code == 200
    assert [desk.ask(video_id).status_code for _ in range(3)] == [503, 503, 200]


def test_a_gateway_that_is_down_is_down_everywhere_until_it_is_cleared(desk) -> None:
    video_id, reply = desk.finished()
    switch(desk, down=True)
    everything = (lambda: desk.ask(video_id), desk.create, lambda: desk.content(video_id),
                  lambda: desk.fetch(reply["video_url"]))  # fmt: skip
    assert [ask().status_code for ask in everything] == [502] * 4
    assert len(desk.payments()) == 1
    desk.stranger.delete("/sandbox/faults")
    assert [ask().status_code for ask in everything] == [200] * 4


def test_a_mode_can_drop_answer_html_and_name_a_time_to_retry(desk) -> None:
    video_id = desk.submit()
    switch(desk, query="drop", create=429, content="html", retry_after=7)
    assert status_of(lambda: desk.ask(video_id)) is None
    assert desk.create().headers["retry-after"] == "7"
    assert desk.content(video_id).text.startswith("<html>")


def test_a_mode_can_hold_every_reply_back(desk) -> None:
    switch(desk, delay=0.01)
    assert desk.create().status_code == 200


@pytest.mark.parametrize(
    "body",
    [[], {"querry": 503}, {"query": 42}, {"query": True}, {"query": "explode"}, {"times": 0}, {"times": "5"},
     {"delay": -1}],
    ids=str,
)  # fmt: skip
def test_a_mistyped_mode_is_refused_by_name(desk, body) -> None:
    reply = desk.stranger.post("/sandbox/faults", content=json.dumps(body))
    assert reply.status_code == 400
    assert all(name in reply.json()["error"] for name in body)


def test_the_table_and_the_mode_can_be_read(desk) -> None:
    told = desk.stranger.get("/sandbox/faults").json()
    assert len(told["table"]) == len(FAULTS)
    assert told["mode"] == {"rules": {}, "times": None, "retry_after": "", "delay": 0.0}


def test_a_mode_without_times_lasts() -> None:
    mode = mode_from({"query": 503})
    assert [mode.strike("query") for _ in range(20)] == [503] * 20
    assert mode.strike("create") is None
