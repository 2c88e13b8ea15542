from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_video_provider.http_common import (
    doubled,
    excerpt,
    origin_of,
    parse_retry_after,
    printable,
    without_queries,
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
        ],
    )
    def test_nothing_secret_that_a_server_says_is_printed(self, text: str) -> None:
        assert "SECRET" not in excerpt(text)

    def test_the_query_of_a_url_in_a_text_is_cut(self) -> None:
        assert without_queries("Get https://h/x?sig=SECRET: refused") == "Get https://h/x refused"


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
