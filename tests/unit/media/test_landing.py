from __future__ import annotations

import pytest

from airflow_video_provider.media import BadDestination, BadURL, DownloadOptions, download


class TestWrongArguments:
    """Each is found before anything is fetched: the URL is one that nobody answers."""

    URL = "http://192.0.2.1/x.mp4"

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"destination": "/tmp/"}, BadDestination),
            ({"destination": 5}, BadDestination),
            ({"destination": "nosuch://x/y"}, BadDestination),
            ({"destination": "/tmp/x", "file_name": "{what}"}, BadDestination),
            ({"destination": "/tmp/x", "if_exists": "perhaps"}, BadDestination),
            ({"destination": "/tmp/x", "allowed_hosts": [""]}, BadDestination),
            ({"destination": "/tmp/x", "url": "ftp://h/x"}, BadURL),
        ],
    )
    def test_are_named(self, arguments: dict[str, object], error: type[Exception]) -> None:
        with pytest.raises(error):
            download(**{"url": self.URL, **arguments})  # type: ignore[arg-type]


def test_a_policy_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="patience"):
        download("http://192.0.2.1/x.mp4", "/tmp/x", patience=3)  # type: ignore[call-arg]


def test_a_check_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="check: 'nothing' is none; allowed: structure, packets, frames"):
        DownloadOptions(check="nothing")  # type: ignore[arg-type]
