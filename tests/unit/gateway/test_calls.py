"""Calls beside create and query, over real HTTP: cancel, balance, check; and where a file is asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from airflow_video_provider.gateway import GatewayError, InvalidRequestError, TaskState, Verdict, VideoRequest
from airflow_video_provider.gateway.openrouter import OPENROUTER

KEY = "sk-test-0123456789abcdef"
WIRE = Path(__file__).resolve().parents[2] / "data" / "wire"
REQUEST = VideoRequest(prompt="a cat", model="m", seconds=8)

Reply = tuple[int, object]
Routes = dict[str, Reply]


def example(name: str) -> Any:
    return json.loads((WIRE / f"{name}.json").read_text(encoding="utf-8"))


class Site:
    """A gateway whose replies a test writes down, route by route; `{id}` stands for any last segment."""

    def __init__(self, routes: Routes) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            default: ClassVar[Reply] = (404, b"404 page not found")

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                site.seen.append((self.command, self.path, dict(self.headers), body))
                path = self.path.partition("?")[0]
                anything = path.rpartition("/")[0] + "/{id}"
                found = routes.get(f"{self.command} {path}") or routes.get(f"{self.command} {anything}")
                status, reply = found or routes.get("*", self.default)
                content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                kind = "text/html" if content.startswith(b"<") else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    @property
    def asked(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.seen]


@pytest.fixture
def site() -> Iterator[Callable[[Routes], Site]]:
    started: list[Site] = []

    def start(routes: Routes) -> Site:
        started.append(Site(routes))
        return started[-1]

    yield start
    for each in started:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture
def call(connect: Any) -> Callable[..., Any]:
    """`call(url, "cancel", "x", dialect=…)`: with either client."""

    def run(url: str, name: str, *args: Any, key: str | None = KEY, **settings: Any) -> Any:
        client = connect(url, key, **settings)
        return client.run(getattr(client.gateway, name)(*args))

    return run


# -- cancel --------------------------------------------------------------------------------------------------


class TestCancel:
    @pytest.mark.parametrize(
        "reply",
        [
            (200, {"id": "a/b", "object": "video.deleted", "deleted": True}),
            (200, {"id": "a/b", "status": "deleted"}),
            (200, {}),
            (200, b""),
            (204, b""),
            (202, {"status": "cancelling"}),
        ],
    )
    def test_is_one_delete_with_the_key(self, call: Any, site: Any, reply: Reply) -> None:
        server = site({"DELETE /v1/videos/{id}": reply})
        assert call(server.url, "cancel", "a/b", dialect="openai") is None
        assert server.asked == ["DELETE /v1/videos/a%2Fb"]
        assert server.seen[0][2]["Authorization"] == f"Bearer {KEY}"

    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            ((200, {"id": "x", "deleted": False}), "invalid_request"),
            ((200, {"code": 400, "msg": "too late"}), "invalid_request"),
            ((404, {"detail": "Video not found"}), "not_found"),
            ((405, {"detail": "Method Not Allowed"}), "not_found"),
            ((409, {"detail": "already finished"}), "invalid_request"),
            ((401, b""), "authentication"),
            ((500, b""), "server"),
            ((302, b""), "invalid_request"),
        ],
    )
    def test_that_did_not_happen_says_so(self, call: Any, site: Any, reply: Reply, kind: str) -> None:
        server = site({"DELETE /v1/videos/{id}": reply})
        with pytest.raises(GatewayError) as caught:
            call(server.url, "cancel", "x", dialect="openai")
        assert (caught.value.kind, caught.value.maybe_accepted) == (kind, False)
        assert len(server.asked) == 1

    def test_where_the_dialect_has_none_sends_nothing(self, call: Any, site: Any) -> None:
        server = site({})
        with pytest.raises(InvalidRequestError, match="unified has no route that cancels a task"):
            call(server.url, "cancel", "x")
        assert server.asked == []


# -- balance -------------------------------------------------------------------------------------------------

SUBSCRIPTION = {"object": "billing_subscription", "hard_limit_usd": 30.5, "soft_limit_usd": 30.5}
USED = {"object": "list", "total_usage": 1050}


class TestBalance:
    def test_of_a_token_is_told_in_units(self, call: Any, site: Any) -> None:
        server = site({"GET /api/usage/token/": (200, example("balance_usage_token_newapi"))})
        balance = call(f"{server.url}/v1", "balance")
        assert (balance.left, balance.used, balance.granted) == (987655, 12345, 1000000)
        assert (balance.unit, balance.name, balance.expires_at) == ("units", "films", None)
        assert str(balance) == "987,655 of 1,000,000 units left"
        assert server.asked == ["GET /api/usage/token/"]

    def test_that_expires_says_when(self, call: Any, site: Any) -> None:
        body = example("balance_usage_token_newapi")
        body["data"]["expires_at"] = 1770350082
        balance = call(site({"GET /api/usage/token/": (200, body)}).url, "balance")
        assert balance.expires_at == datetime(2026, 2, 6, 3, 54, 42, tzinfo=UTC)
        assert str(balance).endswith("left, until 2026-02-06 03:54 UTC")

    def test_without_limit_is_told_as_such(self, call: Any, site: Any) -> None:
        body = example("balance_usage_token_newapi")
        body["data"]["unlimited_quota"] = True
        balance = call(site({"GET /api/usage/token/": (200, body)}).url, "balance")
        assert (balance.unlimited, balance.left, str(balance)) == (True, None, "no limit")

    @pytest.mark.parametrize(
        "first",
        [
            (404, {"error": {"message": "Invalid URL (GET /api/usage/token/)"}}),
            (200, {"success": False, "message": "not for this key"}),
            (200, {"error": {"message": "no", "type": "new_api_error"}}),
            (200, b"<html>the console</html>"),
            (401, {"success": False, "message": "no"}),
            (500, b""),
        ],
    )
    def test_is_else_the_limit_less_hundredths_used(self, call: Any, site: Any, first: Reply) -> None:
        server = site(
            {
                "GET /api/usage/token/": first,
                "GET /v1/dashboard/billing/subscription": (200, SUBSCRIPTION),
                "GET /v1/dashboard/billing/usage": (200, USED),
            }
        )
        balance = call(server.url, "balance")
        assert (balance.left, balance.used, balance.granted) == (20, 10.5, 30.5)
        # The field's name, which a site may well show yuan in.
        assert str(balance) == "20 of 30.5 usd left"

    def test_of_an_unlimited_subscription_has_no_limit(self, call: Any, site: Any) -> None:
        server = site({"GET /v1/dashboard/billing/subscription": (200, {"hard_limit_usd": 100000000})})
        assert str(call(server.url, "balance")) == "no limit"

    @pytest.mark.parametrize(
        "missing", [(404, b""), (404, {"detail": "Not Found"}), (200, b"<html></html>"), (200, {})]
    )
    def test_is_none_where_no_route_tells_one(self, call: Any, site: Any, missing: Reply) -> None:
        assert call(site({"*": missing}).url, "balance") is None

    @pytest.mark.parametrize(("reply", "kind"), [((401, b""), "authentication"), ((429, b""), "rate_limit")])
    def test_that_was_refused_is_no_missing_route(
        self, call: Any, site: Any, reply: Reply, kind: str
    ) -> None:
        with pytest.raises(GatewayError) as caught:
            call(site({"*": reply}).url, "balance")
        assert caught.value.kind == kind

    @pytest.mark.parametrize(
        "body",
        [
            {"data": {"total_available": "much"}}, {"data": []}, [], "x", None, {"balance": None},
            {"balance": True}, {"data": {"total_available": {}, "expires_at": "soon"}},
            {"hard_limit_usd": []},
        ],
    )  # fmt: skip
    def test_is_never_a_traceback(self, call: Any, site: Any, body: object) -> None:
        assert call(site({"*": (200, body)}).url, "balance") is None

    def test_of_a_dialect_is_asked_where_it_says(self, call: Any, site: Any) -> None:
        server = site({"GET /v1/credits": (200, {"data": {"total_credits": 10, "total_usage": 2.5}})})
        balance = call(server.url, "balance", dialect=OPENROUTER)
        assert (balance.left, str(balance)) == (7.5, "7.5 of 10 credits left")


# -- where the file is ---------------------------------------------------------------------------------------


class TestAContentUrl:
    @pytest.mark.parametrize(
        ("url", "dialect"),
        [
            ("http://localhost:3000/v1/videos/task_l1/content", "newapi"),
            ("http://127.0.0.1:3000/v1/videos/task_l1/content", "unified"),
            ("https://another-name.example/v1/videos/task_l1/content", "newapi"),
            ("https://another-name.example/prefix/v1/videos/task_l1/content", "newapi"),
        ],
    )
    def test_of_the_gateway_is_asked_at_the_address_that_gets_the_key(
        self, call: Any, site: Any, url: str, dialect: str
    ) -> None:
        body = example("generations_get_success_result_url_localhost")
        body["data"]["result_url"] = url
        server = site({"*": (200, body)})
        task = call(f"{server.url}/relay", "get_task", "task_l1", dialect=dialect)
        assert task.video_url == f"{server.url}/relay/v1/videos/task_l1/content"
        assert task.video_urls == (task.video_url,)

    @pytest.mark.parametrize(
        "url",
        [
            "https://cdn.example/v.mp4",
            "https://cdn.example/v1/videos/another/content",
            "https://cdn.example/v1/videos/task_l1/content?signature=s",
            "http://127.0.0.1:8080/v.mp4",
        ],
    )
    def test_of_anybody_else_stays_as_it_is(self, call: Any, site: Any, url: str) -> None:
        server = site({"*": (200, {"status": "completed", "url": url})})
        assert call(server.url, "get_task", "task_l1").video_url == url

    def test_that_needs_the_key_keeps_its_query(self, call: Any, site: Any) -> None:
        urls = [f"https://openrouter.ai/api/v1/videos/gen-1/content?index={n}" for n in (0, 1)]
        server = site({"*": (200, {"status": "completed", "unsigned_urls": urls})})
        task = call(f"{server.url}/api", "get_task", "gen-1", dialect=OPENROUTER)
        assert task.video_urls == tuple(f"{server.url}/api/v1/videos/gen-1/content?index={n}" for n in (0, 1))


# -- a create without JSON -----------------------------------------------------------------------------------


class TestAMultipartCreate:
    def test_needs_no_file(self, call: Any, site: Any) -> None:
        server = site({"POST /v1/videos": (200, {"id": "video-1", "status": "queued"})})
        task = call(server.url, "submit", REQUEST, dialect={"base": "openai", "create_encoding": "multipart"})
        assert (task.video_id, task.state) == ("video-1", TaskState.QUEUED)
        ((_, _, headers, body),) = server.seen
        assert headers["Content-Type"].startswith("multipart/form-data; boundary=")
        assert b'name="seconds"\r\n\r\n8\r\n' in body
        assert b"filename" not in body

    def test_is_what_the_connection_says(self, call: Any, site: Any) -> None:
        server = site({"POST /v1/videos": (200, {"id": "video-1"})})
        call(server.url, "submit", REQUEST, dialect="openai", create_encoding="multipart")
        assert server.seen[0][2]["Content-Type"].startswith("multipart/form-data")


class TestAReplyThatClaimsAnError:
    @pytest.mark.parametrize("status", [401, "401"])
    def test_is_that_error_though_it_has_an_id(self, call: Any, site: Any, status: object) -> None:
        server = site({"*": (200, {"id": "trace-1", "status": status, "message": "bad key"})})
        with pytest.raises(GatewayError) as caught:
            call(server.url, "get_task", "x")
        assert caught.value.kind == "authentication"

    def test_beside_a_status_word_is_a_task(self, call: Any, site: Any) -> None:
        body = {"id": "x", "status": "processing", "error": {"code": 500, "message": "an earlier try"}}
        assert call(site({"*": (200, body)}).url, "get_task", "x").state is TaskState.RUNNING


# -- OpenRouter from submit to the end -----------------------------------------------------------------------


class TestOpenRouter:
    def test_is_asked_and_read_as_its_documents_say(self, call: Any, site: Any) -> None:
        server = site(
            {
                "POST /api/v1/videos": (
                    202,
                    {"id": "gen-1", "polling_url": "/api/v1/videos/gen-1", "status": "pending"},
                ),
                "GET /api/v1/videos/gen-1": (200, example("videos_get_completed_openrouter")),
            }
        )
        created = call(f"{server.url}/api/v1", "submit", REQUEST, dialect=OPENROUTER)
        done = call(f"{server.url}/api/v1", "get_task", created.video_id, dialect=OPENROUTER)
        assert json.loads(server.seen[0][3]) == {"model": "m", "prompt": "a cat", "duration": 8}
        assert (created.state, done.state, done.usage) == (
            TaskState.QUEUED,
            TaskState.SUCCEEDED,
            {"cost": 0.5},
        )

    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            ((402, {"error": {"code": 402, "message": "Insufficient credits"}}), "quota"),
            ((401, {"error": {"code": 401, "message": "No auth credentials found"}}), "authentication"),
        ],
    )
    def test_refuses_in_its_own_envelope(self, call: Any, site: Any, reply: Reply, kind: str) -> None:
        with pytest.raises(GatewayError) as caught:
            call(site({"*": reply}).url, "submit", REQUEST, dialect=OPENROUTER)
        assert caught.value.kind == kind

    def test_that_failed_says_why(self, call: Any, site: Any) -> None:
        body = {"id": "gen-1", "status": "failed", "error": "refused by provider"}
        task = call(site({"*": (200, body)}).url, "get_task", "gen-1", dialect=OPENROUTER)
        assert (task.state, task.failure) == (TaskState.FAILED, "refused by provider")


# -- check ---------------------------------------------------------------------------------------------------


class TestCheck:
    @pytest.mark.parametrize(
        ("routes", "verdict", "words"),
        [
            ({"*": (404, {"detail": "Video not found"})}, Verdict.ACCEPTED, "The gateway accepts the key"),
            ({"*": (401, {"error": {"message": "no"}})}, Verdict.BAD_KEY, "Bad API key"),
            ({"*": (404, {"detail": "Not Found"})}, Verdict.WRONG_ROUTE, "Wrong path or dialect"),
            (
                {"*": (404, b"<html><title>404 Not Found</title></html>")},
                Verdict.WRONG_ROUTE,
                "Wrong path or dialect",
            ),
            ({"*": (200, b"<html>welcome</html>")}, Verdict.WRONG_HOST, "Wrong host or path"),
            ({"*": (404, {"error": "not found"})}, Verdict.CANNOT_TELL, "Cannot tell"),
            ({"*": (200, {"status": "ok"})}, Verdict.CANNOT_TELL, "Cannot tell"),
            ({"*": (400, {"error": "bad request"})}, Verdict.CANNOT_TELL, "Cannot tell"),
            # A server with another answer to nonsense has the route.
            ({"GET /v1/video/query": (404, {"error": "not found"})}, Verdict.ACCEPTED, "accepts the key"),
            (
                {"GET /v1/video/query": (422, {"detail": "the id must be a UUID"})},
                Verdict.ACCEPTED,
                "accepts",
            ),
            ({"GET /v1/video/query": (200, {"status": "unknown"})}, Verdict.ACCEPTED, "accepts the key"),
            ({"*": (402, {"error": "insufficient balance"})}, Verdict.REFUSED, "no balance left"),
            ({"*": (429, b"")}, Verdict.REFUSED, "too many requests"),
            ({"*": (503, b"")}, Verdict.REFUSED, "the gateway failed"),
            ({"*": (403, {"error": "forbidden"})}, Verdict.REFUSED, "forbidden"),
            ({"*": (301, b"")}, Verdict.REFUSED, "redirects"),
        ],
    )
    def test_tells_the_cases_apart(
        self, call: Any, site: Any, routes: Routes, verdict: Verdict, words: str
    ) -> None:
        server = site(routes)
        check = call(server.url, "check")
        assert (check.verdict, check.accepted) == (verdict, verdict is Verdict.ACCEPTED)
        assert words in check.message
        assert KEY not in check.message
        assert all(asked.startswith("GET ") for asked in server.asked)

    def test_of_a_task_named_as_missing_is_one_question(self, call: Any, site: Any) -> None:
        server = site({"*": (400, example("error_400_task_not_exist_newapi"))})
        assert call(server.url, "check").accepted
        assert len(server.asked) == 1

    def test_where_nobody_listens_is_a_wrong_host(self, call: Any) -> None:
        assert call("http://127.0.0.1:9", "check", timeout=2).verdict is Verdict.WRONG_HOST

    def test_without_a_key_says_so(self, call: Any, site: Any) -> None:
        server = site({"*": (404, {"detail": "task not found"})})
        assert "wants no key" in call(server.url, "check", key=None).message
