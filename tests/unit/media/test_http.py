from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airflow_video_provider.media import BadURL, DownloadOptions, MediaError, download
from airflow_video_provider.media.guard import AddressGuard
from airflow_video_provider.media.http import Client, NetworkFault, Url


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "target"),
        [
            ("https://h/a%2Fb?X=%2f&Y=a+b", b"/a%2Fb?X=%2f&Y=a+b"),
            ("https://h", b"/"),
            ("https://h?", b"/?"),
            ("https://h/a b?c=ü#frag", b"/a%20b?c=%C3%BC"),
            ("https://h/a?sig=%zz|{}", b"/a?sig=%zz|{}"),
            (" https://h/a?b\r\n", b"/a?b"),
        ],
    )
    def test_a_url_is_sent_byte_for_byte(self, url: str, target: bytes) -> None:
        assert Url.parse(url).target == target

    @pytest.mark.parametrize(
        "url",
        [
            "ftp://h/x",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "http://a..b/",
            f"http://{'a' * 64}.example/",
            "//h/x",
            "http:///x",
            "http://u@h/",
            "http://u:p@h/",
            "http://h\\@evil/",
            "http://h/\r\nX: y",
            "http://h:99999/",
            "http://[::1/",
            "h/x",
            "",
        ],
    )
    def test_an_ambiguous_or_foreign_url_is_refused(self, url: str) -> None:
        with pytest.raises(BadURL):
            Url.parse(url)

    def test_a_url_has_one_origin_however_it_is_written(self) -> None:
        assert (
            Url.parse("https://Host/").origin == Url.parse("https://host:443/x").origin == "https://host:443"
        )


SIGNATURE = "X-Amz-Signature=0123456789abcdef"


class _Redirecting(BaseHTTPRequestHandler):
    locations = {  # noqa: RUF012
        "/here.mp4": f"/there.mp4?{SIGNATURE}".encode(),
        "/utf-8": "/vidéo/影.mp4?t=ü".encode(),
        "/latin-1": "/vidéo.mp4".encode("latin-1"),
    }

    def do_GET(self) -> None:
        location = self.locations.get(self.path.partition("?")[0])
        self.send_response(302 if location else 200)
        self.send_header("Seen", self.path)
        if location:  # send_header takes no bytes
            self._headers_buffer.append(b"Location: " + location + b"\r\n")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def redirecting() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_no_signature_is_logged_at_any_level(
    redirecting: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(MediaError) as caught:
        download(f"{redirecting}/here.mp4?{SIGNATURE}", tmp_path / "x.mp4", allowed_hosts=["127.0.0.1"])
    assert SIGNATURE not in caplog.text
    assert SIGNATURE not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "target"),
    [("/utf-8", "/vid%C3%A9o/%E5%BD%B1.mp4?t=%C3%BC"), ("/latin-1", "/vid%E9o.mp4")],
)
def test_raw_bytes_in_a_redirect_are_percent_encoded_as_browsers_do(
    path: str, target: str, redirecting: str
) -> None:
    client = Client(guard=AddressGuard(["127.0.0.1"]), options=DownloadOptions())
    with client.get(Url.parse(redirecting + path), {}) as response:
        assert (response.status, response.headers["seen"]) == (200, target)
    client.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Api-Key", "SECRET\n"),
        ("X-Api-Key", " SECRET"),
        ("X-Api-Key", "SE\r\nCRET: x"),
        ("X-Api-Key", "SECRET…"),
        ("X Api Key", "SECRET"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"headers: '{name}'") as refused:
        Client(guard=AddressGuard(), options=DownloadOptions(), headers={name: value})
    assert "CRET" not in str(refused.value)


@pytest.mark.parametrize("value", ["", "x", "Bearer sk-1 2", "caf\xe9"])
def test_a_header_that_can_be_sent_is_taken(value: str) -> None:
    Client(guard=AddressGuard(), options=DownloadOptions(), headers={"X-Api-Key": value})


def test_a_handshake_that_is_not_answered_can_be_broken() -> None:
    options = DownloadOptions(connect_timeout=120.0, stall_timeout=120.0)
    client = Client(guard=AddressGuard(["127.0.0.1"]), options=options)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as threads:
        asking = threads.submit(client.get, Url.parse(f"https://127.0.0.1:{silent.getsockname()[1]}/"), {})
        connection, _ = silent.accept()
        connection.settimeout(30)
        with connection:
            assert connection.recv(65536)
            client.abort()
            assert connection.recv(65536) == b""
        with pytest.raises(NetworkFault):
            asking.result()
