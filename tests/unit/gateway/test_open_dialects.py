"""A dialect is data: of this package, of another one, of a connection; a bad one is named by its field."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_video_provider.gateway import (
    Dialect,
    Gateway,
    GatewaySettings,
    InvalidRequestError,
    ReferenceFile,
    TaskState,
    UnreadableReplyError,
    VideoTask,
)
from airflow_video_provider.gateway.dialects import (
    DIALECTS,
    ENTRY_POINTS,
    cancel_request,
    content_request,
    create_request,
    dialect_from,
    known_dialects,
    query_request,
)
from airflow_video_provider.gateway.openrouter import OPENROUTER
from airflow_video_provider.gateway.request import request_from
from airflow_video_provider.gateway.task import read_created_id

ROOT = Path(__file__).resolve().parents[3]
FILE = ReferenceFile("cat.png", b"\x89PNG\r\n", "image/png")
LEAST = {"name": "films", "create_path": "/make", "query_path": "/made/{id}"}
CDN = "https://cdn.example/v.mp4"


def made(**fields: Any) -> Dialect:
    return dialect_from({**LEAST, **fields})


def create(dialect: Dialect, **knobs: Any) -> Any:
    return create_request(dialect, request_from(**{"model": "m", "prompt": "a cat", **knobs}))


def read(body: object, **fields: Any) -> VideoTask:
    return VideoTask.from_reply(body, video_id="x", dialect=made(**fields))


class TestWhatADialectSaysOfACreate:
    def test_the_least_is_two_routes(self) -> None:
        wire = create(made())
        assert (wire.method, wire.path, wire.json) == ("POST", "/make", {"model": "m", "prompt": "a cat"})
        assert query_request(made(), "a/b").path == "/made/a%2Fb"

    def test_knobs_and_constants_go_where_it_says(self) -> None:
        dialect = made(
            prompt_field="input.prompt",
            spelling={
                "size": "parameters.size",
                "seconds": {"field": "parameters.duration", "write": "integer"},
                "images": {"field": "input.media", "write": "list"},
            },
            constants={"parameters.watermark": False},
        )
        assert create(dialect, size="1280x720", seconds="5", images=[CDN]).json == {
            "model": "m",
            "input": {"prompt": "a cat", "media": [CDN]},
            "parameters": {"watermark": False, "size": "1280x720", "duration": 5},
        }

    def test_a_place_may_be_in_a_list(self) -> None:
        dialect = made(prompt_field="content.0.text", constants={"content.0.type": "text"})
        assert create(dialect).json == {"model": "m", "content": [{"text": "a cat", "type": "text"}]}

    def test_the_model_may_be_in_the_path(self) -> None:
        dialect = made(
            create_path="/models/{model}/predictions", model_field=None, prompt_field="input.prompt"
        )
        wire = create(dialect, model="owner/name v2")
        assert (wire.path, wire.json) == (
            "/models/owner/name%20v2/predictions",
            {"input": {"prompt": "a cat"}},
        )

    def test_extra_fields_go_where_it_says(self) -> None:
        dialect = made(prompt_field="input.prompt", extra_field="input")
        assert create(dialect, extra_body={"seed": 7}).json["input"] == {"prompt": "a cat", "seed": 7}
        with pytest.raises(InvalidRequestError, match=r"extra_body\.prompt"):
            create(dialect, extra_body={"prompt": "a dog"})

    def test_extra_fields_that_have_no_place_are_refused(self) -> None:
        dialect = made(constants={"input": "text"}, extra_field="input")
        with pytest.raises(InvalidRequestError, match=r"dialect\.extra_field"):
            create(dialect, extra_body={"seed": 7})

    @pytest.mark.parametrize(
        ("encoding", "file", "body", "as_file"),
        [
            ("json", None, "json", False),
            ("json", FILE, "json", False),
            ("multipart", None, "form", False),
            ("multipart", FILE, "form", True),
            ("multipart_with_file", None, "json", False),
            ("multipart_with_file", FILE, "form", True),
        ],
    )
    def test_its_encoding_is_kept(
        self, encoding: str, file: ReferenceFile | None, body: str, as_file: bool
    ) -> None:
        dialect = dialect_from({"base": "openai", "create_encoding": encoding})
        wire = create(dialect, seconds=8, input_reference=file)
        assert (wire.json is not None, wire.form is not None) == (body == "json", body == "form")
        assert (wire.file is FILE) is as_file
        fields = wire.json if body == "json" else wire.form
        assert fields["seconds"] == "8"
        # Without a part for it, a file goes among the pictures.
        assert fields.get("input_reference", "").startswith("data:image/png") is (
            file is FILE and not as_file
        )

    def test_a_reply_to_it_has_the_id_where_it_says(self) -> None:
        body = {"id": "wrong", "job": {"uid": 17}}
        assert read_created_id(body, made(id_places=["job.uid"])) == "17"
        assert read_created_id(body, made(id_places=["job.name"])) == "wrong"


class TestWhatADialectSaysOfATask:
    def test_its_words_come_first(self) -> None:
        words = {"dreaming": "running", "Baked": "succeeded", "unknown": "failed"}
        assert read({"status": "Baked"}, status_words=words).state is TaskState.SUCCEEDED
        assert read({"status": "UNKNOWN"}, status_words=words).state is TaskState.FAILED
        assert read({"status": "completed"}, status_words=words).state is TaskState.SUCCEEDED

    @pytest.mark.parametrize(
        ("outcome", "body", "state"),
        [
            ("status", {"status": "COMPLETED", "error": "an earlier try"}, TaskState.SUCCEEDED),
            ("error", {"status": "COMPLETED", "error": "no luck"}, TaskState.FAILED),
            ("error", {"status": "COMPLETED", "error": {"message": "no luck"}}, TaskState.FAILED),
            ("error", {"status": "COMPLETED", "error": None}, TaskState.SUCCEEDED),
            ("error", {"status": "COMPLETED", "error": {}}, TaskState.SUCCEEDED),
            ("error", {"status": "IN_PROGRESS", "error": "an earlier try"}, TaskState.RUNNING),
            ("done", {"status": "completed", "done": False}, TaskState.RUNNING),
            ("done", {"status": "processing", "done": True}, TaskState.SUCCEEDED),
            ("done", {"done": True, "error": {"code": 3, "message": "no luck"}}, TaskState.FAILED),
            ("done", {"done": True, "error": "no luck"}, TaskState.FAILED),
            ("done", {"id": "x"}, TaskState.RUNNING),
        ],
    )
    def test_its_rule_decides_how_it_ended(self, outcome: str, body: object, state: TaskState) -> None:
        task = read(body, outcome=outcome)
        assert task.state is state
        assert (task.failure == "no luck") is (state is TaskState.FAILED)

    def test_its_places_of_urls_come_first(self) -> None:
        body = {
            "status": "completed",
            "url": "https://x.example/poster",
            "files": [{"href": CDN}, {"href": CDN + "2"}],
        }
        task = read(body, url_places=["files.*.href"])
        assert (task.video_url, task.video_urls) == (CDN, (CDN, CDN + "2"))
        assert read({"files": [{"href": CDN}]}, url_places=["files.0.href"]).state is TaskState.RUNNING
        assert read({"status": "completed", "url": CDN}, url_places=["files.0.href"]).video_url == CDN


class TestRoutes:
    def test_that_it_has_not_are_refused_by_name(self) -> None:
        with pytest.raises(InvalidRequestError, match="cancel_path"):
            cancel_request(DIALECTS["unified"], "x")
        with pytest.raises(InvalidRequestError, match="content_path"):
            content_request(made(content_path=None), "x")

    def test_that_cancels_is_a_delete_of_one_segment(self) -> None:
        wire = cancel_request(DIALECTS["openai"], "a/b")
        assert (wire.method, wire.path, wire.may_be_redirected) == ("DELETE", "/v1/videos/a%2Fb", False)

    def test_of_a_query_may_be_a_post(self) -> None:
        dialect = made(
            query_path="/fetch", query_method="POST", query_body={"name": "{id}", "of": {"id": "{id}"}}
        )
        wire = query_request(dialect, "a/b")
        assert wire.path == "/fetch"
        assert (wire.method, wire.json, wire.billed) == ("POST", {"name": "a/b", "of": {"id": "a/b"}}, False)


class TestABadOne:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"create_path": "make"}, "dialect.create_path: must be a path that starts with one /"),
            ({"create_path": "//evil.example/x"}, "dialect.create_path: must be a path"),
            ({"create_path": "/a b"}, "dialect.create_path"),
            ({"create_path": "/a/{key}"}, "dialect.create_path: may hold {id} and {model}, not {key}"),
            ({"query_path": "/made"}, "dialect.query_path: must hold {id}"),
            ({"query_path": None}, "dialect.query_path"),
            ({"nmae": "x"}, "dialect.nmae: is no field of a dialect"),
            ({"create_encoding": "xml"}, "dialect.create_encoding: Input should be 'json'"),
            ({"create_encoding": "multipart"}, "dialect.file_field: is missing"),
            (
                {"spelling": {"sise": "size"}},
                "dialect.spelling.sise: is no knob of a request; those are aspect_ratio",
            ),
            ({"spelling": {"size": {"field": "size", "write": "loud"}}}, "dialect.spelling.size.write"),
            ({"spelling": {"size": 7}}, "dialect.spelling.size"),
            ({"spelling": ["size"]}, "dialect.spelling"),
            ({"status_words": {"baked": "cooked"}}, "dialect.status_words.baked"),
            ({"outcome": "luck"}, "dialect.outcome"),
            ({"url_places": ["a..b"]}, "dialect.url_places.0"),
            ({"headers": {"X Team": "a"}}, "dialect.headers"),
            ({"poll_floor": -1}, "dialect.poll_floor"),
            ({"model_field": None}, "dialect.model_field: is missing"),
            ({"base": "azure"}, "dialect.base: 'azure' is none; allowed: unified, openai, newapi"),
            ({"base": ["openai"]}, "dialect.base"),
            ({"name": ""}, "dialect.name"),
            ({"prompt_field": "0.text"}, "dialect.prompt_field: must begin with a name"),
            ({"constants": {"a.1000": 1}}, "dialect.constants"),
            ({"extra_field": "a.0"}, "dialect.extra_field: must hold names only"),
        ],
    )
    def test_is_refused_by_the_name_of_its_field(self, fields: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            GatewaySettings("https://gw.example", "sk-1", dialect={**LEAST, **fields})
        assert str(refused.value).startswith(words)

    @pytest.mark.parametrize("fields", [{}, {"create_path": "/make"}])
    def test_that_lacks_a_route_says_which(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequestError, match=r"dialect\.query_path: is missing"):
            dialect_from(fields)

    @pytest.mark.parametrize("value", ["azure", "", None, 7, ["openai"]])
    def test_name_is_refused_with_those_there_are(self, value: object) -> None:
        with pytest.raises(InvalidRequestError, match="allowed: unified, openai, newapi"):
            dialect_from(value)


class TestOneInAConnection:
    def test_may_change_a_field_of_another(self) -> None:
        dialect = dialect_from({"base": "openai", "create_encoding": "multipart"})
        assert (dialect.name, dialect.create_encoding) == ("openai", "multipart")
        assert dialect.model_copy(update={"create_encoding": "multipart_with_file"}) == DIALECTS["openai"]

    def test_makes_settings_that_are_equal_and_can_be_a_key(self) -> None:
        one, two = (GatewaySettings("https://gw.example", dialect=dict(LEAST)) for _ in range(2))
        assert (one, hash(one)) == (two, hash(two))
        assert one != GatewaySettings("https://gw.example", dialect={**LEAST, "poll_floor": 5})
        assert str(one.dialect) == one.spoken.name == "films"

    def test_may_be_named_as_before(self) -> None:
        settings = GatewaySettings("https://gw.example", dialect="openai")
        assert (settings.dialect, settings.spoken) == ("openai", DIALECTS["openai"])

    def test_takes_an_encoding_of_the_connections_own(self) -> None:
        settings = GatewaySettings("https://gw.example", dialect="newapi", create_encoding="multipart")
        assert settings.spoken.create_encoding == "multipart"
        with pytest.raises(
            InvalidRequestError, match="create_encoding: 'xml' is none; allowed: json, multipart"
        ):
            GatewaySettings("https://gw.example", create_encoding="xml")

    @pytest.mark.parametrize(
        ("fields", "header"),
        [
            ({"auth_scheme": "Key"}, ("Authorization", "Key sk-1")),
            ({"auth_header": "api-key", "auth_scheme": ""}, ("api-key", "sk-1")),
        ],
    )
    def test_says_how_the_key_is_sent(self, fields: dict[str, Any], header: tuple[str, str]) -> None:
        settings = GatewaySettings("https://gw.example", "sk-1", dialect={**LEAST, **fields})
        headers = settings.request_headers()
        assert header in headers.items()
        assert [name for name in headers if "sk-1" in headers[name]] == [header[0]]

    def test_has_static_headers_that_the_connection_may_change(self) -> None:
        dialect = {**LEAST, "headers": {"X-Version": "2024-11-06", "X-Async": "enable"}}
        settings = GatewaySettings(
            "https://gw.example", dialect=dialect, headers=(("x-version", "2026-01-01"),)
        )
        assert settings.request_headers()["x-version"] == "2026-01-01"
        assert settings.request_headers()["X-Async"] == "enable"


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Another package's entry points, found as an installed package's are."""

    def install(text: str = "", module: str = "films_dialects", **points: str) -> None:
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{lines}")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


class TestOneOfAnotherPackage:
    MODULE = (
        'FILMS = {"base": "openai", "create_encoding": "multipart"}\n'
        "NONE = 7\n"
        'BAD = {"base": "openai", "poll_floor": "soon"}\n'
    )

    def test_is_known_by_its_entry_points_name(self, other_package: Callable[..., None]) -> None:
        other_package(self.MODULE, films="films_dialects:FILMS")
        dialect = GatewaySettings("https://gw.example", dialect="films").spoken
        assert (dialect.name, dialect.create_encoding) == ("films", "multipart")
        assert "films" in known_dialects()
        assert dialect_from({"base": "films"}).create_encoding == "multipart"

    def test_may_be_a_dialect_already(self, other_package: Callable[..., None]) -> None:
        other_package(films="airflow_video_provider.gateway.openrouter:OPENROUTER")
        assert dialect_from("films") is OPENROUTER

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ("films_dialects:BAD", "is not one: dialect.poll_floor"),
            ("films_dialects:NONE", "is no Dialect and no object"),
            ("films_dialects:MISSING", "cannot be loaded: AttributeError"),
            ("no_such_module:FILMS", "cannot be loaded: ModuleNotFoundError"),
        ],
    )
    def test_that_is_bad_is_named_and_hinders_no_other(
        self, other_package: Callable[..., None], value: str, words: str
    ) -> None:
        other_package(self.MODULE, films=value)
        with pytest.raises(InvalidRequestError, match="the entry point films = ") as refused:
            dialect_from("films")
        assert words in str(refused.value)
        assert dialect_from("openai").name == "openai"

    def test_cannot_take_the_name_of_one_of_ours(self, other_package: Callable[..., None]) -> None:
        other_package(self.MODULE, unified="films_dialects:FILMS")
        assert dialect_from("unified").create_path == "/v1/video/create"


class TestOpenRouter:
    def test_is_added_by_the_entry_point_of_this_package(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        ((name, value),) = project["entry-points"][ENTRY_POINTS].items()
        module, _, attribute = value.partition(":")
        assert (name, getattr(importlib.import_module(module), attribute)) == ("openrouter", OPENROUTER)
        assert "openrouter" not in list(DIALECTS)

    def test_spells_a_request_as_its_documents_do(self) -> None:
        wire = create(OPENROUTER, seconds="8", aspect_ratio="16:9", images=[CDN], extra_body={"seed": 1})
        assert (wire.method, wire.path) == ("POST", "/v1/videos")
        assert wire.json == {
            "model": "m",
            "prompt": "a cat",
            "duration": 8,
            "aspect_ratio": "16:9",
            "input_references": [{"type": "image_url", "image_url": {"url": CDN}}],
            "seed": 1,
        }

    def test_prefers_the_urls_that_need_no_key(self) -> None:
        body = {"status": "completed", "unsigned_urls": ["https://o.example/u"], "urls": [f"{CDN}?sig=1"]}
        task = VideoTask.from_reply(body, video_id="g", dialect=OPENROUTER)
        assert task.video_url == f"{CDN}?sig=1"


def blocks(language: str) -> list[str]:
    """The code of docs/dialects.md."""
    text = (ROOT / "docs" / "dialects.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


class TestTheDocument:
    def test_has_an_example_that_works_against_a_gateway(
        self, other_package: Callable[..., None], start_sandbox: Callable[..., Any]
    ) -> None:
        (module,), (toml,) = blocks("python"), blocks("toml")
        assert len(module.splitlines()) <= 35
        ((name, value),) = tomllib.loads(toml)["project"]["entry-points"][ENTRY_POINTS].items()
        other_package(module, value.partition(":")[0], **{name: value})
        shop = start_sandbox(seconds=3600, key="sk-studio")
        with Gateway(shop.url, "sk-studio", dialect=name, verify=False) as gateway:
            assert gateway.check().accepted
            task = gateway.submit(
                request_from(model="veo3.1-fast", prompt="a cat", seconds=8, aspect_ratio="9:16")
            )
            assert gateway.get_task(task.video_id).state is TaskState.QUEUED
            httpx.post(f"{shop.url}/sandbox/clock", json={"advance": 3600}, trust_env=False)
            done = gateway.get_task(task.video_id)
            assert (done.state, done.usage) == (TaskState.SUCCEEDED, {"quota": 175000})
            assert done.video_url
            assert str(gateway.balance()) == "no limit"
            gateway.cancel(task.video_id)

    def test_has_extras_that_are_dialects(self) -> None:
        for block in blocks("json"):
            assert dialect_from(json.loads(block)["dialect"]).create_encoding == "multipart"

    def test_names_every_field_and_no_other(self) -> None:
        text = (ROOT / "docs" / "dialects.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ", text.partition("## The fields")[2], re.M)
        told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert told == set(Dialect.model_fields) - {"name"}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([CDN, "completed", "failed", "Baked", "{", '{"error": "x"}', 10**400])
    | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["status", "data", "files", "href", "error", "done", "usage", "job", "errors", "id"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


class TestAnyReplyInAnyDialect:
    @given(body=values, outcome=st.sampled_from(["status", "error", "done"]))
    @settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    def test_is_a_task_that_can_be_stored_or_unreadable(self, body: Any, outcome: str) -> None:
        dialect = made(
            outcome=outcome,
            status_words={"baked": "succeeded"},
            url_places=["files.*.href", "files.0"],
            id_places=["job.*.id", "job.id"],
            cost_places=["job.*", "data.job"],
        )
        created = read_created_id(body, dialect)
        assert created is None or created.encode()
        try:
            task = VideoTask.from_reply(body, video_id="x", dialect=dialect)
        except UnreadableReplyError:
            return
        told = task.as_json()
        assert json.loads(json.dumps(told, allow_nan=False)) == told
        assert task.video_urls[:1] == ((task.video_url,) if task.video_url else ())
        assert task.refusal is None or task.state.is_final
