"""Any reply that is an error, and any fault of the transport, is one typed error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_video_provider.gateway import (
    AuthenticationError,
    ErrorKind,
    GatewayError,
    InvalidRequestError,
    ModerationError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    ServerError,
    TransportError,
    UnreadableReplyError,
    error_from_reply,
)
from airflow_video_provider.gateway.errors import error_from_transport, wrapped_error

#: A machine under load is no fault of the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

WIRE = Path(__file__).resolve().parents[2] / "data" / "wire"
NOW = datetime(2026, 2, 6, 3, 54, 42, tzinfo=UTC)
PAGE = "<html>\r\n<head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"


def openai(message: str, code: object = "", kind: str = "") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def newapi(code: object, message: str = "words") -> dict[str, Any]:
    return {"code": code, "message": message, "data": None}


def error_of(
    status: int, body: object = b"", headers: Mapping[str, str] | None = None, now: datetime = NOW
) -> GatewayError:
    if isinstance(body, str):
        body = body.encode()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_from_reply(status, headers or {}, content, now=now)


def example(name: str) -> Any:
    return json.loads((WIRE / f"{name}.json").read_text(encoding="utf-8"))


@dataclass
class Row:
    """One line of the contract's table of errors."""

    status: int
    body: object
    kind: str
    code: str | None = None
    retry_after: float | None = None
    retryable: bool = False
    maybe_accepted: bool = False
    headers: dict[str, str] = field(default_factory=dict)


FINAL: dict[str, Row] = {
    "400 is a wrong request": Row(400, openai("no such size"), "invalid_request"),
    "422 is a wrong request": Row(422, {"detail": "prompt: field required"}, "invalid_request"),
    "an unknown id is a 400 on new-api": Row(
        400, example("error_400_task_not_exist_newapi"), "not_found", "task_not_exist"
    ),
    "content that is not ready is a wrong request": Row(
        400, example("error_400_content_not_completed_newapi"), "invalid_request", "invalid_request_error"
    ),
    "401 is a bad key": Row(
        401, example("error_401_invalid_token_newapi"), "authentication", "new_api_error"
    ),
    "401 without words is a bad key": Row(401, b"", "authentication"),
    "402 is no balance": Row(402, b"", "quota"),
    "403 insufficient_user_quota is no balance": Row(
        403, newapi("insufficient_user_quota"), "quota", "insufficient_user_quota"
    ),
    "403 余额不足 is no balance": Row(403, openai("用户余额不足"), "quota"),
    "403 额度不足 is no balance": Row(403, {"error": "用户额度不足, 剩余额度: $0.000000"}, "quota"),
    "403 is forbidden": Row(403, {"detail": "Forbidden"}, "invalid_request"),
    "404 is an unknown task": Row(404, newapi("task_not_exist"), "not_found", "task_not_exist"),
    "404 is an unknown route": Row(404, PAGE.format("404 Not Found"), "not_found"),
    "429 insufficient_user_quota is no balance, not a rate limit": Row(
        429, newapi("insufficient_user_quota"), "quota", "insufficient_user_quota"
    ),
    "451 is moderation": Row(451, b"", "moderation"),
    "451 is moderation even where it says try again later": Row(
        451, newapi("sentinel_block", "please try again later"), "moderation", "sentinel_block"
    ),
    "400 sentinel_block is moderation": Row(400, newapi("sentinel_block"), "moderation", "sentinel_block"),
    "403 moderation_blocked is moderation": Row(
        403, openai("no", "moderation_blocked"), "moderation", "moderation_blocked"
    ),
    "500 moderation_blocked is moderation": Row(
        500, openai("no", "moderation_blocked"), "moderation", "moderation_blocked"
    ),
    "418 is a wrong request": Row(418, b"", "invalid_request"),
}
RETRYABLE: dict[str, Row] = {
    "429 is a rate limit": Row(429, openai("slow down", "rate_limit"), "rate_limit", "rate_limit"),
    "429 may be empty": Row(429, b"", "rate_limit"),
    "429 may say how long": Row(429, b"", "rate_limit", headers={"Retry-After": "7"}, retry_after=7.0),
    "500 of new-api's fetch": Row(
        500, example("error_fail_to_fetch_task_newapi"), "server", "fail_to_fetch_task", maybe_accepted=True
    ),
    "503 may say how long": Row(
        503, b"", "server", headers={"retry-after": "30"}, retry_after=30.0, maybe_accepted=True
    ),
    "503 model_not_found was not accepted": Row(503, newapi("model_not_found"), "server", "model_not_found"),
    "503 get_channel_failed was not accepted": Row(
        503, openai("no luck", "get_channel_failed"), "server", "get_channel_failed"
    ),
    "408 is a proxy's timeout": Row(408, b"", "server", maybe_accepted=True),
    **{
        f"{status} in HTML is a failure without a verdict": Row(
            status, PAGE.format(f"{status} nginx"), "server", maybe_accepted=True
        )
        for status in (500, 502, 503, 504, 524)
    },
}
TABLE = {
    **FINAL,
    **{claim: Row(**{**vars(row), "retryable": True}) for claim, row in RETRYABLE.items()},
}


class TestTable:
    @pytest.mark.parametrize("claim", TABLE)
    def test_says(self, claim: str) -> None:
        row = TABLE[claim]
        error = error_of(row.status, row.body, row.headers)
        assert {
            "kind": str(error.kind),
            "retryable": error.retryable,
            "retry_after": error.retry_after,
            "code": error.code,
            "maybe_accepted": error.maybe_accepted,
            "status": error.status_code,
        } == {
            "kind": row.kind,
            "retryable": row.retryable,
            "retry_after": row.retry_after,
            "code": row.code,
            "maybe_accepted": row.maybe_accepted,
            "status": row.status,
        }

    def test_each_kind_has_its_class(self) -> None:
        classes = {
            AuthenticationError: "authentication",
            QuotaError: "quota",
            RateLimitError: "rate_limit",
            NotFoundError: "not_found",
            ModerationError: "moderation",
            InvalidRequestError: "invalid_request",
            ServerError: "server",
            TransportError: "transport",
            UnreadableReplyError: "unreadable",
        }
        assert {str(error.kind): error for error in classes} == {
            name: error for error, name in classes.items()
        }
        assert set(classes.values()) == set(ErrorKind)
        assert {error for error in classes if error.retryable} == {
            RateLimitError,
            ServerError,
            TransportError,
            UnreadableReplyError,
        }


class TestNotFound:
    @pytest.mark.parametrize(
        "body", [openai("video service not found"), newapi("x1", "task queue not found"), "video not found"]
    )
    @pytest.mark.parametrize("status", [500, 502, 503])
    def test_a_failing_gateway_is_not_believed_that_a_paid_task_is_gone(
        self, status: int, body: object
    ) -> None:
        assert error_of(status, body).kind == "server"

    def test_a_500_with_the_code_of_an_unknown_task_is_one(self) -> None:
        assert error_of(500, newapi("task_not_exist")).kind == "not_found"

    @pytest.mark.parametrize(
        "body", [openai("record not found"), {"error": "Record not found."}, "record not found"]
    )
    def test_a_500_that_says_no_more_than_that_a_row_is_missing_is_an_unknown_task(
        self, body: object
    ) -> None:
        """MiniMax says so of an unknown id. Of a create it proves nothing, so that one is not sent again."""
        error = error_of(500, body)
        assert isinstance(error, NotFoundError)
        assert not error.no_such_route
        assert error.maybe_accepted

    @pytest.mark.parametrize("words", ["channel record not found", "record not found in cache, retrying"])
    def test_a_500_that_misses_something_else_is_asked_again(self, words: str) -> None:
        assert error_of(500, openai(words)).retryable

    @pytest.mark.parametrize(
        "body",
        [openai("The model `sora-9` does not exist", 404), openai("no", "model_not_found")],
    )
    @pytest.mark.parametrize("status", [400, 404])
    def test_an_unknown_model_is_a_wrong_request_and_no_missing_task(self, status: int, body: object) -> None:
        error = error_of(status, body)
        assert error.kind == "invalid_request"
        assert "task" not in str(error)

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (400, newapi("task_not_exist", "task_not_exist")),
            (404, openai("Video with id 'video_x' not found", "not_found")),
            (404, {"detail": "task not found"}),
            (410, openai("", "video_not_found")),
        ],
    )
    def test_an_unknown_task_is_told_from_an_unknown_route(self, status: int, body: object) -> None:
        error = error_of(status, body)
        assert isinstance(error, NotFoundError)
        assert not error.no_such_route
        assert "no such task" in str(error)

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (404, PAGE.format("404 Not Found")),
            (404, b""),
            (404, b"404 page not found"),
            (404, openai("Invalid URL (GET /v9/video/query)", "", "invalid_request_error")),
            (405, b""),
        ],
    )
    def test_an_unknown_route_is_told_from_an_unknown_task(self, status: int, body: object) -> None:
        error = error_of(status, body)
        assert isinstance(error, NotFoundError)
        assert error.no_such_route
        assert "no such route" in str(error)


class TestMessage:
    @pytest.mark.parametrize(
        "body",
        [
            openai("the words"),
            newapi("x1", "the words"),
            {"code": 400, "msg": "the words"},
            {"error": "the words"},
            {"detail": "the words"},
            {"fail_reason": "the words"},
            {"error_message": "the words"},
            json.dumps("the words"),
            "the words",
            PAGE.format("the words"),
        ],
    )
    def test_is_the_gateways_own_in_every_envelope(self, body: object) -> None:
        assert error_of(500, body).message == "the words"

    @pytest.mark.parametrize("body", [b"", {}, [], 7, "null", b" \n"])
    def test_is_ours_where_the_gateway_has_none(self, body: object) -> None:
        assert error_of(502, body).message == "the gateway answered 502 and no words"

    def test_says_what_it_means_and_where_it_was_said(self) -> None:
        error = error_of(403, newapi("insufficient_user_quota", "余额不足"))
        assert str(error) == "no balance left: 余额不足 (HTTP 403, code insufficient_user_quota)"

    def test_is_short(self) -> None:
        assert len(error_of(500, openai("x" * 100_000)).message) == 500
        assert len(error_of(500, "x" * 100_000).message) <= 500

    def test_can_be_written_to_any_log(self) -> None:
        body = b'{"error": {"message": "half \\ud800", "code": "c\\udfff"}}'
        assert str(error_of(500, body)).encode()

    def test_a_url_in_it_loses_its_query(self) -> None:
        told = str(error_of(500, newapi("e", 'Post "https://up.example/v1?key=SECRET": EOF')))
        assert "SECRET" not in told
        assert 'Post "https://up.example/v1": EOF' in told

    @pytest.mark.parametrize("code", ["", 0, "0", None, 200, 1000, "success", True, {}, []])
    def test_a_code_that_says_nothing_is_none(self, code: object) -> None:
        assert error_of(500, newapi(code)).code is None

    @pytest.mark.parametrize(("code", "text"), [(1301, "1301"), ("e1", "e1"), (" e1 ", "e1")])
    def test_a_code_is_text(self, code: object, text: str) -> None:
        assert error_of(500, newapi(code)).code == text

    def test_a_type_stands_in_for_a_missing_code(self) -> None:
        assert error_of(500, openai("m", "", "overloaded")).code == "overloaded"


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("7", 7.0),
            (" 7 ", 7.0),
            ("0", 0.0),
            ("1.5", 1.5),
            ("-3", 0.0),
            ("99999999", 3600.0),
            (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
            (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
            ("Fri, 06 Feb 2026 11:55:42 +0800", 60.0),
            ("Fri, 06 Feb 2026 03:55:42", 60.0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ],
    )
    def test_is_seconds_or_a_date(self, value: str, seconds: float) -> None:
        for name in ("Retry-After", "retry-after", "RETRY-AFTER"):
            assert error_of(429, headers={name: value}).retry_after == seconds

    @pytest.mark.parametrize(
        "value",
        ["", "soon", "nan", "Mon, 99 Foo 2026", "Fri, 06 Feb 99999999999999999999 00:00:00 GMT",
         "Fri, 06 Feb 2026 03:55:42 +99999999999999", "2026-02-06T03:55:42Z", "1,2", "明天", ","],
    )  # fmt: skip
    def test_rubbish_is_none(self, value: str) -> None:
        assert error_of(429, headers={"Retry-After": value}).retry_after is None

    def test_is_read_from_the_headers_of_a_reply(self) -> None:
        assert error_of(429, headers=httpx.Headers({"retry-after": "3"})).retry_after == 3.0

    def test_a_date_is_counted_from_the_present(self) -> None:
        past = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
        assert error_from_reply(429, {"Retry-After": past}, b"").retry_after == 0.0


class TestAnyReply:
    @given(
        status=st.integers(min_value=300, max_value=999),
        content=st.binary(max_size=200)
        | st.text(max_size=100).map(str.encode)
        | st.sampled_from(
            [b"[" * 100_000, b'{"a":' * 50_000, b"<html", b"<title>" * 50, b"\xff\xfe{", b"1e999"]
        ),
        retry_after=st.text(max_size=40),
    )
    @settings(PATIENT, max_examples=200)
    def test_is_an_error_and_never_raises(self, status: int, content: bytes, retry_after: str) -> None:
        error = error_from_reply(status, {"Retry-After": retry_after, "X-Any": retry_after}, content)
        assert error.status_code == status
        assert error.message.strip()
        assert len(error.message) <= 500
        assert error.retry_after is None or 0 <= error.retry_after <= 3600
        assert str(error).encode()
        assert error.kind in ErrorKind

    json_bodies = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "message", "code", "type", "detail", "msg", "data", "id", "status"]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=15,
    )

    @given(status=st.sampled_from([200, 400, 401, 403, 404, 429, 451, 500, 503]), body=json_bodies)
    @settings(PATIENT, max_examples=200)
    def test_in_json_is_an_error_whatever_its_shape(self, status: int, body: Any) -> None:
        error = error_of(status, body)
        assert str(error).encode()
        assert error.code is None or error.code
        if status in {401, 403, 404, 429}:
            assert not error.maybe_accepted
        wrapped = wrapped_error(body, headers={})
        assert wrapped is None or str(wrapped).encode()


class TestWrappedIn200:
    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ({"code": 400, "msg": "wrong"}, "invalid_request"),
            ({"code": "401", "message": "无效的令牌"}, "authentication"),
            ({"code": 429, "msg": "slow down"}, "rate_limit"),
            ({"code": 500, "msg": "oops"}, "server"),
            ({"code": "task_not_exist", "message": "task_not_exist", "data": None}, "not_found"),
            ({"code": "insufficient_user_quota", "message": "no"}, "quota"),
            ({"code": "whatever", "message": "no"}, "server"),
            ({"error": {"message": "no", "code": "moderation_blocked"}}, "moderation"),
            ({"error": "用户余额不足"}, "quota"),
        ],
    )
    def test_an_error_is_seen(self, body: dict[str, Any], kind: str) -> None:
        error = wrapped_error(body, headers={})
        assert error is not None
        assert str(error.kind) == kind

    def test_the_status_that_is_told_is_the_one_that_came(self) -> None:
        error = wrapped_error({"code": "whatever", "message": "no"}, headers={})
        assert "HTTP 200, code whatever" in str(error)

    @pytest.mark.parametrize(
        "body",
        [
            {"code": "success", "message": "", "data": {}},
            {"code": 1000, "message": "success"},
            {"code": 0, "msg": "ok"},
            {"code": 200, "msg": "ok"},
            {"id": "x", "status": "pending", "error": {}},
            {"id": "x", "error": {"message": "", "code": ""}},
            {"id": "x", "error": {"code": 0}},
            {"id": "x", "type": "create"},
            {},
            [],
            None,
            "text",
        ],
    )
    def test_none_is_imagined(self, body: object) -> None:
        assert wrapped_error(body, headers={}) is None

    @pytest.mark.parametrize(
        "body",
        [
            {"status": 401, "message": "bad key"},
            {"status": "401", "message": "bad key"},
            {"error": {"status": 401, "message": "bad key"}},
            {"statusCode": 401, "error": "Unauthorized"},
            {"status_code": 401, "detail": "bad key"},
            {"error": "Invalid API key"},
            {"error": {"message": "无效的令牌", "type": "new_api_error"}},
            {"base_resp": {"status_code": 1004, "status_msg": "login fail"}},
            {"base_resp": {"status_code": 2049, "status_msg": "invalid api key"}},
            {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": "q"},
        ],
    )
    def test_a_bad_key_is_one_wherever_the_status_stands(self, body: dict[str, Any]) -> None:
        error = wrapped_error(body, headers={})
        assert error is not None
        assert error.kind == "authentication"

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            (1002, "rate_limit"), (1004, "authentication"), (1008, "quota"), (1026, "moderation"),
            (1027, "moderation"), (1000, "server"), (1033, "server"), (2013, "invalid_request"),
        ],
    )  # fmt: skip
    def test_minimax_has_its_own_status(self, code: int, kind: str) -> None:
        error = wrapped_error({"base_resp": {"status_code": code, "status_msg": "words"}}, headers={})
        assert error is not None
        assert (error.kind, error.message, error.status_code) == (kind, "words", 200)
        if isinstance(error, ModerationError):
            assert error.refusal == {1026: "input", 1027: "output"}[code]

    @pytest.mark.parametrize(
        "body",
        [
            {"base_resp": {"status_code": 0, "status_msg": "success"}},
            {"task_id": "1", "status": "Success", "base_resp": {"status_code": 0, "status_msg": "success"}},
            {"status": 200, "message": "ok"},
            {"id": "x", "error": "ok"},
            {"error": None, "status": "failed"},
            {"code": True, "message": "ok", "data": {}},
        ],
    )
    def test_none_is_imagined_of_a_status_that_is_fine(self, body: dict[str, Any]) -> None:
        assert wrapped_error(body, headers={}) is None


class TestProblemsByField:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (
                {
                    "detail": [
                        {"type": "missing", "loc": ["body", "prompt"], "msg": "Field required", "input": None}
                    ]
                },
                "prompt: Field required",
            ),
            (
                {
                    "detail": [
                        {
                            "loc": ["body", "seconds"],
                            "msg": "Input should be a string",
                            "type": "string_type",
                        },
                        {"loc": ["body", "images", 0], "msg": "not a URL", "type": "url"},
                    ]
                },
                "seconds: Input should be a string; images.0: not a URL",
            ),
            (
                {
                    "message": "Invalid (and 1 more error)",
                    "errors": {"prompt": ["is required"], "size": ["is odd"]},
                },
                "prompt: is required; size: is odd",
            ),
            (
                {"message": ["prompt must be a string"], "error": "Bad Request", "statusCode": 400},
                "prompt must be a string",
            ),
            ({"error": {"details": [{"field": "size", "message": "is odd"}]}}, "size: is odd"),
            ({"errors": [{"message": "is odd"}]}, "is odd"),
            ({"detail": [{"loc": ["body"], "msg": "is odd"}]}, "is odd"),
        ],
    )
    def test_reach_the_user(self, body: dict[str, Any], message: str) -> None:
        error = error_of(422, body)
        assert (error.kind, error.message) == ("invalid_request", message)

    @pytest.mark.parametrize(
        "problem",
        [
            {"loc": ["body", "prompt"], "msg": "flagged", "type": "content_policy_violation"},
            {"loc": ["body", "prompt"], "msg": "Failure to pass the risk control system", "type": "x"},
            {"loc": ["body", "image_url"], "msg": "material flagged by a content checker", "type": "x"},
        ],
    )
    def test_of_which_one_is_moderation_are_moderation(self, problem: dict[str, Any]) -> None:
        body = {"detail": [{"loc": ["body", "seed"], "msg": "ignored", "type": "extra"}, problem]}
        error = error_of(422, body)
        assert error.kind == "moderation"
        assert problem["msg"] in error.message

    @pytest.mark.parametrize("detail", [[], [[]], [None], [7], [{}], {}, [{"loc": {}, "msg": []}]])
    def test_that_are_none_are_not_told(self, detail: object) -> None:
        assert error_of(422, {"detail": detail}).message == "the gateway answered 422 and no words"


class TestNoBalance:
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (429, {"code": 1102, "message": "Account balance not enough"}),
            (400, {"code": "Arrearage", "message": "Access denied, your account is not in good standing."}),
            (403, {"error": "insufficient credits"}),
            (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
        ],
    )
    def test_is_final_whatever_the_status(self, status: int, body: dict[str, Any]) -> None:
        error = wrapped_error(body, headers={}) if status == 200 else error_of(status, body)
        assert error is not None
        assert (error.kind, error.retryable) == ("quota", False)

    def test_of_the_gateways_own_account_does_not_end_a_wait(self) -> None:
        assert error_of(500, {"error": "upstream: insufficient balance"}).retryable


class TestTransport:
    REQUEST = httpx.Request("GET", "https://gw.example/v1/video/query?id=SECRET")

    @pytest.mark.parametrize(
        ("error", "maybe_sent"),
        [
            (httpx.ConnectError, False),
            (httpx.ConnectTimeout, False),
            (httpx.PoolTimeout, False),
            (httpx.ProxyError, False),
            (httpx.ReadTimeout, True),
            (httpx.WriteTimeout, True),
            (httpx.ReadError, True),
            (httpx.WriteError, True),
            (httpx.CloseError, True),
            (httpx.RemoteProtocolError, True),
        ],
    )
    def test_says_whether_the_request_may_have_arrived(
        self, error: type[httpx.RequestError], maybe_sent: bool
    ) -> None:
        told = error_from_transport(error("broken", request=self.REQUEST), origin="https://gw.example:443")
        assert isinstance(told, TransportError)
        assert (told.maybe_sent, told.maybe_accepted, told.retryable) == (maybe_sent, maybe_sent, True)
        assert "https://gw.example:443" in str(told)
        assert "SECRET" not in str(told)

    @pytest.mark.parametrize("error", [httpx.UnsupportedProtocol, httpx.LocalProtocolError])
    def test_what_cannot_be_sent_is_a_wrong_request(self, error: type[httpx.RequestError]) -> None:
        told = error_from_transport(error("no", request=self.REQUEST), origin="ftp://x:21")
        assert isinstance(told, InvalidRequestError)
        assert not told.maybe_accepted

    def test_what_cannot_be_decoded_is_unreadable(self) -> None:
        told = error_from_transport(httpx.DecodingError("no", request=self.REQUEST), origin="https://x:443")
        assert isinstance(told, UnreadableReplyError)
