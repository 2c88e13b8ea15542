"""Something between us and a real S3 server that fails on purpose. What it lets through is untouched."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Decision = Callable[[str, str], int | None]
"""(method, path with query) -> None to let it through, a status to answer, 0 to say nothing at all."""


class StoreProxy:
    """A forwarding HTTP server on a free port.

    :param upstream: the endpoint of the real server.
    :param decide: asked about each request.
    """

    def __init__(self, upstream: str, decide: Decision = lambda method, path: None) -> None:
        self.decide = decide
        self.requests: list[tuple[str, str]] = []
        proxy, host, released = self, urlsplit(upstream).netloc, threading.Event()
        self._released = released

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))
                verdict = proxy.decide(self.command, self.path)
                if verdict == 0:
                    released.wait(60)
                    self.close_connection = True
                    return
                if verdict is not None:
                    text = b"<Error><Code>AccessDenied</Code><Message>not today</Message></Error>"
                    self.reply(verdict, [("Content-Type", "application/xml")], text)
                    return
                forward = http.client.HTTPConnection(host)
                forward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    forward.putheader(name, value)
                forward.endheaders(body)
                answer = forward.getresponse()
                headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in HOP]
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.reply(answer.status, headers, answer.read(), length)
                forward.close()

            def reply(self, status: int, headers: Any, body: bytes, length: str | None = None) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> StoreProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


HOP = frozenset({"content-length", "transfer-encoding", "connection"})
