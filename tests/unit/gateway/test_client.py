"""Both clients over real HTTP: what is sent, what a reply means, and that nothing is paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import socket
import socketserver
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol

import httpx
import pytest

from airflow_video_provider.gateway import (
    AsyncGateway,
    CertificateError,
    GatewayError,
    GatewaySettings,
    InvalidRequestError,
    ReferenceFile,
    TaskState,
    TransportError,
    UnreadableReplyError,
    VideoRequest,
    proxies,
)
from airflow_video_provider.gateway import client as client_module

KEY = "sk-test-0123456789abcdef"
HEADER = "films-0123456789abcdef"
REQUEST = VideoRequest(prompt="a cat", model="veo3.1-fast")
ID = "veo3.1-fast:1770350082-trii1OXZc3"
MIB = 2**20


def reply(
    status: int = 200, body: object = b"", *, content_type: str = "application/json", **more: str
) -> bytes:
    """A whole HTTP reply; `Retry_After="3"` becomes a header."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *(f"{name.replace('_', '-')}: {value}" for name, value in more.items()),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


PENDING = reply(200, {"id": ID, "status": "pending"})
HTML = reply(200, b"<html><title>Just a moment...</title></html>", content_type="text/html")


class Received(Protocol):
    method: str
    target: str
    body: bytes
    raw: str

    def every(self, name: str) -> list[str]: ...


class Peer(Protocol):
    url: str
    received: list[Received]

    def first(self) -> Received: ...


class Client(Protocol):
    def submit(self, request: VideoRequest) -> Any: ...
    def get_task(self, video_id: str) -> Any: ...
    def list_tasks(self) -> Any: ...


class Connect(Protocol):
    repeats: bool

    def __call__(self, base_url: str, api_key: str | None = ..., **settings: Any) -> Client: ...


StartPeer = Callable[..., Peer]


@pytest.fixture
def refused_url() -> Iterator[str]:
    """An address where nobody listens, and nobody else can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


class _Talker(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(b"HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def talker() -> Iterator[str]:
    """A server that answers in plain HTTP whatever it is sent."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Talker) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def failure(call: Callable[..., Any], *args: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        call(*args)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in repr(caught.value)
    return caught.value


# -- what is sent --------------------------------------------------------------------------------------------


class TestARequest:
    def test_carries_the_key_and_the_headers_of_the_documents(
        self, connect: Connect, peer: StartPeer
    ) -> None:
        server = peer(PENDING)
        client = connect(server.url, KEY, forwarded_host="localhost:5173", headers={"X-Team": "films"})
        client.get_task(ID)
        client.submit(REQUEST)
        for received in server.received:
            assert received.every("Authorization") == [f"Bearer {KEY}"]
            assert received.every("Accept") == ["application/json"]
            assert received.every("Content-Type") == ["application/json"]
            assert received.every("X-Forwarded-Host") == ["localhost:5173"]
            assert received.every("X-Team") == ["films"]
            assert received.every("User-Agent")[0].startswith("airflow-video-provider/")

    @pytest.mark.parametrize("key", [None, ""])
    def test_carries_no_key_where_there_is_none(
        self, connect: Connect, peer: StartPeer, key: str | None
    ) -> None:
        server = peer(PENDING)
        connect(server.url, key).get_task(ID)
        assert server.received[0].every("Authorization") == []

    def test_to_a_gateway_that_wants_a_key_says_that_there_is_none(
        self, connect: Connect, peer: StartPeer
    ) -> None:
        server = peer(reply(401, {"error": {"message": "no token"}}))
        assert "the connection has none" in str(failure(connect(server.url, None).get_task, ID))

    @pytest.mark.parametrize("name", ["authorization", "AUTHORIZATION", "Authorization"])
    def test_carries_one_key_only(self, connect: Connect, peer: StartPeer, name: str) -> None:
        server = peer(PENDING)
        connect(server.url, KEY, headers={name: "Basic another"}).get_task(ID)
        assert server.received[0].every("Authorization") == [f"Bearer {KEY}"]

    def test_takes_the_users_header_instead_of_its_own(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(PENDING)
        client = connect(server.url, KEY, headers={"user-agent": "films/1", "content-type": "text/plain"})
        client.get_task(ID)
        assert server.received[0].every("User-Agent") == ["films/1"]
        assert server.received[0].every("Content-Type") == ["application/json"]

    @pytest.mark.parametrize(
        ("dialect", "create", "query"),
        [
            ("unified", "/v1/video/create", "/v1/video/query?id=a%2Fb%3Ac"),
            ("openai", "/v1/videos", "/v1/videos/a%2Fb%3Ac"),
            ("newapi", "/v1/video/generations", "/v1/video/generations/a%2Fb%3Ac"),
        ],
    )
    @pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/", "/relay", "/relay/", "/relay/v1", "/relay/v1/"])
    def test_goes_to_the_route_of_its_dialect_below_the_base_url(
        self, connect: Connect, peer: StartPeer, base: str, dialect: str, create: str, query: str
    ) -> None:
        server = peer(PENDING)
        client = connect(server.url + base, KEY, dialect=dialect)
        client.submit(REQUEST)
        client.get_task("a/b:c")
        prefix = "/relay" if "relay" in base else ""
        sent = [(each.method, each.target) for each in server.received]
        assert sent[0] == ("POST", prefix + create)
        # aiohttp writes a character that need not be quoted as it is.
        path, _, asked = sent[1][1].partition("?")
        assert (sent[1][0], path.replace(":", "%3A"), asked.replace(":", "%3A").replace("/", "%2F")) == (
            "GET",
            *((prefix + query).partition("?")[::2]),
        )

    def test_to_create_is_json_in_utf_8(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(PENDING)
        connect(server.url).submit(VideoRequest(prompt="一只猫", model="veo3", extra_body={"n": [1, None]}))
        assert json.loads(server.received[0].body) == {"model": "veo3", "prompt": "一只猫", "n": [1, None]}
        assert "一只猫".encode() in server.received[0].body

    def test_to_query_has_no_body(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(PENDING)
        connect(server.url).get_task(ID)
        assert server.received[0].body == b""

    def test_with_a_reference_file_is_multipart(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(PENDING)
        file = ReferenceFile("cat.png", b"\x89PNG\r\n\x00\xff", "image/png")
        request = VideoRequest(prompt="一只猫", model="sora-2", seconds=8, input_reference=file)
        connect(server.url, KEY, dialect="openai").submit(request)
        (received,) = server.received
        (kind,) = received.every("Content-Type")
        assert kind.startswith("multipart/form-data; boundary=")
        parts = received.body.split(b"--" + kind.partition("boundary=")[2].encode())
        assert any(b'name="seconds"\r\n\r\n8\r\n' in part for part in parts)
        assert any(b'name="prompt"\r\n\r\n' + "一只猫".encode() in part for part in parts)
        assert any(
            b'name="input_reference"; filename="cat.png"\r\nContent-Type: image/png\r\n\r\n' + file.content
            in part
            for part in parts
        )

    @pytest.mark.parametrize("video_id", ["", "a b", "a\r\nX: y", ".."])
    def test_about_an_id_that_is_none_is_not_sent(
        self, connect: Connect, peer: StartPeer, video_id: str
    ) -> None:
        server = peer(PENDING)
        assert "video_id" in str(failure(connect(server.url).get_task, video_id))
        assert server.received == []

    def test_that_the_dialect_cannot_express_is_not_sent(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(PENDING)
        request = VideoRequest(prompt="a", model="m", watermark=False)
        assert "watermark" in str(failure(connect(server.url, KEY, dialect="openai").submit, request))
        assert server.received == []

    def test_leaves_no_key_and_no_url_in_the_logs(
        self, connect: Connect, peer: StartPeer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = peer(PENDING)
        with caplog.at_level(logging.DEBUG):
            connect(server.url).get_task("SECRET-ID")
        assert KEY not in caplog.text
        assert [each for each in caplog.records if each.name == "httpx"] == []
        told = [each.getMessage() for each in caplog.records if each.levelno >= logging.INFO]
        assert not any("SECRET-ID" in line for line in told)


# -- what is understood --------------------------------------------------------------------------------------


class TestAReply:
    @pytest.mark.parametrize("status", [200, 201, 202])
    def test_to_a_create_is_a_task_with_the_new_id(
        self, connect: Connect, peer: StartPeer, status: int
    ) -> None:
        task = connect(peer(reply(status, {"id": ID})).url).submit(REQUEST)
        assert (task.video_id, task.state) == (ID, TaskState.RUNNING)

    @pytest.mark.parametrize(
        "body",
        [
            {"code": "success", "data": "task_1"},
            {"code": "success", "message": "", "data": {"task_id": "task_1", "id": 6}},
            {"request_id": "task_1"},
            {"id": "task_1", "status": "queued", "error": {"code": 0}},
            {"task_id": "task_1", "type": "create"},
        ],
    )
    def test_to_a_create_has_the_id_anywhere(self, connect: Connect, peer: StartPeer, body: object) -> None:
        assert connect(peer(reply(200, body)).url).submit(REQUEST).video_id == "task_1"

    def test_keeps_the_id_that_was_asked_for(self, connect: Connect, peer: StartPeer) -> None:
        task = connect(peer(reply(200, {"id": "another", "status": "completed"})).url).get_task(ID)
        assert (task.video_id, task.state) == (ID, TaskState.SUCCEEDED)

    def test_in_another_dialects_shape_is_understood(self, connect: Connect, peer: StartPeer) -> None:
        body = {"code": "success", "data": {"status": "IN_PROGRESS", "progress": "50%"}}
        for dialect in ("unified", "openai", "newapi"):
            task = connect(peer(reply(200, body)).url, KEY, dialect=dialect).get_task(ID)
            assert (task.state, task.progress) == (TaskState.RUNNING, 50)

    @pytest.mark.parametrize(
        "body",
        [
            {"code": 400, "msg": "wrong"},
            {"code": 400, "msg": "wrong", "request_id": "20260206"},
            {"code": 400, "msg": "wrong", "data": "see the documents", "request_id": "20260206"},
            {"code": 400, "msg": "wrong", "data": None},
            {"error": {"message": "wrong", "code": 400}, "request_id": "20260206"},
        ],
    )
    def test_of_200_that_wraps_an_error_is_that_error(
        self, connect: Connect, peer: StartPeer, body: object
    ) -> None:
        client = connect(peer(reply(200, body)).url)
        for call, argument in ((client.get_task, ID), (client.submit, REQUEST)):
            error = failure(call, argument)
            assert (error.kind, error.maybe_accepted) == ("invalid_request", False)
            assert "wrong" in str(error)

    @pytest.mark.parametrize(
        "body",
        [
            {"id": "x", "status": "processing", "error": {"message": "an earlier try"}},
            {"progress": 50, "type": "create"},
            {"video_url": "https://cdn.example/v.mp4", "code": "whatever"},
            {"state": "running", "request_id": "20260206", "code": "whatever"},
        ],
    )
    def test_that_speaks_of_a_task_is_no_error(self, connect: Connect, peer: StartPeer, body: object) -> None:
        assert connect(peer(reply(200, body)).url).get_task(ID).state is TaskState.RUNNING

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (HTML, "answered HTML"),
            (reply(200, b""), "answered nothing"),
            (reply(204, b""), "answered nothing"),
            (reply(200, b"pong"), "answered no JSON"),
            (reply(200, b"[" * 100_000), "answered no JSON"),
            (reply(200, b"\xff\xfe"), "answered no JSON"),
            (reply(200, {}), "neither a status nor a URL nor an id"),
            (reply(200, []), "neither a status nor a URL nor an id"),
            (reply(200, b"null"), "neither a status nor a URL nor an id"),
        ],
    )
    def test_that_is_none_of_a_gateway_is_unreadable(
        self, connect: Connect, peer: StartPeer, answer: bytes, words: str
    ) -> None:
        error = failure(connect(peer(answer).url).get_task, ID)
        assert isinstance(error, UnreadableReplyError)
        assert words in str(error)
        assert error.retryable
        assert error.status_code in {200, 204}

    def test_says_how_long_to_wait(self, connect: Connect, peer: StartPeer) -> None:
        error = failure(connect(peer(reply(429, b"", Retry_After="7")).url).get_task, ID)
        assert (error.kind, error.retry_after) == ("rate_limit", 7.0)

    def test_that_repeats_the_key_is_masked(self, connect: Connect, peer: StartPeer) -> None:
        said = {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": f"no_{KEY}"}}
        error = failure(connect(peer(reply(401, said)).url).get_task, ID)
        assert "Incorrect API key provided: ***" in str(error)
        assert KEY not in f"{error} {error.message} {error.code} {error.args}"

    @pytest.mark.parametrize(
        "said",
        [
            {"status": "failed", "error": {"message": f"Incorrect API key: {KEY}", "code": KEY}},
            {"status": "failed", "fail_reason": f"upstream refused header {HEADER}"},
            {
                "status": KEY,
                "model": KEY,
                "enhanced_prompt": KEY,
                "video_url": f"https://h.example/{KEY}.mp4",
            },
            {"status": "completed", "usage": {KEY: 1}},
        ],
    )
    def test_about_a_task_that_repeats_a_key_is_masked(
        self, connect: Connect, peer: StartPeer, said: dict[str, object]
    ) -> None:
        client = connect(peer(reply(200, said)).url, KEY, headers={"X-Team-Token": f"Token {HEADER}"})
        told = json.dumps(client.get_task(ID).as_json())
        assert KEY not in told
        assert HEADER not in told

    @pytest.mark.parametrize("key", ["pending", "sk/with/a/slash"])
    def test_is_masked_in_every_spelling_but_not_of_a_short_key(
        self, connect: Connect, peer: StartPeer, key: str
    ) -> None:
        said = json.dumps({"status": "pending", "model": key}).replace("/", "\\/").encode()
        task = connect(peer(reply(200, said)).url, key).get_task(ID)
        assert task.state is TaskState.QUEUED
        assert task.model == ("pending" if key == "pending" else "***")

    @pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzip"])
    def test_is_bounded_in_size(self, connect: Connect, peer: StartPeer, gzipped: bool) -> None:
        def padded(size: int) -> bytes:
            body = json.dumps({"id": ID, "status": "pending", "pad": ""}).encode()
            body = body[:-2] + b"x" * (size - len(body)) + body[-2:]
            assert len(body) == size
            return reply(200, gzip.compress(body), Content_Encoding="gzip") if gzipped else reply(200, body)

        assert connect(peer(padded(4 * MIB)).url).get_task(ID).state is TaskState.QUEUED
        client = connect(peer(padded(4 * MIB + 1)).url)
        error = failure(client.get_task, ID)
        assert isinstance(error, UnreadableReplyError)
        assert not error.maybe_accepted
        assert failure(client.submit, REQUEST).maybe_accepted

    def test_that_unpacks_to_far_more_than_came_is_refused(self, connect: Connect, peer: StartPeer) -> None:
        bomb = gzip.compress(b"\0" * (64 * MIB))
        error = failure(connect(peer(reply(200, bomb, Content_Encoding="gzip")).url).get_task, ID)
        assert isinstance(error, UnreadableReplyError)
        assert "more than" in str(error)

    def test_that_cannot_be_unpacked_is_unreadable(self, connect: Connect, peer: StartPeer) -> None:
        client = connect(peer(reply(200, b"not gzip", Content_Encoding="gzip")).url)
        assert isinstance(failure(client.get_task, ID), UnreadableReplyError)
        assert failure(client.submit, REQUEST).maybe_accepted

    def test_that_trickles_is_bounded_in_time(
        self, connect: Connect, peer: StartPeer, hold: Callable[[bytes], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each byte comes within the timeout, the end never does; the clock is the test's."""
        moments = iter(range(0, 10**9, 50))
        monkeypatch.setattr(client_module, "time", SimpleNamespace(monotonic=lambda: next(moments)))
        server = peer(hold(b'HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n{"id"'))
        error = failure(connect(server.url, KEY, timeout=20).get_task, ID)
        assert isinstance(error, UnreadableReplyError)
        assert "not whole after 40 s" in str(error)


@pytest.fixture
def hold() -> Callable[[bytes], Any]:
    """An answer that begins and then stands still."""
    return lambda content: SimpleNamespace(content=content, hold=True)


# -- paid once -----------------------------------------------------------------------------------------------

PAGE_502 = b"<html><title>502 Bad Gateway</title></html>"
FAILURES: dict[str, tuple[bytes, str, bool]] = {
    "400": (reply(400, {"error": {"message": "no"}}), "invalid_request", False),
    "401": (reply(401, b""), "authentication", False),
    "403 without balance": (reply(403, {"code": "insufficient_user_quota"}), "quota", False),
    "404": (reply(404, b""), "not_found", False),
    "429": (reply(429, b""), "rate_limit", False),
    "429 that says when": (reply(429, b"", Retry_After="0"), "rate_limit", False),
    "451": (reply(451, {"code": "sentinel_block", "message": "try again later"}), "moderation", False),
    "500": (reply(500, b""), "server", True),
    "502 in HTML": (reply(502, PAGE_502), "server", True),
    "503": (reply(503, b"", Retry_After="0"), "server", True),
    "503 model_not_found": (reply(503, {"code": "model_not_found", "message": "x"}), "server", False),
    "503 get_channel_failed": (reply(503, {"code": "get_channel_failed"}), "server", False),
    "504": (reply(504, b""), "server", True),
    "524": (reply(524, b""), "server", True),
    "200 in HTML": (HTML, "unreadable", True),
    "200 without an id": (reply(200, {}), "unreadable", True),
    "200 with a status and no id": (reply(200, {"status": "pending"}), "unreadable", True),
    "200 empty": (reply(200, b""), "unreadable", True),
    "200 around a 400": (reply(200, {"code": 400, "msg": "no"}), "invalid_request", False),
    "200 around words": (reply(200, {"code": "fail", "message": "no"}), "server", True),
    "302": (reply(302, b"", Location="/elsewhere"), "invalid_request", False),
    "307": (reply(307, b"", Location="/v1/video/create"), "invalid_request", False),
    "cut off before the reply": (b"", "transport", True),
    "cut off in the headers": (b"HTTP/1.1 200 X\r\nContent-", "transport", True),
    "cut off in the body": (b'HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n{"id', "transport", True),
    "no HTTP at all": (b"SSH-2.0-OpenSSH_9.6\r\n", "transport", True),
}


class TestACreate:
    @pytest.mark.parametrize("name", FAILURES)
    def test_is_sent_once_whatever_comes_back(self, connect: Connect, peer: StartPeer, name: str) -> None:
        answer, kind, maybe_accepted = FAILURES[name]
        server = peer(answer)
        error = failure(connect(server.url).submit, REQUEST)
        assert (error.kind, error.maybe_accepted) == (kind, maybe_accepted)
        assert [each.method for each in server.received] == ["POST"]

    @pytest.mark.parametrize(
        "begun", [b"", b"HTTP/1.1 200 X\r\n", b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{"]
    )
    def test_without_an_answer_is_sent_once_and_may_be_paid(
        self, connect: Connect, peer: StartPeer, hold: Callable[[bytes], Any], begun: bytes
    ) -> None:
        server = peer(hold(begun))
        error = failure(connect(server.url, KEY, timeout=0.3).submit, REQUEST)
        assert isinstance(error, TransportError)
        assert (error.maybe_sent, error.maybe_accepted) == (True, True)
        assert "timed out" in str(error)
        assert server.first().method == "POST"
        assert len(server.received) == 1

    def test_that_nobody_took_is_not_paid(self, connect: Connect, refused_url: str) -> None:
        error = failure(connect(refused_url).submit, REQUEST)
        assert isinstance(error, TransportError)
        assert (error.maybe_sent, error.maybe_accepted, error.retryable) == (False, False, True)
        assert refused_url in str(error)

    def test_to_a_host_that_does_not_exist_is_not_paid(self, connect: Connect) -> None:
        error = failure(connect("http://no-such-host.invalid").submit, REQUEST)
        assert isinstance(error, TransportError)
        assert not error.maybe_accepted

    def test_to_a_host_that_speaks_no_tls_is_not_paid(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(PENDING)
        error = failure(connect(server.url.replace("http:", "https:")).submit, REQUEST)
        assert isinstance(error, TransportError)
        assert not error.maybe_accepted


class TestAQuery:
    @pytest.mark.parametrize("name", [name for name in FAILURES if name not in {"302", "307"}])
    def test_pays_nothing_and_is_not_repeated_from_here(
        self, connect: Connect, peer: StartPeer, name: str
    ) -> None:
        answer, kind, _ = FAILURES[name]
        server = peer(answer)
        if name == "200 with a status and no id":
            assert connect(server.url).get_task(ID).state is TaskState.QUEUED
        else:
            error = failure(connect(server.url).get_task, ID)
            assert (error.kind, error.maybe_accepted) == (kind, False)
        assert len(server.received) <= (2 if connect.repeats and name.startswith("cut off") else 1)

    def test_that_times_out_may_be_asked_again(
        self, connect: Connect, peer: StartPeer, hold: Callable[[bytes], Any]
    ) -> None:
        error = failure(connect(peer(hold(b"")).url, KEY, timeout=0.3).get_task, ID)
        assert isinstance(error, TransportError)
        assert (error.retryable, error.maybe_sent, error.maybe_accepted) == (True, True, False)
        assert ID not in str(error)

    def test_to_nobody_says_so_whichever_way_it_goes(self, connect: Connect, refused_url: str) -> None:
        error = failure(connect(refused_url).get_task, ID)
        assert error.message == f"no reply from {refused_url}: Connection refused"

    def test_to_a_name_that_does_not_exist_says_so_whichever_way_it_goes(self, connect: Connect) -> None:
        error = failure(connect("http://no-such-host.invalid").get_task, ID)
        said = "no reply from http://no-such-host.invalid:80: the name does not resolve ("
        assert error.message.startswith(said)

    def test_over_tls_to_a_host_that_speaks_none_says_so_whichever_way_it_goes(
        self, connect: Connect, talker: str
    ) -> None:
        address = talker.replace("http:", "https:")
        error = failure(connect(address).get_task, ID)
        assert isinstance(error, TransportError)
        assert not isinstance(error, CertificateError)
        assert error.message.startswith(f"no reply from {address}: TLS: ")
        assert "timed out" not in error.message

    def test_without_tls_to_a_host_that_wants_it_is_no_timeout(
        self, connect: Connect, peer: Any, tls: ssl.SSLContext
    ) -> None:
        error = failure(connect(peer(PENDING, tls=tls).url.replace("https:", "http:")).get_task, ID)
        assert isinstance(error, TransportError)
        assert error.retryable
        assert "timed out" not in error.message

    def test_over_tls_to_a_host_that_never_answers_is_a_timeout(self, connect: Connect) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"https://127.0.0.1:{silent.getsockname()[1]}"
            error = failure(connect(address, KEY, timeout=0.3).get_task, ID)
        assert error.message == f"no reply from {address}: timed out (ConnectTimeout)"

    def test_that_is_cut_off_is_no_timeout(self, connect: Connect, peer: StartPeer) -> None:
        error = failure(connect(peer(b"").url).get_task, ID)
        assert error.message.endswith(": Server disconnected without sending a response")

    def test_that_is_answered_as_before_means_what_it_meant(self, peer: StartPeer) -> None:
        ready = reply(200, {"id": ID, "status": "completed", "video_url": "https://cdn.example/v.mp4"})
        server = peer(PENDING, PENDING, ready, PENDING, reply(502, b"{}"), ready)

        async def answers() -> list[object]:
            async with AsyncGateway(server.url, KEY) as gateway:
                query, seen = gateway.prepare(ID), []
                for _ in range(6):
                    try:
                        seen.append((await gateway.query(query)).state)
                    except GatewayError as error:
                        seen.append(error.kind)
                return seen

        assert asyncio.run(answers()) == ["queued", "queued", "succeeded", "queued", "server", "succeeded"]

    def test_after_a_failure_works_again(self, connect: Connect, peer: StartPeer) -> None:
        dropped = [b"", b""] if connect.repeats else [b""]
        client = connect(peer(*dropped, reply(502, PAGE_502), HTML, PENDING).url)
        kinds = [failure(client.get_task, ID).kind for _ in range(3)]
        assert kinds == ["transport", "server", "unreadable"]
        assert client.get_task(ID).state is TaskState.QUEUED


# -- redirects -----------------------------------------------------------------------------------------------


class TestARedirect:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_of_a_query_within_the_origin_is_followed_with_the_key(
        self, connect: Connect, peer: StartPeer, status: int
    ) -> None:
        server = peer(reply(status, b"", Location="/v2/query?id=1"), PENDING)
        assert connect(server.url).get_task(ID).state is TaskState.QUEUED
        assert [(each.method, each.target) for each in server.received][1:] == [("GET", "/v2/query?id=1")]
        assert server.received[1].every("Authorization") == [f"Bearer {KEY}"]

    def test_of_a_query_within_the_origin_may_be_absolute(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(lambda _: reply(302, b"", Location=f"{server.url}/v2"), PENDING)
        assert connect(server.url).get_task(ID).state is TaskState.QUEUED

    @pytest.mark.parametrize("call", ["get_task", "submit"])
    def test_to_another_origin_is_refused_and_that_one_sees_nothing(
        self, connect: Connect, peer: StartPeer, call: str
    ) -> None:
        other = peer(PENDING)
        server = peer(reply(307, b"", Location=f"{other.url}/v1?token=SECRET"))
        error = failure(getattr(connect(server.url), call), ID if call == "get_task" else REQUEST)
        assert isinstance(error, InvalidRequestError)
        assert other.url in str(error)
        assert "SECRET" not in str(error)
        assert not error.maybe_accepted
        assert (len(server.received), other.received) == (1, [])

    @pytest.mark.parametrize(
        "location",
        [
            "//other.invalid/v1", "https://127.0.0.1/", "http://localhost:{port}/", "ftp://127.0.0.1:{port}/",
            "http://127.0.0.1.other.invalid:{port}/", "http://127.0.0.1:{port}@other.invalid/", "",
            "http://127.0.0.1:99999999/",
        ],
    )  # fmt: skip
    def test_to_any_address_that_is_not_the_origin_is_refused(
        self, connect: Connect, peer: StartPeer, location: str
    ) -> None:
        server = peer(lambda _: reply(302, b"", Location=location.format(port=server.url.rpartition(":")[2])))
        error = failure(connect(server.url).get_task, ID)
        assert isinstance(error, InvalidRequestError)
        assert error.status_code == 302
        assert "host" in str(error)
        assert len(server.received) == 1

    @pytest.mark.parametrize(
        "location", ["http://[::1", "javascript:0", "http://a b/", "\x7f", "http://\xff/"]
    )
    def test_to_what_is_no_address_is_an_error_like_any_other(
        self, connect: Connect, peer: StartPeer, location: str
    ) -> None:
        server = peer(reply(302, b"", Location=location))
        assert failure(connect(server.url).get_task, ID).kind in {"invalid_request", "transport"}
        assert len(server.received) <= 2

    def test_that_repeats_the_key_is_masked(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(reply(302, b"", Location=f"http://other.invalid/login/{KEY}/"))
        assert "/login/***/" in str(failure(connect(server.url).get_task, ID))

    def test_that_never_ends_is_refused(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(reply(302, b"", Location="/again"))
        assert isinstance(failure(connect(server.url).get_task, ID), InvalidRequestError)
        assert len(server.received) == 6

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_of_a_create_is_refused_even_within_the_origin(
        self, connect: Connect, peer: StartPeer, status: int
    ) -> None:
        server = peer(reply(status, b"", Location="/v1/video/create2"), PENDING)
        assert isinstance(failure(connect(server.url).submit, REQUEST), InvalidRequestError)
        assert len(server.received) == 1


# -- settings ------------------------------------------------------------------------------------------------


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"base_url": ""}, "host"),
            ({"base_url": "gw.example"}, "host"),
            ({"base_url": "gw.example:443"}, "host"),
            ({"base_url": "ftp://gw.example"}, "host"),
            ({"base_url": "file:///etc/passwd"}, "host"),
            ({"base_url": "https://"}, "host"),
            ({"base_url": "https:///v1"}, "host"),
            ({"base_url": "https://gw.example:0"}, "host"),
            ({"base_url": "https://gw.example:port"}, "host"),
            ({"base_url": "https://[::1"}, "host"),
            ({"base_url": "https://gw.example/?a=b"}, "host"),
            ({"base_url": "https://gw.example/#a"}, "host"),
            ({"base_url": "https://user:SECRET@gw.example"}, "host"),
            ({"base_url": "ftp://user:SECRET@gw.example"}, "host"),
            ({"base_url": "https://user:SECRET@gw.example:port"}, "host"),
            ({"dialect": "sora"}, "dialect: 'sora' is none; allowed: unified, openai, newapi"),
            ({"dialect": ""}, "dialect"),
            ({"timeout": 0}, "timeout"),
            ({"timeout": -1}, "timeout"),
            ({"timeout": 3601}, "timeout"),
            ({"timeout": float("nan")}, "timeout"),
            ({"timeout": "soon"}, "timeout"),
            ({"api_key": "SECRET\n"}, "password"),
            ({"api_key": "SECRET\r\nX: y"}, "password"),
            ({"api_key": "SECRET\x00"}, "password"),
            ({"api_key": "SECRET "}, "password"),
            ({"api_key": "SECRET密"}, "password"),
            ({"headers": {"X-Team": "a\r\nSECRET: b"}}, "headers.X-Team"),
            ({"headers": {"X-Team": "SECRETé"}}, "headers.X-Team"),
            ({"headers": {"X-Team": 7}}, "headers.X-Team"),
            ({"headers": {"X Team": "a"}}, "headers.X Team"),
            ({"headers": {"X-Team:": "a"}}, "headers.X-Team:"),
            ({"headers": {"": "a"}}, "headers."),
            ({"forwarded_host": "a\r\nb"}, "forwarded_host"),
            ({"verify": "/no/such/ca.pem"}, "verify"),
        ],
    )
    def test_that_are_wrong_are_refused_by_name(
        self, connect: Connect, settings: dict[str, Any], words: str
    ) -> None:
        error = failure(lambda: connect(**{"base_url": "https://gw.example", "api_key": KEY, **settings}))
        assert isinstance(error, InvalidRequestError)
        assert str(error).startswith(words)
        assert "SECRET" not in str(error)

    def test_hide_the_key_and_the_headers(self) -> None:
        settings = GatewaySettings("https://gw.example", KEY, headers=(("X-Token", "SECRET"),))
        assert KEY not in repr(settings)
        assert "SECRET" not in repr(settings)

    @pytest.mark.parametrize(
        ("given", "base_url"),
        [
            ("https://gw.example", "https://gw.example"),
            (" HTTPS://gw.example/ ", "https://gw.example"),
            ("https://gw.example:8443/relay/v1/", "https://gw.example:8443/relay"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://gw.example/v10", "https://gw.example/v10"),
        ],
    )
    def test_keep_the_base_url_that_routes_are_added_to(self, given: str, base_url: str) -> None:
        assert GatewaySettings(given).base_url == base_url

    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("https://API.example/v1?x", "https://api.example:443"),
            ("http://api.example:443", "http://api.example:443"),
            ("http://[::1]/", "http://[::1]:80"),
        ],
    )
    def test_an_origin_is_written_in_one_way(self, url: str, origin: str) -> None:
        assert client_module.origin_of(url) == origin

    def test_a_client_can_be_made_from_settings(self, connect: Any, peer: StartPeer) -> None:
        server = peer(PENDING)
        settings = GatewaySettings(
            server.url, KEY, "openai", 5, (("X-Team", "films"),), "localhost:5173", verify=False
        )
        client = connect.kind.from_settings(settings)
        assert client.settings == settings
        connect.run(client.get_task(ID))
        connect.run(client.close())
        assert server.received[0].every("X-Team") == ["films"]

    def test_a_client_is_closed_by_its_with(self, connect: Any, peer: StartPeer) -> None:
        server = peer(PENDING)
        gateway = connect.kind(server.url, KEY)

        async def within() -> None:
            async with gateway:
                await gateway.get_task(ID)

        if hasattr(gateway, "__aenter__"):
            connect.run(within())
        else:
            with gateway:
                gateway.get_task(ID)
        with pytest.raises(RuntimeError, match="closed"):
            connect.run(gateway.get_task(ID))

    def test_the_content_route_is_told(self, connect: Any) -> None:
        client = connect("https://gw.example/relay/v1")
        assert client.gateway.content_url("a/b") == "https://gw.example/relay/v1/videos/a%2Fb/content"


# -- the package's own sandbox -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(start_sandbox: Callable[..., Any]) -> Any:
    """A gateway whose time only passes when a test says so: its tasks take an hour."""
    return start_sandbox(seconds=3600)


@contextlib.contextmanager
def paying(shop: Any, times: int) -> Iterator[None]:
    before = len(shop.payments())
    yield
    assert len(shop.payments()) - before == times


class TestTheSandbox:
    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    @pytest.mark.parametrize("model", ["veo3.1-fast", "sora-2", "grok-video-3"])
    def test_generates_in_every_dialect_and_is_paid_once(
        self, connect: Connect, shop: Any, dialect: str, model: str
    ) -> None:
        client = connect(shop.url, shop.key, dialect=dialect)
        with paying(shop, 1):
            task = client.submit(VideoRequest(prompt="a cat", model=model))
            assert not client.get_task(task.video_id).state.is_final
            httpx.post(f"{shop.url}/sandbox/clock", json={"advance": 3600}, trust_env=False)
            done = client.get_task(task.video_id)
        assert (done.video_id, done.state) == (task.video_id, TaskState.SUCCEEDED)
        # A grok task of the openai dialect is told without a URL: its bytes are at the content route.
        assert done.video_url or dialect == "openai"
        assert done.failure is None

    @pytest.mark.parametrize(
        ("fault", "kind", "maybe_accepted", "payments"),
        [
            ("moderation", "moderation", False, 0),
            ("moderation-400", "moderation", False, 0),
            ("quota", "quota", False, 0),
            ("quota-429", "quota", False, 0),
            ("rate-limit", "rate_limit", False, 0),
            ("rate-limit-seconds", "rate_limit", False, 0),
            ("rate-limit-date", "rate_limit", False, 0),
            ("create-500", "server", True, 0),
            ("create-502", "server", True, 0),
            ("create-503", "server", False, 0),
            ("create-wrapped", "invalid_request", False, 0),
            ("create-drop", "transport", True, 0),
            ("create-drop-paid", "transport", True, 1),
            ("create-500-paid", "server", True, 1),
            ("create-524-paid", "server", True, 1),
            ("create-html-paid", "unreadable", True, 1),
            ("create-no-id-paid", "unreadable", True, 1),
        ],
    )
    def test_refuses_and_the_error_says_whether_it_may_be_paid(
        self, connect: Connect, shop: Any, fault: str, kind: str, maybe_accepted: bool, payments: int
    ) -> None:
        request = VideoRequest(prompt=f"a cat [{fault}]", model="veo3.1-fast")
        with paying(shop, payments):
            error = failure(connect(shop.url, shop.key).submit, request)
        assert (error.kind, error.maybe_accepted) == (kind, maybe_accepted)
        if fault.startswith("rate-limit-"):
            assert error.retry_after is not None

    @pytest.mark.parametrize(
        ("fault", "kinds"),
        [
            ("flap=4", ["server"] * 4),
            ("query-html=1", ["unreadable"]),
            ("query-empty=1", ["unreadable"]),
            ("query-wrapped=1", ["server"]),
            ("query-429=1", ["rate_limit"]),
            ("query-404=1", ["not_found"]),
            ("query-drop=1", ["transport"]),
        ],
    )
    def test_stumbles_and_the_task_is_still_there(
        self, connect: Connect, shop: Any, fault: str, kinds: list[str]
    ) -> None:
        client = connect(shop.url, shop.key)
        if connect.repeats and fault == "query-drop=1":
            fault = "query-drop=2"
        task = client.submit(VideoRequest(prompt=f"a cat [{fault}]", model="veo3.1-fast"))
        assert [failure(client.get_task, task.video_id).kind for _ in kinds] == kinds
        assert not client.get_task(task.video_id).state.is_final

    @pytest.mark.parametrize(
        ("fault", "state"),
        [
            ("fail", TaskState.FAILED),
            ("fail-moderation", TaskState.FAILED),
            ("cancelled", TaskState.CANCELLED),
            ("expired", TaskState.EXPIRED),
        ],
    )
    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    def test_ends_badly_and_the_reason_is_told(
        self, connect: Connect, shop: Any, dialect: str, fault: str, state: TaskState
    ) -> None:
        client = connect(shop.url, shop.key, dialect=dialect)
        task = client.submit(VideoRequest(prompt=f"a cat [{fault}]", model="veo3.1-fast"))
        httpx.post(f"{shop.url}/sandbox/clock", json={"advance": 3600}, trust_env=False)
        done = client.get_task(task.video_id)
        assert done.state is state
        assert done.failure or not fault.startswith("fail")

    def test_aborts_a_running_task_and_forgets_an_ended_one(self, connect: Any, shop: Any) -> None:
        client = connect(shop.url, shop.key, dialect="openai")
        with paying(shop, 1):
            video_id = client.submit(VideoRequest(prompt="a cat [fail]", model="kling-v2")).video_id
            client.run(client.gateway.cancel(video_id))
            assert client.get_task(video_id).state is TaskState.CANCELLED
            client.run(client.gateway.cancel(video_id))
        assert failure(client.get_task, video_id).kind == "not_found"
        assert failure(lambda: client.run(client.gateway.cancel(video_id))).kind == "not_found"

    def test_tells_what_is_left(self, connect: Any, start_sandbox: Callable[..., Any]) -> None:
        poor = start_sandbox(options=["--balance", "1"])
        client = connect(poor.url, poor.key)
        assert str(client.run(client.gateway.balance())) == "500,000 of 500,000 units left"
        client.submit(VideoRequest(prompt="a cat", model="grok-video-3"))
        assert client.run(client.gateway.balance()).left == 450_000

    def test_tells_that_there_is_no_limit(self, connect: Any, shop: Any) -> None:
        client = connect(shop.url, shop.key)
        assert str(client.run(client.gateway.balance())) == "no limit"
        assert (
            failure(lambda: client.run(connect(shop.url, "sk-wrong").gateway.balance())).kind
            == "authentication"
        )

    def test_knows_a_wrong_key_an_unknown_id_and_a_wrong_path(self, connect: Connect, shop: Any) -> None:
        with paying(shop, 0):
            assert failure(connect(shop.url, "sk-wrong").submit, REQUEST).kind == "authentication"
            for dialect in ("unified", "openai", "newapi"):
                error: Any = failure(connect(shop.url, shop.key, dialect=dialect).get_task, "no-such-task")
                assert (error.kind, error.no_such_route) == ("not_found", False)
            wrong: Any = failure(connect(f"{shop.url}/nowhere", shop.key).get_task, "no-such-task")
            assert (wrong.kind, wrong.no_such_route) == ("not_found", True)


class TestAList:
    LISTED: ClassVar = {
        "object": "list",
        "data": [{"id": ID, "status": "queued", "created_at": 1770350082}, {"no": "id"}],
    }

    def test_has_the_tasks_that_have_an_id(self, connect: Connect, peer: StartPeer) -> None:
        server = peer(reply(200, self.LISTED))
        (task,) = connect(server.url, dialect="openai").list_tasks()
        assert (task.video_id, task.state) == (ID, TaskState.QUEUED)
        assert server.first().target == "/v1/videos"

    @pytest.mark.parametrize("dialect", ["unified", "newapi"])
    def test_is_empty_where_the_dialect_has_none(
        self, connect: Connect, peer: StartPeer, dialect: str
    ) -> None:
        server = peer(reply(200, self.LISTED))
        assert connect(server.url, dialect=dialect).list_tasks() == []
        assert server.received == []

    @pytest.mark.parametrize("body", [{}, {"data": "x"}, {"error": {"message": "no"}}, [1], {"code": 400}])
    def test_that_is_none_is_a_typed_error_or_empty(
        self, connect: Connect, peer: StartPeer, body: object
    ) -> None:
        server = peer(reply(200, body))
        with contextlib.suppress(GatewayError):
            assert connect(server.url, dialect="openai").list_tasks() == []


class TestAnErrorThatNamesATask:
    @pytest.mark.parametrize("status", [303, 400, 403, 404, 429, 500])
    def test_is_no_proof_that_nothing_was_accepted(
        self, connect: Connect, peer: StartPeer, status: int
    ) -> None:
        server = peer(reply(status, {"id": ID, "status": "queued", "message": "slow down"}))
        error = failure(connect(server.url).submit, REQUEST)
        assert error.maybe_accepted
        assert len(server.received) == 1

    @pytest.mark.parametrize(
        "body", [{"request_id": "r", "message": "no"}, {"id": "x", "status": "failed"}, {}]
    )
    def test_is_not_one_that_has_an_id_of_another_kind(
        self, connect: Connect, peer: StartPeer, body: dict[str, str]
    ) -> None:
        assert not failure(connect(peer(reply(429, body)).url).submit, REQUEST).maybe_accepted


class TestTls:
    def test_a_certificate_that_is_trusted_is_used(
        self, connect: Connect, peer: Any, tls: ssl.SSLContext, certificate: Path
    ) -> None:
        server = peer(PENDING, tls=tls)
        assert connect(server.url, verify=str(certificate)).get_task(ID).state is TaskState.QUEUED

    def test_a_certificate_of_nobody_known_is_final_and_says_so(
        self, connect: Connect, peer: Any, tls: ssl.SSLContext
    ) -> None:
        server = peer(PENDING, tls=tls)
        client = connect(server.url, verify=True)
        for ask in (lambda: client.get_task(ID), lambda: client.submit(REQUEST)):
            with pytest.raises(CertificateError, match=r"is not trusted: [\w -]+$") as failed:
                ask()
            assert not failed.value.retryable
            assert not failed.value.maybe_accepted
        assert server.received == []


class TestAProxyOfTheEnvironment:
    def test_is_used_for_queries_too(
        self, connect: Connect, peer: StartPeer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = peer(PENDING)
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "other.example")
        assert connect("http://gateway.invalid").get_task(ID).state is TaskState.QUEUED
        assert proxy.first().target.startswith("http://gateway.invalid/v1/video/query")

    def test_is_not_used_for_hosts_that_need_none(
        self, connect: Connect, peer: StartPeer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = peer(PENDING)
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "127.0.0.1")
        assert connect(server.url).get_task(ID).state is TaskState.QUEUED

    @pytest.mark.parametrize(
        "value", ["::::", "http://", "ftp://proxy.example", "http://h:port", "socks5://u:hidden@127.0.0.1:1"]
    )
    @pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
    def test_that_cannot_be_used_is_named(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setattr(proxies, "find_spec", lambda _: None)
        for other in ("http_proxy", "all_proxy", "no_proxy"):
            for spelt in (other, other.upper()):
                monkeypatch.delenv(spelt, raising=False)
        monkeypatch.setenv(name, value)
        with pytest.raises(InvalidRequestError, match=f"^{name}: this variable of the environment") as failed:
            connect("http://gateway.invalid")
        assert "hidden" not in str(failed.value)

    def test_that_is_for_others_hinders_nobody(
        self, connect: Connect, peer: StartPeer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = peer(PENDING)
        monkeypatch.setenv("https_proxy", "::::")
        monkeypatch.setenv("no_proxy", "[::, a b, ::::, 127.0.0.1")
        assert connect(server.url).get_task(ID).state is TaskState.QUEUED
        assert connect(server.url).submit(REQUEST).video_id == ID

    @pytest.mark.parametrize("listed", ["::1", "[::1]"])
    def test_is_not_used_for_an_ipv6_address_however_it_is_listed(
        self, monkeypatch: pytest.MonkeyPatch, listed: str
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", listed)
        assert proxies.proxy_for("http://[::1]:8899") is None
        assert proxies.proxy_for("http://[::2]:8899") is not None
