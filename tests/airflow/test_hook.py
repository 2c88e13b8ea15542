"""A connection as a gateway: how it is read, tried and shown, and what may be sent twice."""

from __future__ import annotations

import asyncio
import importlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_video_provider.connection_fields import CONNECTION_FIELDS
from airflow_video_provider.gateway.client import GatewaySettings
from airflow_video_provider.gateway.errors import (
    AuthenticationError,
    GatewayError,
    InvalidRequestError,
    ModerationError,
    QuotaError,
    RateLimitError,
    ServerError,
    TransportError,
    UnreadableReplyError,
)
from airflow_video_provider.gateway.request import VideoRequest
from airflow_video_provider.gateway.task import TaskState
from airflow_video_provider.get_provider_info import get_provider_info
from airflow_video_provider.hooks.video import SUBMIT_ATTEMPTS, VideoHook
from scripts.services import S3Server, Sandbox
from tests.airflow.support import MODEL, Clock, Gateway
from tests.conftest import AIRFLOW

#: Where Airflow's masker is, before 3.1.
MASKERS = {(2, 11): "airflow.utils.log.secrets_masker", (3, 0): "airflow.sdk.execution_time.secrets_masker"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., GatewaySettings]:
    """What the hook makes of a connection in the environment: a URI, or the fields of the JSON form."""

    def read(uri: str | None = None, **fields: Any) -> GatewaySettings:
        text = uri or json.dumps({"conn_type": "video_gateway", **fields})
        monkeypatch.setenv("AIRFLOW_CONN_VIDEO_TRIED", text)
        with VideoHook("video_tried") as hook:
            return hook.get_conn().settings

    return read


@pytest.fixture
def request_of() -> Callable[[str], VideoRequest]:
    return lambda prompt: VideoRequest(prompt=prompt, model=MODEL)


class TestTheAddressOfAConnection:
    @pytest.mark.parametrize(
        ("fields", "base_url"),
        [
            ({"host": "gw.example"}, "https://gw.example"),
            ({"host": "gw.example", "port": 8443}, "https://gw.example:8443"),
            ({"host": "gw.example", "schema": "http"}, "http://gw.example"),
            ({"host": "gw.example", "schema": "HTTPS", "port": 8443}, "https://gw.example:8443"),
            ({"host": "gw.example", "schema": "relay"}, "https://gw.example/relay"),
            ({"host": "http://gw.example"}, "http://gw.example"),
            ({"host": "http://gw.example", "schema": "https"}, "http://gw.example"),
            ({"host": "http://gw.example", "port": 8080}, "http://gw.example:8080"),
            ({"host": "http://gw.example:81", "port": 8080}, "http://gw.example:81"),
            ({"host": "https://gw.example/relay/", "port": 8443}, "https://gw.example:8443/relay"),
            ({"host": "https://gw.example/relay/v1/"}, "https://gw.example/relay"),
            ({"host": "https://gw.example/v1"}, "https://gw.example"),
            ({"host": "gw.example/relay/v1"}, "https://gw.example/relay"),
            ({"host": " https://gw.example "}, "https://gw.example"),
            ({"host": "http://[::1]", "port": 8080}, "http://[::1]:8080"),
        ],
    )
    def test_as_json(
        self, settings_of: Callable[..., GatewaySettings], fields: dict[str, Any], base_url: str
    ) -> None:
        assert settings_of(**fields).base_url == base_url

    @pytest.mark.parametrize(
        ("uri", "base_url"),
        [
            ("video-gateway://:sk-1@gw.example", "https://gw.example"),
            ("video-gateway://:sk-1@gw.example:8443", "https://gw.example:8443"),
            ("video-gateway://:sk-1@gw.example:8443/relay", "https://gw.example:8443/relay"),
            ("video-gateway://:sk-1@gw.example/relay/v1", "https://gw.example/relay"),
            ("video-gateway://:sk-1@gw.example:8080/http", "http://gw.example:8080"),
            ("video-gateway://http://:sk-1@gw.example:8080/", "http://gw.example:8080"),
            (f"video-gateway://:sk-1@{quote('http://gw.example:8080/relay', safe='')}/",
             "http://gw.example:8080/relay"),
        ],
    )  # fmt: skip
    def test_as_uri(self, settings_of: Callable[..., GatewaySettings], uri: str, base_url: str) -> None:
        settings = settings_of(uri)
        assert (settings.base_url, settings.api_key) == (base_url, "sk-1")

    def test_a_uri_brings_its_options_as_text(self, settings_of: Callable[..., GatewaySettings]) -> None:
        settings = settings_of("video-gateway://:sk-1@gw.example/?dialect=openai&timeout=30&verify=false")
        assert (settings.dialect, settings.timeout, settings.verify) == ("openai", 30.0, False)

    def test_a_key_with_every_odd_character_arrives_whole(
        self, settings_of: Callable[..., GatewaySettings]
    ) -> None:
        key = "sk-/+=%@:?#&"
        assert settings_of(f"video-gateway://:{quote(key, safe='')}@gw.example").api_key == key

    def test_no_password_sends_no_key(self, settings_of: Callable[..., GatewaySettings]) -> None:
        assert "Authorization" not in settings_of(host="gw.example").request_headers()


class TestTheExtraOfAConnection:
    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    def test_dialect(self, settings_of: Callable[..., GatewaySettings], dialect: str) -> None:
        assert settings_of(host="gw.example", extra={"dialect": dialect}).dialect == dialect

    @pytest.mark.parametrize("as_text", [False, True])
    def test_a_dialect_may_be_an_object(
        self, settings_of: Callable[..., GatewaySettings], as_text: bool
    ) -> None:
        given = {"base": "openai", "create_encoding": "multipart"}
        dialect = json.dumps(given) if as_text else given
        spoken = settings_of(host="gw.example", extra={"dialect": dialect}).spoken
        assert (spoken.create_path, spoken.create_encoding) == ("/v1/videos", "multipart")

    def test_one_that_comes_by_entry_point(self, settings_of: Callable[..., GatewaySettings]) -> None:
        assert settings_of(host="gw.example", extra={"dialect": "openrouter"}).spoken.poll_floor == 10

    def test_create_encoding(self, settings_of: Callable[..., GatewaySettings]) -> None:
        extra = {"dialect": "openai", "create_encoding": "multipart"}
        assert settings_of(host="gw.example", extra=extra).spoken.create_encoding == "multipart"

    @pytest.mark.parametrize("timeout", [30, 30.0, "30", " 30 "])
    def test_timeout(self, settings_of: Callable[..., GatewaySettings], timeout: object) -> None:
        assert settings_of(host="gw.example", extra={"timeout": timeout}).timeout == 30.0

    @pytest.mark.parametrize("headers", [{"X-Team": "films"}, '{"X-Team": "films"}'])
    def test_headers_go_with_every_request(
        self, settings_of: Callable[..., GatewaySettings], headers: object
    ) -> None:
        settings = settings_of(host="gw.example", extra={"headers": headers})
        assert settings.request_headers()["X-Team"] == "films"

    def test_forwarded_host(self, settings_of: Callable[..., GatewaySettings]) -> None:
        settings = settings_of(host="gw.example", extra={"forwarded_host": "api.example"})
        assert settings.request_headers()["X-Forwarded-Host"] == "api.example"

    @pytest.mark.parametrize(
        ("verify", "read"),
        [(True, True), (False, False), ("true", True), ("False", False), ("0", False), (" no ", False)],
    )
    def test_verify(self, settings_of: Callable[..., GatewaySettings], verify: object, read: bool) -> None:
        assert settings_of(host="gw.example", extra={"verify": verify}).verify is read

    def test_verify_takes_a_file_of_authorities(self, settings_of: Callable[..., GatewaySettings]) -> None:
        certifi = importlib.import_module("certifi")
        assert settings_of(host="gw.example", extra={"verify": certifi.where()}).verify == certifi.where()

    @pytest.mark.parametrize("hosts", [["10.0.0.0/8", "minio:9000"], "10.0.0.0/8, minio:9000"])
    def test_allowed_hosts_and_the_gateway_itself(
        self, monkeypatch: pytest.MonkeyPatch, hosts: object
    ) -> None:
        extra = {"allowed_hosts": hosts}
        monkeypatch.setenv(
            "AIRFLOW_CONN_VIDEO_TRIED",
            json.dumps({"conn_type": "video_gateway", "host": "http://gw.example:81", "extra": extra}),
        )
        assert VideoHook("video_tried").allowed_hosts() == ("10.0.0.0/8", "minio:9000", "gw.example:81")

    @pytest.mark.parametrize("empty", ["", None])
    def test_what_a_form_leaves_empty_is_not_given(
        self, settings_of: Callable[..., GatewaySettings], empty: str | None
    ) -> None:
        names = [field.name for field in CONNECTION_FIELDS]
        settings = settings_of(host="gw.example", extra=dict.fromkeys(names, empty))
        assert settings == GatewaySettings("https://gw.example")


class TestAnUnusableConnectionNamesItsField:
    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({}, "host: is missing"),
            ({"host": "  "}, "host: is missing"),
            ({"host": "ftp://gw.example"}, "host: "),
            ({"host": "https://gw.example?a=1"}, "host: "),
            ({"host": "https://gw.example:port"}, "host: "),
            ({"extra": {"dialekt": "openai"}}, "extra.dialekt: is unknown; allowed: dialect"),
            ({"extra": {"dialect": "azure"}}, "dialect: 'azure' is none; allowed: unified, openai, newapi"),
            ({"extra": {"dialect": 3}}, "extra.dialect: must be text"),
            ({"extra": {"dialect": ["openai"]}}, "extra.dialect: must be text"),
            ({"extra": {"dialect": "{openai}"}}, "extra.dialect: "),
            ({"extra": {"dialect": {"base": "openai", "poll": 3}}}, "dialect.poll: is no field of a dialect"),
            ({"extra": {"dialect": {"query_path": "/q"}}}, "dialect.create_path: is missing"),
            ({"extra": {"create_encoding": "xml"}}, "create_encoding: 'xml' is none; allowed: json"),
            ({"extra": {"create_encoding": 3}}, "extra.create_encoding: must be text"),
            ({"extra": {"timeout": "soon"}}, "extra.timeout: "),
            ({"extra": {"timeout": True}}, "extra.timeout: must be a number of seconds"),
            ({"extra": {"timeout": 0}}, "timeout: 0"),
            ({"extra": {"timeout": "nan"}}, "timeout: nan"),
            ({"extra": {"timeout": 1e9}}, "timeout: "),
            ({"extra": {"headers": "X-Team: films"}}, "extra.headers: "),
            ({"extra": {"headers": ["X-Team"]}}, "extra.headers: must be an object of texts"),
            ({"extra": {"headers": {"X-Team": ["films"]}}}, "extra.headers: must be an object of texts"),
            ({"extra": {"headers": {"X-Team": "a\r\nX-Other: b"}}}, "headers.X-Team: "),
            ({"extra": {"verify": 3}}, "extra.verify: must be true, false or the path"),
            ({"extra": {"verify": "/no/such/file.pem"}}, "verify: '/no/such/file.pem'"),
            ({"extra": {"verify": __file__}}, "verify: "),
            ({"extra": {"forwarded_host": ["a"]}}, "extra.forwarded_host: must be text"),
            ({"extra": {"allowed_hosts": {"a": 1}}}, "extra.allowed_hosts: must be a list of hosts"),
            ({"password": "sk-1\nX: y"}, "password (the API key): has a line break"),
            pytest.param(
                {"extra": "[1]"},
                "extra",
                marks=pytest.mark.skipif(
                    AIRFLOW in ((3, 0), (3, 1)), reason="these two call such a connection not defined"
                ),
            ),
        ],
    )
    def test_by_name(
        self, settings_of: Callable[..., GatewaySettings], fields: dict[str, Any], named: str
    ) -> None:
        given = fields if "host" in fields or not fields else {"host": "gw.example", **fields}
        with pytest.raises(InvalidRequestError) as caught:
            settings_of(**given)
        said = str(caught.value)
        assert named in said
        assert "'video_tried'" in said, "which connection it is"
        assert "\n" not in said

    def test_and_never_shows_a_secret(self, settings_of: Callable[..., GatewaySettings]) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            settings_of(
                host="gw.example", password="sk-hidden\n", extra={"headers": {"X-Key": "sk-hidden\n"}}
            )
        assert "sk-hidden" not in str(caught.value)


class _Page(BaseHTTPRequestHandler):
    """Some web server: the same HTML page for whatever it is asked."""

    def do_GET(self) -> None:
        page = b"<html><head><title>Welcome</title></head><body>Welcome!</body></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web_page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestTryingAConnectionPaysNothing:
    """`test_connection`, the button of Airflow's form."""

    @pytest.fixture(autouse=True)
    def _nothing_is_created(self, gateway: Gateway) -> Iterator[None]:
        yield
        assert gateway.paid == 0
        assert not gateway.requests("POST")

    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    def test_a_good_key(self, connect: Callable[..., str], dialect: str) -> None:
        good, said = VideoHook(connect(extra={"dialect": dialect})).test_connection()
        assert good, said
        assert dialect in said
        assert "Nothing was paid" in said

    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    def test_a_bad_key(self, connect: Callable[..., str], gateway: Gateway, dialect: str) -> None:
        good, said = VideoHook(connect(password="sk-bad", extra={"dialect": dialect})).test_connection()
        assert not good
        assert said.startswith("Bad API key")
        assert "sk-bad" not in said

    def test_the_balance_is_told(self, connection: str) -> None:
        good, said = VideoHook(connection).test_connection()
        assert good
        assert said.endswith(". Balance: no limit")

    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    def test_a_gateway_without_a_balance_passes(
        self, connect: Callable[..., str], gateway: Gateway, dialect: str
    ) -> None:
        object_ = {"base": dialect, "balance_path": "/no/such/route"}
        good, said = VideoHook(connect(extra={"dialect": object_})).test_connection()
        assert good
        assert said.endswith("Nothing was paid")

    def test_a_balance_that_cannot_be_read_passes(
        self, connection: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: object) -> None:
            raise RateLimitError("slow down", status_code=429)

        monkeypatch.setattr("airflow_video_provider.gateway.client.Gateway.balance", fail)
        good, said = VideoHook(connection).test_connection()
        assert good
        assert "The balance is not told: too many requests: slow down" in said

    def test_no_key(self, connect: Callable[..., str]) -> None:
        good, said = VideoHook(connect(password="")).test_connection()
        assert not good
        assert "the connection has none" in said

    def test_a_port_where_nobody_listens(self, connect: Callable[..., str]) -> None:
        good, said = VideoHook(connect(host=f"http://127.0.0.1:{free_port()}")).test_connection()
        assert not good
        assert said.startswith("Wrong host, or the gateway is down")

    def test_a_host_that_does_not_exist(self, connect: Callable[..., str]) -> None:
        good, said = VideoHook(connect(host="http://gateway.invalid")).test_connection()
        assert not good
        assert said.startswith("Wrong host, or the gateway is down")
        assert "gateway.invalid" in said

    def test_a_path_that_the_gateway_does_not_have(
        self, connect: Callable[..., str], gateway: Gateway
    ) -> None:
        good, said = VideoHook(connect(host=f"{gateway.url}/relay")).test_connection()
        assert not good
        assert said.startswith("Wrong path or dialect")

    def test_a_web_page_is_no_gateway(self, connect: Callable[..., str], web_page: str) -> None:
        good, said = VideoHook(connect(host=web_page)).test_connection()
        assert not good
        assert said.startswith("Wrong host or path")
        assert "HTML" in said

    def test_an_object_store_is_no_gateway(self, connect: Callable[..., str], s3_server: S3Server) -> None:
        good, said = VideoHook(connect(host=s3_server.endpoint)).test_connection()
        assert not good, said

    @pytest.mark.parametrize("mode", [{"query": 503}, {"query": 429}, {"query": 502}])
    def test_a_gateway_in_trouble_is_no_verdict_on_the_key(
        self, connect: Callable[..., str], gateway: Gateway, mode: dict[str, Any]
    ) -> None:
        gateway.fail(**mode)
        good, said = VideoHook(connect()).test_connection()
        assert not good
        assert str(mode["query"]) in said
        assert "key" not in said

    def test_a_wrong_field_is_a_verdict_not_a_crash(self, connect: Callable[..., str]) -> None:
        good, said = VideoHook(connect(extra={"dialect": "azure"})).test_connection()
        assert not good
        assert "dialect: 'azure' is none" in said


class TestOneCallEach:
    def test_submit_and_ask(
        self, connection: str, gateway: Gateway, request_of: Callable[[str], VideoRequest]
    ) -> None:
        with VideoHook(connection) as hook:
            task = hook.submit(request_of("a fox"))
            assert not task.state.is_final
            gateway.finish()
            assert hook.get_task(task.video_id).state is TaskState.SUCCEEDED
        assert gateway.paid == 1

    def test_submit_and_ask_from_an_event_loop(
        self, connection: str, gateway: Gateway, request_of: Callable[[str], VideoRequest]
    ) -> None:
        async def both() -> TaskState:
            hook = VideoHook(connection)
            task = await hook.asubmit(request_of("a fox"))
            gateway.finish()
            return (await hook.aget_task(task.video_id)).state

        assert asyncio.run(both()) is TaskState.SUCCEEDED
        assert gateway.paid == 1

    def test_balance(self, start_sandbox: Callable[..., Sandbox], monkeypatch: pytest.MonkeyPatch) -> None:
        poor = start_sandbox(seconds=0, options=["--balance", "2.5"])
        monkeypatch.setenv("AIRFLOW_CONN_VIDEO_POOR", json.dumps(poor.connection()))
        with VideoHook("video_poor") as hook:
            balance = hook.balance()
        assert balance is not None
        assert not balance.unlimited
        assert balance.left == balance.granted

    def test_cancel(self, connect: Callable[..., str], gateway: Gateway) -> None:
        video_id = gateway.submit("a fox")
        with VideoHook(connect(extra={"dialect": "openai"})) as hook:
            hook.cancel(video_id)
            assert hook.get_task(video_id).state in {TaskState.CANCELLED, TaskState.FAILED}

    def test_cancel_where_the_dialect_has_no_route(self, connection: str, gateway: Gateway) -> None:
        with VideoHook(connection) as hook, pytest.raises(InvalidRequestError, match="no route that cancels"):
            hook.cancel(gateway.submit("a fox"))

    def test_a_closed_hook_can_be_used_again(self, connection: str, gateway: Gateway) -> None:
        video_id = gateway.submit("a fox")
        hook = VideoHook(connection)
        for _ in range(2):
            assert hook.get_task(video_id).video_id == video_id
            hook.close()


class TestOnlyWhatWasNotAcceptedIsSentAgain:
    @pytest.mark.parametrize("fault", ["rate-limit", "rate-limit-seconds"])
    def test_a_rate_limit_is_waited_out(
        self,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        logged: list[str],
        request_of: Callable[[str], VideoRequest],
        fault: str,
    ) -> None:
        with VideoHook(connection) as hook:
            hook.submit(request_of(f"once limited [{fault}=2]"))
        assert len(gateway.requests("POST")) == 3
        assert gateway.paid == 1
        assert len(clock.sleeps) == 2
        assert sum("not accepted, nothing paid" in line for line in logged) == 2
        if fault == "rate-limit-seconds":
            assert min(clock.sleeps) >= 2, "what Retry-After asks for"

    def test_a_rate_limit_without_end_is_told_after_a_few_times(
        self, connection: str, gateway: Gateway, clock: Clock, request_of: Callable[[str], VideoRequest]
    ) -> None:
        with VideoHook(connection) as hook, pytest.raises(RateLimitError):
            hook.submit(request_of("always limited [rate-limit]"))
        assert len(gateway.requests("POST")) == SUBMIT_ATTEMPTS
        assert gateway.paid == 0

    def test_a_long_retry_after_is_left_to_airflow(
        self, connection: str, gateway: Gateway, clock: Clock, request_of: Callable[[str], VideoRequest]
    ) -> None:
        gateway.fail(create=429, retry_after="120")
        with VideoHook(connection) as hook, pytest.raises(RateLimitError) as caught:
            hook.submit(request_of("a fox"))
        assert caught.value.retry_after == 120
        assert clock.sleeps == []
        assert len(gateway.requests("POST")) == 1

    def test_a_refused_connection_is_tried_again(
        self, connect: Callable[..., str], clock: Clock, request_of: Callable[[str], VideoRequest]
    ) -> None:
        conn_id = connect(host=f"http://127.0.0.1:{free_port()}")
        with VideoHook(conn_id) as hook, pytest.raises(TransportError) as caught:
            hook.submit(request_of("a fox"))
        assert not caught.value.maybe_accepted
        assert len(clock.sleeps) == SUBMIT_ATTEMPTS - 1

    @pytest.mark.parametrize(
        ("fault", "kind", "paid"),
        [
            ("create-drop-paid", TransportError, 1),
            ("create-500-paid", ServerError, 1),
            ("create-524-paid", ServerError, 1),
            ("create-html-paid", UnreadableReplyError, 1),
            ("create-no-id-paid", UnreadableReplyError, 1),
            ("create-hang-paid", TransportError, 1),
            ("create-drop", TransportError, 0),
            ("create-500", ServerError, 0),
            ("create-502", ServerError, 0),
        ],
    )
    def test_an_unknown_outcome_is_sent_once_and_said_to_be_unknown(
        self,
        connect: Callable[..., str],
        gateway: Gateway,
        clock: Clock,
        request_of: Callable[[str], VideoRequest],
        fault: str,
        kind: type[GatewayError],
        paid: int,
    ) -> None:
        conn_id = connect(extra={"timeout": 0.5} if "hang" in fault else {})
        with VideoHook(conn_id) as hook, pytest.raises(kind) as caught:
            hook.submit(request_of(f"who knows [{fault}]"))
        assert caught.value.maybe_accepted
        assert len(gateway.requests("POST")) == 1
        assert gateway.paid == paid
        assert clock.sleeps == []

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ("moderation", ModerationError),
            ("moderation-400", ModerationError),
            ("quota", QuotaError),
            ("quota-429", QuotaError),
            ("create-wrapped", InvalidRequestError),
        ],
    )
    def test_a_refusal_is_final(
        self,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        request_of: Callable[[str], VideoRequest],
        fault: str,
        kind: type[GatewayError],
    ) -> None:
        with VideoHook(connection) as hook, pytest.raises(kind) as caught:
            hook.submit(request_of(f"refused [{fault}]"))
        assert not caught.value.maybe_accepted
        assert not caught.value.retryable
        assert len(gateway.requests("POST")) == 1
        assert gateway.paid == 0

    def test_a_bad_key_is_final(
        self, connect: Callable[..., str], gateway: Gateway, request_of: Callable[[str], VideoRequest]
    ) -> None:
        with VideoHook(connect(password="sk-bad")) as hook, pytest.raises(AuthenticationError):
            hook.submit(request_of("a fox"))
        assert gateway.paid == 0


class TestSecretsAreMasked:
    def test_the_key_and_what_looks_like_a_secret_header(
        self, connect: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        masked: list[str] = []
        monkeypatch.setattr("airflow_video_provider.hooks.video.mask_secret", masked.append)
        headers = {"X-Api-Key": "hidden-1", "Cookie": "hidden-2", "X-Team": "films", "x-auth": "hidden-3"}
        dialect = {"base": "openai", "headers": {"X-Site-Token": "hidden-4", "X-Version": "1"}}
        with VideoHook(connect(extra={"headers": headers, "dialect": dialect})) as hook:
            hook.get_conn()
        assert sorted(masked) == ["hidden-1", "hidden-2", "hidden-3", "hidden-4"]

    def test_airflow_redacts_them(self, connect: Callable[..., str], gateway: Gateway) -> None:
        masker = importlib.import_module(MASKERS.get(AIRFLOW, "airflow.sdk._shared.secrets_masker"))
        with VideoHook(connect(extra={"headers": {"X-Api-Key": "a-hidden-header"}})) as hook:
            hook.get_conn()
        said = masker.redact(f"sent {gateway.key} and a-hidden-header and films")
        assert gateway.key not in said
        assert "a-hidden-header" not in said
        assert "films" in said

    def test_no_repr_shows_the_key(self, connection: str, gateway: Gateway) -> None:
        with VideoHook(connection) as hook:
            assert gateway.key not in repr(hook.get_conn().settings)


class TestTheConnectionForm:
    @pytest.fixture
    def metadata(self) -> dict[str, Any]:
        (connection_type,) = get_provider_info()["connection-types"]
        return connection_type

    def test_airflow_accepts_the_metadata(self) -> None:
        jsonschema = importlib.import_module("jsonschema")
        import airflow

        schema = json.loads((Path(airflow.__path__[0]) / "provider_info.schema.json").read_text("utf-8"))
        jsonschema.validate(get_provider_info(), schema)

    def test_every_module_in_the_metadata_can_be_imported(self) -> None:
        info = get_provider_info()
        for group in ("operators", "sensors", "hooks", "triggers"):
            for entry in info[group]:
                for module in entry["python-modules"]:
                    importlib.import_module(module)

    def test_airflow_finds_provider_and_hook(self) -> None:
        from airflow.providers_manager import ProvidersManager

        manager = ProvidersManager()
        assert "airflow-video-provider" in manager.providers
        hook = manager.hooks["video_gateway"]
        assert hook is not None
        assert hook.hook_class_name == "airflow_video_provider.hooks.video.VideoHook"
        assert hook.hook_name == "Video gateway"
        assert hook.connection_id_attribute_name == "video_conn_id"
        assert hook.connection_testable

    def test_the_form_of_airflow_2_and_3_behave_alike(self, metadata: dict[str, Any]) -> None:
        behaviour = VideoHook.get_ui_field_behaviour()
        told = metadata["ui-field-behaviour"]
        assert behaviour["hidden_fields"] == told["hidden-fields"]
        assert behaviour["relabeling"] == told["relabeling"]
        assert behaviour["placeholders"] == told["placeholders"]
        assert metadata["conn-fields"].keys() < told["placeholders"].keys()

    def test_airflow_accepts_the_behaviour(self) -> None:
        jsonschema = importlib.import_module("jsonschema")
        import airflow

        path = Path(airflow.__path__[0]) / "customized_form_field_behaviours.schema.json"
        jsonschema.validate(VideoHook.get_ui_field_behaviour(), json.loads(path.read_text("utf-8")))

    def test_the_forms_have_the_same_fields(self, metadata: dict[str, Any]) -> None:
        pytest.importorskip("flask_appbuilder", reason="the form of Airflow 2")
        from flask import Flask
        from flask_babel import Babel

        application = Flask("form")
        Babel(application)
        with application.test_request_context():
            widgets = VideoHook.get_connection_form_widgets()
            assert list(widgets) == list(metadata["conn-fields"])
            for name, widget in widgets.items():
                assert str(widget.args[0]) == metadata["conn-fields"][name]["label"]
                assert widget.kwargs["description"] == metadata["conn-fields"][name]["description"]

    def test_airflow_2_shows_them(self, metadata: dict[str, Any]) -> None:
        pytest.importorskip("flask_appbuilder", reason="the form of Airflow 2")
        from airflow.providers_manager import ProvidersManager

        manager = ProvidersManager()
        shown = {
            name.removeprefix("extra__video_gateway__")
            for name in manager.connection_form_widgets
            if name.startswith("extra__video_gateway__")
        }
        assert shown == set(metadata["conn-fields"])
        assert manager.field_behaviours["video_gateway"]["placeholders"]["host"]

    def test_every_field_of_the_form_is_read_and_every_one_that_is_read_is_shown(
        self, settings_of: Callable[..., GatewaySettings], metadata: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            settings_of(host="gw.example", extra={"other": 1})
        allowed = str(caught.value).partition("allowed: ")[2].split(", ")
        assert sorted(allowed) == sorted(metadata["conn-fields"])

    def test_the_placeholders_are_values_that_work(
        self, settings_of: Callable[..., GatewaySettings], metadata: dict[str, Any]
    ) -> None:
        placeholders = metadata["ui-field-behaviour"]["placeholders"]
        extra = {name: placeholders[name] for name in metadata["conn-fields"]}
        settings = settings_of(host=placeholders["host"], extra=extra)
        assert dict(settings.headers) == {"X-Team": "films"}
        untouched = settings_of(host=placeholders["host"])
        for name in ("dialect", "timeout", "verify"):  # what is used when the field is left empty
            assert getattr(settings, name) == getattr(untouched, name)


def test_a_prefix_is_honoured(start_sandbox: Callable[..., Sandbox], monkeypatch: pytest.MonkeyPatch) -> None:
    relay = start_sandbox(seconds=0, options=["--prefix", "/relay"])
    for host, good in ((f"{relay.url}/relay", True), (f"{relay.url}/relay/v1", True), (relay.url, False)):
        monkeypatch.setenv("AIRFLOW_CONN_VIDEO_RELAY", json.dumps(relay.connection(host=host)))
        assert VideoHook("video_relay").test_connection()[0] is good
