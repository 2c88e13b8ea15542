"""The connection test against real servers of several kinds: good key, bad key, wrong path, nobody there.

Each server has one route of the unified dialect and leaves everything else to its framework.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.gateway import Gateway, Verdict

KEY = "sk-test-0123456789abcdef"

NODE = """
const http = require("http");
http.createServer((request, reply) => {
  const url = new URL(request.url, "http://x");
  const send = (status, body) => {
    reply.writeHead(status, { "Content-Type": "application/json" });
    reply.end(JSON.stringify(body));
  };
  if (url.pathname !== "/v1/video/query") {
    // What Express answers to a route that it does not have.
    reply.writeHead(404, { "Content-Type": "text/html; charset=utf-8" });
    reply.end(`<!DOCTYPE html><html><body><pre>Cannot GET ${url.pathname}</pre></body></html>`);
  } else if (request.headers.authorization !== "Bearer KEY") send(401, { error: "unauthorized" });
  else send(404, { error: `video ${url.searchParams.get("id")} not found` });
}).listen(PORT, "127.0.0.1");
"""
NGINX = """
pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    # Not its files: started by root it serves them as another user, who may not look into this folder.
    location / {{ return 404; }}
    location = /v1/video/query {{
      default_type application/json;
      if ($http_authorization != "Bearer {key}") {{ return 401; }}
      return 404 '{{"error": "task not found"}}';
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def wait_for(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(300):
        try:
            opener.open(url, timeout=1)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(url)


@contextmanager
def process(*command: str) -> Iterator[None]:
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.terminate()
        running.wait(timeout=10)


@contextmanager
def fastapi(_: Path) -> Iterator[str]:
    fastapi = pytest.importorskip("fastapi")
    uvicorn = pytest.importorskip("uvicorn")
    app = fastapi.FastAPI()

    def query(id: str, authorization: str = fastapi.Header()) -> None:
        if authorization != f"Bearer {KEY}":
            raise fastapi.HTTPException(401, "Invalid API key")
        raise fastapi.HTTPException(404, f"Video {id} not found")

    app.get("/v1/video/query")(query)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@contextmanager
def node(_: Path) -> Iterator[str]:
    if (program := shutil.which("node")) is None:
        pytest.skip("there is no Node on this machine")
    port = free_port()
    with process(program, "-e", NODE.replace("PORT", str(port)).replace("KEY", KEY)):
        wait_for(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def nginx(folder: Path) -> Iterator[str]:
    if (program := shutil.which("nginx")) is None:
        pytest.skip("there is no nginx on this machine")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, key=KEY), encoding="utf-8")
    with process(program, "-c", str(config), "-p", str(folder), "-g", "daemon off;"):
        wait_for(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def python(_: Path) -> Iterator[str]:
    """The server of Python's library, whose 404 is a page of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/v1/video/query":
                self.send_error(404)
                return
            known = self.headers["Authorization"] == f"Bearer {KEY}"
            self.send_response(400 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"code": "task_not_exist"}' if known else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


SERVERS = {each.__name__: each for each in (fastapi, node, nginx, python)}


@pytest.fixture(scope="module", params=[*SERVERS, "sandbox"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    start_sandbox: Callable[..., Any],
) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "sandbox":
            yield start_sandbox(key=KEY).url
        else:
            yield stack.enter_context(SERVERS[request.param](tmp_path_factory.mktemp(request.param)))


def verdict(url: str, key: str = KEY, **settings: Any) -> Verdict:
    with Gateway(url, key, verify=False, timeout=10, **settings) as gateway:
        check = gateway.check()
    assert KEY not in check.message
    return check.verdict


class TestTheFourCases:
    def test_a_good_key_is_accepted(self, server: str) -> None:
        assert verdict(server) is Verdict.ACCEPTED

    def test_a_bad_key_is_told(self, server: str) -> None:
        assert verdict(server, "sk-wrong") is Verdict.BAD_KEY

    def test_a_wrong_path_is_told(self, server: str) -> None:
        assert verdict(f"{server}/nowhere") is Verdict.WRONG_ROUTE

    def test_a_wrong_dialect_is_told(self, server: str, request: pytest.FixtureRequest) -> None:
        if "sandbox" in request.node.callspec.id:
            pytest.skip("it speaks all dialects")
        assert verdict(server, dialect="openai") is Verdict.WRONG_ROUTE

    def test_a_wrong_host_is_told(self) -> None:
        assert verdict(f"http://127.0.0.1:{free_port()}") is Verdict.WRONG_HOST
