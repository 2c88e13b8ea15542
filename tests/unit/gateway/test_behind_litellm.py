"""What LiteLLM says, as a real proxy (1.108) said it: `make test-gateways` asks one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_video_provider.gateway import AuthenticationError, Verdict, error_from_reply
from airflow_video_provider.gateway.balance import Ask
from airflow_video_provider.gateway.check import check_plan
from airflow_video_provider.gateway.dialects import DIALECTS
from airflow_video_provider.gateway.replies import understand_query
from airflow_video_provider.gateway.wire import query_request


def error(status: int, message: str, kind: str | None) -> Any:
    body = {"error": {"message": message, "type": kind, "param": None, "code": str(status)}}
    return error_from_reply(status, {"Content-Type": "application/json"}, json.dumps(body).encode())


NO_DATABASE = error(400, "No connected db.", "no_db_connection")
ASKED_OPENAI = [
    error(401, "litellm.AuthenticationError: AuthenticationError: OpenAIException - Incorrect API key", None),
    error(500, "litellm.InternalServerError: OpenAIException - Cannot connect to host api.openai.com", None),
]


def check_of(said: Exception) -> Any:
    dialect = DIALECTS["openai"]
    plan = check_plan(
        lambda video_id: Ask(query_request(dialect, video_id), understand_query(dialect, video_id, None)),
        "openai",
        has_key=True,
    )
    next(plan)
    try:
        plan.throw(said)
    except StopIteration as done:
        return done.value
    raise AssertionError("it asked again")


def test_an_unknown_key_without_a_database_is_a_bad_key() -> None:
    assert isinstance(NO_DATABASE, AuthenticationError)
    assert check_of(NO_DATABASE).verdict is Verdict.BAD_KEY


@pytest.mark.parametrize("said", ASKED_OPENAI, ids=["its key", "its network"])
def test_what_the_server_behind_it_says_is_no_verdict_on_our_key(said: Any) -> None:
    assert check_of(said).verdict is Verdict.ACCEPTED


def test_its_own_refusal_is_one() -> None:
    own = error(401, "Authentication Error, LiteLLM Virtual Key expected. Received=bad", "auth_error")
    assert check_of(own).verdict is Verdict.BAD_KEY


def test_an_error_is_one_line() -> None:
    said = error(429, "litellm.RateLimitError: slow down\n\nLiteLLM: model group 'm' failed.", None)
    assert "\n" not in str(said)
