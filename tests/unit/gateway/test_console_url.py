"""The gateway's own page about a task: a URL that a browser may be sent to, and nothing else."""

from __future__ import annotations

import pytest

from airflow_video_provider.gateway import GatewaySettings, InvalidRequestError


def settings(url: str | None) -> GatewaySettings:
    return GatewaySettings("https://gateway.example", console_url=url)


def test_the_id_is_put_in_as_one_part_of_the_url() -> None:
    page = settings("https://console.example/tasks/{video_id}?tab=1").console_page("veo/3:17 &x=1")
    assert page == "https://console.example/tasks/veo%2F3%3A17%20%26x%3D1?tab=1"


def test_there_is_none_without_a_template() -> None:
    assert settings(None).console_page("v1") is None


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert('{video_id}')",
        "https://console.example/tasks/",
        "https://{video_id}.example/",
        "console.example/{video_id}",
        "https:///{video_id}",
        "https://console.example/\n{video_id}",
        "https://[::1/{video_id}",
    ],
)
def test_what_is_no_such_url_is_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="console_url"):
        settings(url)
