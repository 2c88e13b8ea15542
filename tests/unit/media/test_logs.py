from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airflow_video_provider.media import MediaError, download

SIGNATURE = "X-Amz-Signature=0123456789abcdef"


class _Redirecting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/there"):
            self.send_response(200)
            self.send_header("Content-Length", "0")
        else:
            self.send_response(302)
            self.send_header("Location", f"/there.mp4?{SIGNATURE}")
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
