from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_video_provider.http_common import (
    doubled,
    excerpt,
    origin_of,
    parse_retry_after,
    printable,
    without_secrets,
)


class TestNothingSecretIsPrinted:
    def test_nothing_secret_of_a_url_is_printed(self) -> None:
        assert printable("https://u:pw@h:8/p/v.mp4?sig=abc#f") == "https://h:8/p/v.mp4?…"
        assert printable("data:video/mp4;base64,AAAA") == "data:video/mp4,…"

    @pytest.mark.parametrize(
        "text",
        [
            "see https://h/x?sig=SECRET now",
            '{"url": "https:\\/\\/h\\/x?sig=SECRET"}',
            "Signature=SECRET",
            "Authorization: SECRET",
            "<StringToSign>SECRET</StringToSign>",
            "token SECRET",
            "Authorization: Bearer SECRET",
            "AccountName=films;AccountKey=SECRET;",
            "{'access_token': 'SECRET'}",
            '{"api_key": "SECRET"}',
            "the key sk-SECRETSECRETSECRET is used up",
        ],
    )
    def test_nothing_secret_that_a_server_says_is_printed(self, text: str) -> None:
        assert "SECRET" not in excerpt(text)

    @pytest.mark.parametrize(
        ("text", "stored"),
        [
            ("Get https://h/x?sig=SECRET: refused", "Get https://h/x refused"),
            ("真的吗?见https://h/x?sig=SECRET", "真的吗?见https://h/x"),
            ("cannot read cdn.example/v.mp4?X-Amz-Signature=SECRET", "cannot read cdn.example/v.mp4"),
            ("10.0.0.7:9000/films/v.mp4?X-Amz-Signature=SECRET", "10.0.0.7:9000/films/v.mp4"),
            ("store:9000/v.mp4?X-Amz-Signature=SECRET&a=1", "store:9000/v.mp4?X-Amz-Signature=***&a=1"),
            ("https://u:SECRET@h/v.mp4 is gone", "https://h/v.mp4 is gone"),
            ("https://h/v.mp4;sig=SECRET", "https://h/v.mp4;sig=***"),
            ("Authorization: Bearer SECRET bad", "Authorization: *** bad"),
            ("authorization: SECRET-1", "authorization: ***"),
            ("{'Authorization': 'Bearer SECRET'}", "{'Authorization': '***'}"),
            ("bearer SECRET was refused", "bearer *** was refused"),
            ("x-api-key: SECRET", "x-api-key: ***"),
            ("API key provided: SECRET.", "API key provided: ***"),
            ("password=SECRET", "password=***"),
            ("upstream key sk-ant-SECRETSECRETSECRET is used up", "upstream key *** is used up"),
            (r'{"u": "https:\/\/h\/x?sig=SECRET\u0026a=1"}', r'{"u": "https:\/\/h\/x"}'),
            (r"{\"u\": \"https://h/x?sig=SECRET\"}", r"{\"u\": \"https://h/x\"}"),
        ],
    )
    def test_nothing_secret_of_a_foreign_text_is_stored(self, text: str, stored: str) -> None:
        assert without_secrets(text) == stored
        assert without_secrets(stored) == stored

    @pytest.mark.parametrize(
        "text",
        [
            "why? because",
            "a fox: running, 50 % of 1/2?",
            "the Bearer token is invalid",
            "Bearer authentication is required",
            "max_tokens: 500, seed=7",
            "invalid token",
            "task-0123456789abcdef0123 not found",
            "insufficient quota (code 402): top up at https://gw.example/console",
        ],
    )
    def test_words_that_are_no_secret_stay(self, text: str) -> None:
        assert without_secrets(text) == text

    @given(
        secret=st.text("ABCDEFGHIJKLMNOPabcdefghijklmnop0123456789", min_size=12, max_size=40),
        form=st.sampled_from(
            [
                "https://h.example/v.mp4?{}",
                "HTTPS://h.example/v.mp4?a=1&X-Amz-Signature={}",
                "cdn.example/v/1.mp4?{}",
                "http://user:{}@h.example/v.mp4",
                "Authorization: Bearer {}",
                '"Authorization": "Bearer {}"',
                "Bearer {}",
                "x-api-key={}",
                "access_token: {}",
                "sk-{}-0123",
                "/v.mp4;signature={}",
                "v.mp4%3FX-Amz-Signature%3D{}",
            ]
        ),
        before=st.text(max_size=30),
        after=st.text(max_size=30),
    )
    def test_no_credential_is_stored_wherever_it_stands(
        self, secret: str, form: str, before: str, after: str
    ) -> None:
        assume(secret not in before + after)
        assert secret not in without_secrets(f"{before} {form.format(secret)} {after}")

    @pytest.mark.parametrize(
        "unit",
        ["http://", "a.", "a_", "x-amz-", "?", "\\", "://", "bearer ", "eyJ-", "sk-", "a-", ".a/"],
    )
    def test_a_text_that_repeats_itself_is_read_in_one_pass(self, unit: str) -> None:
        """Were it begun anew at each, this would take hours."""
        text = "?" + unit * (2**20 // len(unit))
        assert len(without_secrets(text)) <= 4 * len(text)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("-1", 0.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, datetime.fromtimestamp(40, tz=UTC)) == seconds


def test_an_origin_is_the_same_however_the_url_is_written() -> None:
    assert origin_of("HTTPS://Host/x?y") == origin_of("https://host:443") == "https://host:443"
    assert origin_of("http://[::1]/") == "http://[::1]:80"


def test_waits_double_up_to_the_longest() -> None:
    assert [doubled(0.5, failures, 30.0) for failures in (0, 1, 2, 3, 99)] == [0.5, 0.5, 1.0, 2.0, 30.0]
