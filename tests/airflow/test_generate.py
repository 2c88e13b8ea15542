"""The operator that pays: once, and whatever goes wrong says whether it did."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath

from airflow_video_provider.exceptions import (
    VideoSubmitFailed,
    VideoTaskFailed,
)
from airflow_video_provider.operators.video import VideoGenerateOperator
from tests.airflow.support import (
    MODEL,
    Clock,
    Gateway,
    Memory,
    StateStore,
    TaskInstance,
    context_of,
    dag_file,
    deferred,
    film,
    finish,
    refused,
    states,
)
from tests.conftest import AIRFLOW


class TestDeferral:
    def test_hands_the_wait_to_the_trigger(self, connection: str, gateway: Gateway, clock: Clock) -> None:
        waiting = deferred(film(poll_interval=20, timeout=600, unreachable_after=99).execute, context_of())
        (payment,) = gateway.payments
        assert waiting.method_name == "execute_complete"
        _, kwargs = waiting.trigger.serialize()
        assert kwargs["video_conn_id"] == "video_default"
        assert kwargs["video_id"] == payment["video_id"]
        assert kwargs["poll_interval"] == 20
        assert kwargs["unreachable_after"] == 99
        assert kwargs["deadline"] == pytest.approx(clock.time() + 600, abs=5)
        assert kwargs["submitted_at"] == pytest.approx(clock.time(), abs=5)
        assert waiting.timeout > timedelta(seconds=600), "Airflow's own end comes after the trigger's"

    def test_the_id_is_there_before_the_wait(
        self, connection: str, gateway: Gateway, logged: list[str]
    ) -> None:
        ti = TaskInstance()
        deferred(film().execute, context_of(ti))
        (payment,) = gateway.payments
        assert ti.xcoms["video_id"] == payment["video_id"]
        assert any(f"submitted video {payment['video_id']}" in line for line in logged)

    def test_the_key_is_in_no_log(self, connection: str, gateway: Gateway, logged: list[str]) -> None:
        deferred(film().execute, context_of())
        assert gateway.key not in "\n".join(logged)

    def test_comes_back_in_a_fresh_instance(self, connection: str, gateway: Gateway, clock: Clock) -> None:
        result = finish()
        assert result["state"] == "succeeded"
        assert result["video_id"] == gateway.payments[0]["video_id"]
        assert gateway.paid == 1

    def test_the_deferral_is_not_shorter_than_airflow_bears(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        waiting = deferred(film(poll_interval=1).execute, context_of())
        assert waiting.trigger.first_poll_at >= clock.time() + 4

    def test_a_video_that_is_done_at_once_is_not_waited_for(self, connection: str, gateway: Gateway) -> None:
        store = StateStore()
        ti = TaskInstance()
        deferred(film().execute, context_of(ti, store))
        gateway.finish()
        result = film().execute(context_of(ti, store))
        assert result["state"] == "succeeded"
        assert gateway.paid == 1

    def test_without_xcom_nothing_is_pushed(self, connection: str) -> None:
        ti = TaskInstance()
        deferred(film(do_xcom_push=False).execute, context_of(ti))
        assert ti.xcoms == {}

    def test_airflows_default_decides(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = {"task_id": "film", "prompt": "a fox", "model": MODEL}
        assert VideoGenerateOperator(**plain).deferrable is False
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
        assert VideoGenerateOperator(**plain).deferrable is True


class TestBlocking:
    def test_waits_in_the_worker(self, connection: str, gateway: Gateway, clock: Clock) -> None:
        ti = TaskInstance()
        result = film(deferrable=False).execute(context_of(ti))
        assert result["state"] == "succeeded"
        assert ti.xcoms["video_id"] == result["video_id"]
        assert gateway.paid == 1
        assert sum(clock.sleeps) >= 60

    def test_ends_as_the_deferred_wait_does(self, connection: str, gateway: Gateway, clock: Clock) -> None:
        blocking, waiting = (
            refused(
                "doomed [fail]", deferrable=way, context=context_of(TaskInstance(run_id=f"manual__{way}"))
            )
            for way in (False, True)
        )
        assert type(blocking) is type(waiting) is VideoTaskFailed
        ids = [payment["video_id"] for payment in gateway.payments]
        assert str(blocking).replace(ids[0], "ID") == str(waiting).replace(ids[1], "ID")

    def test_bears_a_gateway_that_stumbles(self, connection: str, gateway: Gateway, clock: Clock) -> None:
        assert film("a fox [flap=4]", deferrable=False).execute(context_of())["state"] == "succeeded"


class TestNotWaiting:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_returns_as_soon_as_it_is_accepted(
        self, connection: str, gateway: Gateway, deferrable: bool
    ) -> None:
        ti = TaskInstance()
        result = film(wait_for_completion=False, deferrable=deferrable).execute(context_of(ti))
        assert result["state"] in {"queued", "running"}
        assert result["video_id"] == ti.xcoms["video_id"] == gateway.payments[0]["video_id"]
        assert not gateway.requests("GET")

    def test_a_second_attempt_asks_and_pays_nothing(self, connection: str, gateway: Gateway) -> None:
        store = StateStore()
        first = film(wait_for_completion=False).execute(context_of(store=store))
        gateway.finish()
        second = film(wait_for_completion=False).execute(context_of(store=store))
        assert (second["video_id"], second["state"]) == (first["video_id"], "succeeded")
        assert gateway.paid == 1


class TestTheResult:
    @pytest.mark.parametrize("model", [MODEL, "sora-2", "grok-video-3", "kling-v2", "wan-2.5"])
    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    def test_is_plain_json_without_raw_reply_or_signed_url(
        self, connect: Callable[..., str], gateway: Gateway, clock: Clock, dialect: str, model: str
    ) -> None:
        connect(extra={"dialect": dialect})
        result = finish(model=model)
        assert json.loads(json.dumps(result)) == result
        assert "raw" not in result
        assert result["state"] == "succeeded"
        for word in ("Signature", "Expires=", gateway.key):
            assert word not in json.dumps(result)
        if model == MODEL and dialect == "unified":
            assert result["video_url"].endswith(".mp4")

    def test_has_what_the_documentation_lists(self, connection: str, clock: Clock) -> None:
        listed = {
            "video_id", "state", "video_url", "progress", "model", "enhanced_prompt", "thumbnail_url",
            "created_at", "completed_at", "expires_at", "raw_status", "failure", "failure_code", "prompt",
            "refusal", "video_urls", "usage",
        }  # fmt: skip
        assert set(finish()) == listed


def _nobody_listens() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@dataclass(frozen=True)
class Refusal:
    """A generation that is not to happen.

    :param names: what the message has to say.
    :param retry: whether Airflow's retries may try again.
    """

    names: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    connection: dict[str, Any] = field(default_factory=dict)
    retry: bool = False


REFUSALS = {
    "bad key": Refusal(
        ("does not accept the API key", "HTTP 401", "check the connection's password"),
        connection={"password": "sk-not-the-key"},
    ),
    "no key": Refusal(("the connection has none",), connection={"password": ""}),
    "no balance": Refusal(
        ("no balance left", "insufficient_user_quota", "top up the account"),
        {"prompt": "a fox [quota]"},
    ),
    "no balance, told as a rate limit": Refusal(
        ("no balance left", "top up the account"), {"prompt": "a fox [quota-429]"}
    ),
    "unknown model": Refusal(("vidgen-9000", "check the model's name"), {"model": "vidgen-9000"}, retry=True),
    "no channel": Refusal(("No available channel",), {"prompt": "a fox [create-503]"}, retry=True),
    "nobody listens": Refusal(
        ("127.0.0.1", "check the connection's host and port"),
        connection={"host": _nobody_listens()},
        retry=True,
    ),
    "no such host": Refusal(
        ("gateway.invalid", "check the connection's host and port"),
        connection={"host": "http://gateway.invalid"},
        retry=True,
    ),
    "wrong path": Refusal(
        ("no such route", "check the connection's host, path prefix and dialect"),
        connection={"host": "{url}/relay"},
    ),
    "rate limit without end": Refusal(
        ("too many requests", "A retry submits it again"), {"prompt": "a fox [rate-limit]"}, retry=True
    ),
    "refused prompt": Refusal(
        ("refused by moderation", "sentinel_block", "change the prompt or the images", "User-Agent"),
        {"prompt": "a fox [moderation]"},
    ),
    "refused prompt, told as a bad request": Refusal(
        ("refused by moderation",), {"prompt": "a fox [moderation-400]"}
    ),
    "refused in an HTTP 200": Refusal(
        ("prompt is not supported by this model",), {"prompt": "a fox [create-wrapped]"}
    ),
    "empty prompt": Refusal(("prompt: must not be empty",), {"prompt": "  "}),
    "empty model": Refusal(("model: must not be empty",), {"model": ""}),
    "aspect ratio in words": Refusal(("aspect_ratio: must look like 16:9",), {"aspect_ratio": "wide"}),
    "aspect ratio of another model": Refusal(
        ("aspect_ratio: '1:1' is not for veo3.1-fast; allowed: 16:9, 9:16",), {"aspect_ratio": "1:1"}
    ),
    "no seconds": Refusal(("seconds: ",), {"seconds": 0}),
    "seconds in words": Refusal(("seconds: ",), {"seconds": "ten"}),
    "orientation": Refusal(("orientation: ", "portrait"), {"orientation": "upside down"}),
    "neither true nor false": Refusal(("enhance_prompt: ",), {"enhance_prompt": "perhaps"}),
    "too many images": Refusal(
        ("images: veo3-pro-frames takes at most 1",),
        {"model": "veo3-pro-frames", "images": ["https://a.example/1.png", "https://a.example/2.png"]},
    ),
    "no JSON": Refusal(("extra_body must be plain JSON",), {"extra_body": {"when": {1, 2}}}),
    "contradiction": Refusal(
        ("extra_body.aspect_ratio: contradicts",),
        {"aspect_ratio": "16:9", "extra_body": {"aspect_ratio": "9:16"}},
    ),
    "a knob that openai has not": Refusal(
        ("aspect_ratio: the openai dialect has no such field; use size",),
        {"aspect_ratio": "16:9"},
        {"extra": {"dialect": "openai"}},
    ),
    "a knob that newapi has not": Refusal(
        ("enable_upsample: the newapi dialect has no such field",),
        {"enable_upsample": True},
        {"extra": {"dialect": "newapi"}},
    ),
    "a knob that unified has not": Refusal(
        ("metadata: the unified dialect has no such field",), {"metadata": {"fps": 24}}
    ),
    "no such reference": Refusal(
        ("input_reference: file:///no/such/cat.png cannot be read",),
        {"input_reference": "file:///no/such/cat.png"},
    ),
    "a reference in no store": Refusal(
        ("input_reference: ", "ftps3"), {"input_reference": "ftps3://bucket/cat.png"}
    ),
    "no host": Refusal(("connection 'video_default': host: is missing",), connection={"host": ""}),
    "bad dialect": Refusal(
        ("connection 'video_default': dialect: 'azure' is none; allowed: unified, openai, newapi",),
        connection={"extra": {"dialect": "azure"}},
    ),
    "unknown extra": Refusal(
        ("connection 'video_default': extra.region: is unknown",), connection={"extra": {"region": "eu"}}
    ),
    "no file of authorities": Refusal(
        ("connection 'video_default': verify: ",), connection={"extra": {"verify": "/no/such/file.pem"}}
    ),
}


class TestARefusalSaysWhyAndPaysNothing:
    @pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
    def test_in_one_line(
        self, connect: Callable[..., str], gateway: Gateway, clock: Clock, case: Refusal
    ) -> None:
        connect(**{
            name: value.format(url=gateway.url) if isinstance(value, str) else value
            for name, value in case.connection.items()
        })  # fmt: skip
        error = refused(**case.arguments)
        assert isinstance(error, VideoSubmitFailed if case.retry else AirflowFailException)
        for words in (*case.names, "nothing was paid"):
            assert words in str(error)
        assert gateway.key not in str(error)
        assert gateway.paid == 0

    @pytest.mark.skipif(AIRFLOW == (3, 0), reason="Airflow 3.0 looks nothing up outside of a task")
    def test_a_missing_connection(self, gateway: Gateway, airflow_database: None) -> None:
        error = refused(video_conn_id="video_nobody_made")
        assert "video_nobody_made" in str(error)
        assert gateway.paid == 0

    @pytest.mark.parametrize("fault", ["moderation", "quota", "rate-limit"])
    def test_and_is_forgotten_so_that_a_retry_may_submit(
        self, connection: str, gateway: Gateway, clock: Clock, fault: str
    ) -> None:
        store = StateStore()
        refused(f"a fox [{fault}]", context=context_of(store=store))
        assert store == {}

    def test_after_a_rate_limit_the_retry_submits(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        store = StateStore()
        assert isinstance(refused("a fox [rate-limit=4]", context=context_of(store=store)), VideoSubmitFailed)
        assert finish("a fox [rate-limit=4]", context_of(store=store))["state"] == "succeeded"
        assert gateway.paid == 1


class TestAnUnknownOutcomeIsNeverRepeated:
    @pytest.mark.parametrize(
        "fault",
        ["create-drop-paid", "create-524-paid", "create-500-paid", "create-html-paid", "create-no-id-paid"],
    )
    def test_it_fails_for_good_and_says_what_to_do(
        self, connection: str, gateway: Gateway, clock: Clock, fault: str
    ) -> None:
        error = refused(f"who knows [{fault}]")
        assert isinstance(error, AirflowFailException)
        for words in ("may have accepted and billed", MODEL, "VideoTaskSensor", "clear this task"):
            assert words in str(error)
        assert "nothing was paid" not in str(error)
        assert gateway.paid == 1
        assert len(gateway.requests("POST")) == 1

    def test_a_gateway_that_does_not_answer_in_time(
        self, connect: Callable[..., str], gateway: Gateway, clock: Clock
    ) -> None:
        connect(extra={"timeout": 0.5})
        error = refused("slow to answer [create-hang-paid]")
        assert isinstance(error, AirflowFailException)
        assert "timed out" in str(error)
        assert gateway.paid == 1


class TestAFailedGeneration:
    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("fail", "the upstream model gave up"),
            ("cancelled", "cancelled by the operator of the gateway"),
            ("expired", "the task waited too long and expired"),
        ],
    )
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_gives_the_reason_and_may_be_retried(
        self, connection: str, gateway: Gateway, clock: Clock, fault: str, reason: str, deferrable: bool
    ) -> None:
        error = refused(f"doomed [{fault}]", deferrable=deferrable)
        assert isinstance(error, VideoTaskFailed)
        assert reason in str(error)
        assert "This was generation 1 of at most 2. A retry submits, and pays for, a new one" in str(error)

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_one_that_moderation_stopped_is_not_repeated(
        self, connection: str, gateway: Gateway, clock: Clock, deferrable: bool
    ) -> None:
        error = refused("doomed [fail-moderation]", deferrable=deferrable)
        assert isinstance(error, AirflowFailException)
        assert "blocked by our moderation system" in str(error)
        assert "Change the prompt or the images" in str(error)

    def test_one_that_was_withheld_is_not_repeated_by_itself(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        memory = Memory(store=StateStore())
        error = memory.refused("doomed [fail-output]")
        assert isinstance(error, AirflowFailException)
        assert "the output video may contain sensitive information" in str(error)
        assert "retry_refused_output=True" in str(error)
        memory.retry()  # Airflow had not heard of the end
        assert isinstance(memory.refused("doomed [fail-output]"), AirflowFailException)
        assert gateway.paid == 1
        memory.clear()
        memory.refused("doomed [fail-output]")
        assert gateway.paid == 2, "a person wanted another"

    def test_one_that_was_withheld_is_worth_another_where_that_was_asked_for(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        memory = Memory(store=StateStore())
        ends = []
        for _ in range(3):
            ends.append(type(memory.refused("doomed [fail-output]", retry_refused_output=True)))
            memory.retry()
        assert ends == [VideoTaskFailed, AirflowFailException, AirflowFailException]
        assert gateway.paid == 2, "the first and one more, as max_generations says"

    def test_a_refused_prompt_is_final_all_the_same(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        error = refused("doomed [fail-moderation]", retry_refused_output=True)
        assert isinstance(error, AirflowFailException)

    def test_a_key_that_was_revoked_in_mid_wait(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        error = refused("revoked [query-401]")
        assert isinstance(error, AirflowFailException)
        assert "Check the connection's password; the task itself goes on" in str(error)


class TestWhatIsSent:
    @pytest.fixture
    def sent(self, connection: str, gateway: Gateway) -> Callable[..., dict[str, Any]]:
        """The body that the gateway got for these arguments, templates rendered as Airflow does."""

        def send(params: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
            operator = film(**arguments)
            context = {**context_of(), "params": params or {}}
            operator.render_template_fields(context)
            deferred(operator.execute, context)
            return gateway.newest["body"]

        return send

    def test_only_what_is_given(self, sent: Callable[..., dict[str, Any]]) -> None:
        assert sent() == {"model": MODEL, "prompt": "a fox in the snow"}

    def test_every_knob_from_a_template(self, sent: Callable[..., dict[str, Any]]) -> None:
        params = {
            "prompt": "a fox", "model": "sora-2", "seconds": 10, "size": "small", "orientation": "portrait",
            "yes": True, "no": False, "image": "https://a.example/1.png", "fps": 24,
        }  # fmt: skip
        body = sent(
            params,
            prompt="{{ params.prompt }}",
            model="{{ params.model }}",
            seconds="{{ params.seconds }}",
            size="{{ params.size }}",
            orientation="{{ params.orientation }}",
            watermark="{{ params.yes }}",
            private="{{ params.no }}",
            enhance_prompt="{{ params.yes }}",
            images=["{{ params.image }}"],
            extra_body={"fps": "{{ params.fps }}", "deep": {"list": ["{{ params.size }}"]}},
        )
        assert body == {
            "model": "sora-2", "prompt": "a fox", "duration": 10, "size": "small", "orientation": "portrait",
            "watermark": True, "private": False, "enhance_prompt": True,
            "images": ["https://a.example/1.png"], "fps": "24", "deep": {"list": ["small"]},
        }  # fmt: skip

    def test_veo_knobs_from_a_template(self, sent: Callable[..., dict[str, Any]]) -> None:
        body = sent(
            {"ratio": "9:16", "yes": True},
            aspect_ratio="{{ params.ratio }}",
            enable_upsample="{{ params.yes }}",
        )
        assert (body["aspect_ratio"], body["enable_upsample"]) == ("9:16", True)

    @pytest.mark.parametrize("value", [None, "", "None", "{{ params.nothing }}"])
    def test_what_renders_to_nothing_is_not_given(
        self, sent: Callable[..., dict[str, Any]], value: str | None
    ) -> None:
        knobs = (
            "images", "aspect_ratio", "size", "seconds", "orientation", "enhance_prompt", "enable_upsample",
            "watermark", "private", "input_reference", "metadata", "callback_url", "extra_body",
            "ledger_path",
        )  # fmt: skip
        body = sent({"nothing": None}, **dict.fromkeys(knobs, value))
        assert body == {"model": MODEL, "prompt": "a fox in the snow"}

    def test_one_image_as_text(self, sent: Callable[..., dict[str, Any]]) -> None:
        assert sent(images="https://a.example/1.png")["images"] == ["https://a.example/1.png"]

    def test_the_connection_from_a_template(self, connect: Callable[..., str], gateway: Gateway) -> None:
        connect("video_films")
        operator = film(video_conn_id="{{ params.conn }}")
        context = {**context_of(), "params": {"conn": "video_films"}}
        operator.render_template_fields(context)
        assert deferred(operator.execute, context).trigger.video_conn_id == "video_films"

    def test_every_argument_for_the_gateway_is_a_template(self) -> None:
        import inspect

        wait = {"wait_for_completion", "deferrable", "poll_interval", "timeout", "unreachable_after"}
        wait |= {"max_generations", "on_clear", "on_unknown_submission"}
        wait |= {"retry_refused_output", "cancel_on_kill", "max_poll_interval", "schedule"}
        wait |= {"parallel", "max_total_generations"}
        taken = set(inspect.signature(VideoGenerateOperator.__init__).parameters) - {"self", "kwargs"}
        assert set(VideoGenerateOperator.template_fields) == taken - wait


class TestAReferencePicture:
    PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40

    @pytest.fixture(params=["file", "s3"])
    def reference(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        if request.param == "file":
            (tmp_path / "cat.png").write_bytes(self.PICTURE)
            return (tmp_path / "cat.png").as_uri()
        request.getfixturevalue("store_connection")
        ObjectStoragePath("s3://store@videos/pictures/cat.png").write_bytes(self.PICTURE)
        return "s3://store@videos/pictures/cat.png"

    def test_openai_gets_the_file(
        self, connect: Callable[..., str], gateway: Gateway, reference: str
    ) -> None:
        connect(extra={"dialect": "openai"})
        deferred(film(input_reference=reference, seconds=8, size="1280x720").execute, context_of())
        assert gateway.newest["body"] == {
            "model": MODEL, "prompt": "a fox in the snow", "seconds": "8", "size": "1280x720",
            "input_reference": {
                "filename": "cat.png", "content_type": "image/png", "bytes": len(self.PICTURE)
            },
        }  # fmt: skip

    def test_the_others_get_it_as_text(
        self, connect: Callable[..., str], gateway: Gateway, reference: str
    ) -> None:
        connect(extra={"dialect": "newapi"})
        deferred(film(input_reference=reference).execute, context_of())
        (image,) = gateway.newest["body"]["images"]
        assert image.startswith("data:image/png;base64,")

    def test_a_url_goes_as_it_is(self, connection: str, gateway: Gateway) -> None:
        deferred(film(input_reference="https://a.example/cat.png?size=1").execute, context_of())
        assert gateway.newest["body"]["images"] == ["https://a.example/cat.png?size=1"]

    def test_another_picture_is_another_request(
        self, connection: str, gateway: Gateway, clock: Clock, tmp_path: Path
    ) -> None:
        memory = Memory(store=StateStore())
        picture = tmp_path / "cat.png"
        for content in (b"one", b"two"):
            picture.write_bytes(content)
            memory.attempt(input_reference=picture.as_uri())
            memory.clear()
        assert gateway.paid == 2

    def test_one_that_is_too_large_is_not_read(
        self, connection: str, gateway: Gateway, tmp_path: Path
    ) -> None:
        with (tmp_path / "huge.mp4").open("wb") as file:
            file.truncate(65 * 2**20)
        error = refused(input_reference=(tmp_path / "huge.mp4").as_uri())
        assert isinstance(error, AirflowFailException)
        assert "is larger than" in str(error)
        assert gateway.paid == 0


class TestBadArgumentsAreFoundWhileTheDagIsParsed:
    @pytest.mark.parametrize(
        "argument",
        [
            {"poll_interval": 0.5},
            {"poll_interval": "10"},
            {"poll_interval": float("nan")},
            {"poll_interval": True},
            {"timeout": 0},
            {"timeout": timedelta(seconds=-1)},
            {"timeout": None},
            {"unreachable_after": -1},
            {"max_generations": 0},
            {"max_generations": None},
            {"max_generations": True},
            {"max_generations": 1.5},
            {"on_clear": "resubmit"},
            {"on_unknown_submission": "new"},
            {"on_unknown_submission": None},
            {"retry_refused_output": "yes"},
        ],
        ids=str,
    )
    def test_by_name(self, argument: dict[str, Any]) -> None:
        (name,) = argument
        with pytest.raises(ValueError, match=f"^{name}: "):
            film(**argument)

    def test_times_may_be_timedeltas(self) -> None:
        operator = film(poll_interval=timedelta(seconds=30), timeout=timedelta(hours=1))
        assert (operator.waits.poll_interval, operator.timeout) == (30.0, 3600.0)


DAG = """
from datetime import datetime, timedelta
from airflow.providers.common.compat.sdk import DAG
from airflow_video_provider.operators.video import VideoGenerateOperator
from tests.airflow.support import ask

with DAG("{name}", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
    VideoGenerateOperator.partial(
        task_id="film", model="veo3.1-fast", poll_interval=1, schedule="fixed",
        timeout={timeout}, deferrable=True,
        retries=2, retry_delay=timedelta(0),
        on_retry_callback=lambda context: ask("{clock}", "POST", {{"advance": 90}}),
    ).expand(prompt={prompts})
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In `dag.test()` no scheduler runs that a short deferral could confuse."""
    monkeypatch.setattr("airflow_video_provider.waiting.SHORTEST_DEFERRAL", 0.0)


@pytest.mark.usefixtures("airflow_database", "quick", "connection")
class TestInADag:
    def test_mapped_over_prompts(self, gateway: Gateway) -> None:
        prompts = ["a fox [time=1]", "a heron [time=1]"]
        source = DAG.format(name="mapped", timeout=60, prompts=prompts, clock="")
        with dag_file("mapped", source) as module:
            done = module.dag.test()
        assert states(done) == {"film[0]": "success", "film[1]": "success"}
        assert sorted(payment["prompt"] for payment in gateway.payments) == [
            "a fox [time=1]",
            "a heron [time=1]",
        ]

    @pytest.mark.skipif(AIRFLOW == (3, 0), reason="its `dag.test()` hands each retry the first attempt's end")
    def test_a_retry_reattaches(self, gateway: Gateway) -> None:
        """The real task state store of 3.3, a real Variable on 2.11."""
        clock = f"{gateway.url}/sandbox/clock"
        source = DAG.format(name="retried", timeout=1, prompts=["a fox [time=90]"], clock=clock)
        with dag_file("retried", source) as module:
            done = module.dag.test()
        assert states(done) == {"film[0]": "success"}
        assert gateway.paid == 1
        (ti,) = done.get_task_instances()
        assert ti.try_number > 1
