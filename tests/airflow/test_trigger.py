"""The trigger: it polls, says one thing, and finds the same wait after a restart."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_video_provider.gateway.client import AsyncGateway
from airflow_video_provider.hooks.shared import shared_gateway
from airflow_video_provider.triggers.video import VideoTaskTrigger
from tests.airflow.support import (
    SECONDS,
    Clock,
    Gateway,
    TaskInstance,
    context_of,
    deferred,
    events_of,
    film,
    restarted,
    run,
)


@pytest.fixture
def trigger_for(connection: str) -> Callable[..., VideoTaskTrigger]:
    """A trigger as the operators make it; `clock.time()` or the real time says when its deadline is."""

    def make(video_id: str, **changes: Any) -> VideoTaskTrigger:
        return VideoTaskTrigger(
            **{
                "video_conn_id": connection,
                "video_id": video_id,
                "poll_interval": 10.0,
                "schedule": "fixed",
                **changes,
            }
        )

    return make


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  another process says so
        await asyncio.sleep(0.01)


class TestItSurvivesARestart:
    FULL = {  # noqa: RUF012
        "video_conn_id": "video_other",
        "video_id": "veo3.1-fast:1770350082-trii1OXZc3",
        "poll_interval": 7.5,
        "max_poll_interval": 45.0,
        "schedule": "fixed",
        "deadline": 1770350999.25,
        "first_poll_at": 1770350090.5,
        "submitted_at": 1770350082.0,
        "model": "veo3.1-fast",
        "unreachable_after": 61.0,
        "cancel_on_kill": True,
    }

    def test_its_row_holds_exactly_what_its_constructor_takes(self) -> None:
        signature = inspect.signature(VideoTaskTrigger.__init__)
        taken = set(signature.parameters) - {"self"}
        assert set(VideoTaskTrigger(**self.FULL).serialize()[1]) == taken == set(self.FULL)
        assert all(p.kind is p.KEYWORD_ONLY for name, p in signature.parameters.items() if name in taken)

    def test_its_row_is_plain_json_and_makes_the_same_trigger(self) -> None:
        trigger = VideoTaskTrigger(**self.FULL)
        again = restarted(trigger)
        assert again.serialize() == trigger.serialize()
        assert trigger.serialize()[1] == self.FULL

    def test_airflow_stores_and_reads_it(self) -> None:
        from airflow.models.trigger import Trigger

        row = Trigger.from_object(VideoTaskTrigger(**self.FULL))
        assert row.kwargs == self.FULL

    def test_the_deadline_is_a_moment_and_does_not_move(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        """The first triggerer dies half-way; the second one gives up when the first would have."""
        deadline = clock.time() + 100
        trigger = trigger_for(gateway.submit("endless [never]"), deadline=deadline)

        async def die_after_a_while() -> None:
            running = asyncio.create_task(events_of(trigger))
            await until(lambda: clock.time() >= deadline - 50)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        asyncio.run(die_after_a_while())
        event = run(trigger)
        assert event["end"] == "timed_out"
        assert deadline <= clock.time() < deadline + 11
        assert gateway.paid == 1


class TestTheGatewaysOwnPace:
    """A dialect's ``poll_floor``: the gateway asks not to be queried oftener for one task."""

    @pytest.fixture
    def unhurried(self, connect: Callable[..., str]) -> str:
        return connect(extra={"dialect": {"base": "unified", "poll_floor": 30}})

    def test_bounds_the_trigger(
        self, trigger_for: Callable[..., VideoTaskTrigger], unhurried: str, gateway: Gateway, clock: Clock
    ) -> None:
        run(trigger_for(gateway.submit("a fox"), poll_interval=1))
        assert len(gateway.requests("GET")) <= 4
        assert min(clock.sleeps) >= 30

    def test_bounds_the_operator(self, unhurried: str, gateway: Gateway, clock: Clock) -> None:
        waiting = deferred(film(poll_interval=1).execute, context_of())
        assert waiting.trigger.poll_interval == 30
        assert waiting.trigger.first_poll_at >= clock.time() + 29
        assert film(poll_interval=60, deferrable=False).execute(context_of(TaskInstance(task_id="other")))
        assert 60 <= max(clock.sleeps) < 67, "who asks less often than that asks less often"

    def test_bounds_the_sensor(self, unhurried: str, gateway: Gateway, clock: Clock) -> None:
        from airflow_video_provider.sensors.video import VideoTaskSensor

        arguments = {"task_id": "seen", "video_id": gateway.submit("a fox"), "poke_interval": 1}
        waiting = deferred(VideoTaskSensor(deferrable=True, **arguments).execute, context_of())
        assert waiting.trigger.poll_interval == 30
        VideoTaskSensor(deferrable=False, **arguments).execute(context_of())
        assert min(clock.sleeps) >= 30


class TestItSaysOneThing:
    def test_a_finished_video(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        video_id = gateway.submit("a fox")
        event = run(trigger_for(video_id))
        assert (event["end"], event["video_id"]) == ("succeeded", video_id)
        assert event["task"]["state"] == "succeeded"
        assert event["task"]["video_url"].startswith("http://")
        assert SECONDS <= sum(clock.sleeps) < SECONDS + 11, "asked every ten seconds until it was there"

    @pytest.mark.parametrize(
        ("fault", "state", "reason"),
        [
            ("fail", "failed", "the upstream model gave up"),
            ("fail-moderation", "failed", "blocked by our moderation system"),
            ("cancelled", "cancelled", "cancelled by the operator"),
            ("expired", "expired", "waited too long"),
        ],
    )
    def test_a_failed_one(
        self,
        trigger_for: Callable[..., VideoTaskTrigger],
        gateway: Gateway,
        clock: Clock,
        fault: str,
        state: str,
        reason: str,
    ) -> None:
        event = run(trigger_for(gateway.submit(f"doomed [{fault}]")))
        assert event["end"] == "failed"
        assert event["task"]["state"] == state
        assert reason in event["message"]

    def test_one_that_is_late(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        event = run(trigger_for(gateway.submit("endless [never]"), deadline=clock.time() + 25))
        assert event["end"] == "timed_out"
        assert "was left running at the gateway" in event["message"]
        assert event["task"]["state"] in {"queued", "running"}

    def test_one_that_nobody_knows(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        event = run(trigger_for("veo3.1-fast:1-nobody"))
        assert event["end"] == "gone"
        assert "Check the id" in event["message"]
        assert 3 <= len(gateway.requests()) < 10, "one server that lags behind is no proof"

    def test_one_that_is_not_known_yet(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        video_id = gateway.submit("just submitted [query-404=2]")
        assert run(trigger_for(video_id, submitted_at=clock.time()))["end"] == "succeeded"

    def test_a_gateway_that_is_down_for_long(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        video_id = gateway.submit("a fox")
        gateway.fail(query=503)
        event = run(trigger_for(video_id, unreachable_after=120.0))
        assert event["end"] == "unreachable"
        assert "asking again is free" in event["message"]
        assert sum(clock.sleeps) >= 120

    def test_a_key_that_was_revoked(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        event = run(trigger_for(gateway.submit("revoked [query-401]")))
        assert (event["end"], event["error_kind"]) == ("refused", "authentication")
        assert "the task itself goes on" in event["message"]

    @pytest.mark.parametrize(
        "fault",
        ["flap=4", "query-html", "query-empty", "query-wrapped", "query-429", "query-429-seconds",
         "query-drop", "unknown-word", "no-status", "url-late=2"],
    )  # fmt: skip
    def test_a_blip_ends_nothing(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock, fault: str
    ) -> None:
        event = run(trigger_for(gateway.submit(f"a bumpy ride [{fault}]"), deadline=clock.time() + 1800))
        assert event["end"] == "succeeded"
        assert event["task"]["video_url"]

    def test_no_url_at_all_is_a_finished_video_all_the_same(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        event = run(trigger_for(gateway.submit("lost [url-lost]")))
        assert event["end"] == "succeeded"
        assert event["task"]["video_url"] is None

    def test_a_dialect_with_a_content_route_does_not_wait_for_a_url(
        self, connect: Callable[..., str], gateway: Gateway, clock: Clock
    ) -> None:
        video_id = gateway.submit("lost [url-lost]", path="/v1/videos")
        gateway.finish()
        conn_id = connect("video_openai", extra={"dialect": "openai"})
        event = run(VideoTaskTrigger(video_conn_id=conn_id, video_id=video_id, poll_interval=10.0))
        assert event["end"] == "succeeded"
        assert len(gateway.requests("GET")) == 1


class TestStatusComesBeforeDeadline:
    def test_a_finished_video_wins_over_a_deadline_long_past(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway
    ) -> None:
        video_id = gateway.submit("a fox")
        gateway.finish()
        assert run(trigger_for(video_id, deadline=1.0))["end"] == "succeeded"

    def test_an_unfinished_one_is_asked_for_exactly_once(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway
    ) -> None:
        assert run(trigger_for(gateway.submit("a fox"), deadline=1.0))["end"] == "timed_out"
        assert len(gateway.requests("GET")) == 1

    def test_the_last_question_is_asked_at_the_deadline(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        """Finished between the last regular poll and the deadline: paid for, and not thrown away."""
        video_id = gateway.submit("just in time [time=34]")
        assert (
            run(trigger_for(video_id, poll_interval=30.0, deadline=clock.time() + 40))["end"] == "succeeded"
        )

    def test_nothing_is_asked_before_the_first_poll_is_due(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        video_id = gateway.submit("a fox")
        due = clock.time() + 90
        run(trigger_for(video_id, first_poll_at=due))
        assert len(gateway.requests("GET")) == 1
        assert clock.sleeps[0] == pytest.approx(90, abs=1)


class TestItOnlyAsks:
    @pytest.mark.parametrize("fault", ["", "[fail]", "[flap]", "[url-lost]", "[query-401]"])
    def test_and_pays_nothing(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock, fault: str
    ) -> None:
        run(trigger_for(gateway.submit(f"a fox {fault}")))
        assert gateway.paid == 1, "what the test itself submitted"
        assert len(gateway.requests("POST")) == 1
        assert not [request for request in gateway.requests() if "/cdn/" in request["path"]]

    def test_neither_row_nor_event_holds_a_secret(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        video_id = gateway.submit("signed", model="kling-v2")
        trigger = trigger_for(video_id)
        event = run(trigger)
        assert event["end"] == "succeeded"
        for text in (json.dumps(trigger.serialize()), json.dumps(event), "\n".join(logged), repr(trigger)):
            assert gateway.key not in text
            assert "Signature" not in text
        assert event["task"]["video_url"] is None, "signed; the download asks for a fresh one"


class TestABrokenConnectionIsAnEventNotACrash:
    @pytest.mark.parametrize(
        "broken",
        [{"host": ""}, {"extra": {"dialect": "azure"}}, {"extra": {"verify": "/no/such/file"}}],
        ids=["no host", "bad dialect", "no file of authorities"],
    )
    def test_spoilt(
        self,
        trigger_for: Callable[..., VideoTaskTrigger],
        connect: Callable[..., str],
        gateway: Gateway,
        broken: dict[str, Any],
    ) -> None:
        video_id = gateway.submit("a fox")
        connect(**broken)
        event = run(trigger_for(video_id))
        assert event["end"] == "unreachable"
        assert "the connection cannot be used" in event["message"]
        assert "left running" in event["message"]

    @pytest.mark.usefixtures("airflow_database")
    def test_deleted(
        self,
        trigger_for: Callable[..., VideoTaskTrigger],
        gateway: Gateway,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        trigger = trigger_for(gateway.submit("a fox"))
        monkeypatch.delenv("AIRFLOW_CONN_VIDEO_DEFAULT")
        event = run(trigger)
        assert event["end"] == "unreachable"
        assert "video_default" in event["message"]


class TestOneClientForAllTriggersOfALoop:
    def test_shared_while_used_and_closed_after_the_last(
        self,
        trigger_for: Callable[..., VideoTaskTrigger],
        gateway: Gateway,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        made: list[AsyncGateway] = []
        closed: list[AsyncGateway] = []
        make, close = AsyncGateway.__init__, AsyncGateway.close

        def count(self: AsyncGateway, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            make(self, *args, **kwargs)

        async def note(self: AsyncGateway) -> None:
            closed.append(self)
            await close(self)

        monkeypatch.setattr(AsyncGateway, "__init__", count)
        monkeypatch.setattr(AsyncGateway, "close", note)
        ids = [gateway.submit(f"fox {number}") for number in range(5)]

        async def together() -> list[list[dict[str, Any]]]:
            waiting = [
                asyncio.create_task(events_of(trigger_for(video_id, poll_interval=0.05))) for video_id in ids
            ]
            await until(lambda: len(gateway.requests("GET")) >= 10)
            assert not closed
            gateway.finish()
            return await asyncio.gather(*waiting)

        events = asyncio.run(together())
        assert [event["end"] for (event,) in events] == ["succeeded"] * 5
        assert len(made) == 1
        assert closed == made

    def test_another_key_is_another_client(self, connect: Callable[..., str]) -> None:
        async def both() -> bool:
            async with (
                shared_gateway(connect("video_one")) as one,
                shared_gateway(connect("video_two", password="sk-2")) as two,
            ):
                return one.settings.api_key != two.settings.api_key and one.turns is not two.turns

        assert asyncio.run(both())

    def test_another_loop_is_another_client(self, connection: str) -> None:
        async def client() -> AsyncGateway:
            async with shared_gateway(connection) as shared:
                with shared.client() as open_now:
                    return open_now

        assert asyncio.run(client()) is not asyncio.run(client())

    def test_a_cancelled_trigger_gives_it_back(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[AsyncGateway] = []
        close = AsyncGateway.close

        async def note(self: AsyncGateway) -> None:
            closed.append(self)
            await close(self)

        monkeypatch.setattr(AsyncGateway, "close", note)
        trigger = trigger_for(gateway.submit("endless [never]"), poll_interval=0.05)

        async def cancelled() -> None:
            running = asyncio.create_task(events_of(trigger))
            await until(lambda: bool(gateway.requests("GET")))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        asyncio.run(cancelled())
        assert len(closed) == 1


class TestARateLimitHoldsBackTheWholeConnection:
    def test_the_others_wait_as_long_as_one_was_told(
        self,
        trigger_for: Callable[..., VideoTaskTrigger],
        connect: Callable[..., str],
        gateway: Gateway,
        clock: Clock,
    ) -> None:
        limited = trigger_for(gateway.submit("limited [query-429-seconds=1]"), deadline=1.0)
        other = trigger_for(gateway.submit("a fox"), deadline=clock.time() + 60)
        connect("video_other", extra={"forwarded_host": "other.example"})
        stranger = trigger_for(gateway.submit("a cat"), deadline=1.0, video_conn_id="video_other")

        async def together() -> None:
            async with shared_gateway("video_default"):  # as a triggerer that has more of them
                await events_of(limited)
                await events_of(stranger)
                assert clock.sleeps == [], "another connection is another matter"
                await events_of(other)

        asyncio.run(together())
        refused, _, asked = [request["time"] for request in gateway.requests("GET")][:3]
        assert asked - refused >= 2, "what Retry-After asked for, on the gateway's own clock"

    def test_without_retry_after_they_wait_for_a_second_the_first_time(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        limited = trigger_for(gateway.submit("limited [query-429=1]"), deadline=1.0)
        other = trigger_for(gateway.submit("a fox"), deadline=clock.time() + 60)

        async def together() -> None:
            async with shared_gateway("video_default"):
                await events_of(limited)
                await events_of(other)

        asyncio.run(together())
        refused, asked = [request["time"] for request in gateway.requests("GET")][:2]
        assert asked - refused >= 0.9

    def test_a_deadline_is_kept_all_the_same(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock
    ) -> None:
        """An hour of Retry-After must not hold the answer back past the deadline, where Airflow ends it."""
        video_id = gateway.submit("a fox")
        gateway.fail(query=429, retry_after="3600")
        deadline = clock.time() + 100
        event = run(trigger_for(video_id, deadline=deadline))
        assert event["end"] == "timed_out"
        assert "too many requests" in event["message"]
        assert clock.time() < deadline + 1


class TestTheLog:
    def test_says_what_changed_and_nothing_twice(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        run(trigger_for(gateway.submit("a fox"), poll_interval=1.0))
        asked = len(gateway.requests("GET"))
        assert asked > 50
        assert 2 <= len(logged) < 10
        assert len(set(logged)) == len(logged)
        assert "succeeded" in logged[-1]

    def test_says_progress_where_the_gateway_tells_it(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        run(trigger_for(gateway.submit("a fox", model="sora-2")))
        assert any(" %" in line for line in logged)

    def test_says_failed_queries_and_the_recovery(
        self, trigger_for: Callable[..., VideoTaskTrigger], gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        run(trigger_for(gateway.submit("a fox [flap=2]")))
        assert logged[0].startswith("waiting for video ")
        assert "query 1 in a row failed" in logged[1]
        assert "query 2 in a row failed" in logged[2]
        assert "failed" not in logged[3]
