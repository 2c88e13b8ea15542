"""What all waits of a connection on one event loop share: a look-up, a client, a gate."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from airflow_video_provider.gateway import transport
from airflow_video_provider.gateway.client import AsyncGateway
from airflow_video_provider.gateway.verdict import Wait
from airflow_video_provider.hooks import shared as module
from airflow_video_provider.hooks.shared import REFRESH, SharedGateway, shared_gateway
from airflow_video_provider.triggers.video import VideoTaskTrigger
from tests.airflow.support import Clock, Gateway, events_of


@pytest.fixture(params=[True, False], ids=["aiohttp", "httpcore"])
def transport_in_use(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both transports; the machine has httpx-aiohttp installed."""
    assert transport.is_fast(), "the extra `fast` belongs to the test environment"
    monkeypatch.setattr(transport, "is_fast", lambda: request.param)
    return bool(request.param)


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The connections that were looked up, in order."""
    import airflow.providers.common.compat.connection as compat

    seen: list[str] = []
    look_up = compat.get_async_connection

    async def counted(conn_id: str) -> Any:
        seen.append(conn_id)
        return await look_up(conn_id)

    monkeypatch.setattr(compat, "get_async_connection", counted)
    return seen


def trigger(conn_id: str, video_id: str, **more: Any) -> VideoTaskTrigger:
    return VideoTaskTrigger(
        **{"video_conn_id": conn_id, "video_id": video_id, "poll_interval": 5.0, "schedule": "fixed", **more}
    )


def edit(conn_id: str, **changes: Any) -> None:
    """Change a connection as somebody does in the UI, or by the secrets backend."""
    name = f"AIRFLOW_CONN_{conn_id.upper()}"
    os.environ[name] = json.dumps({**json.loads(os.environ[name]), **changes})


def test_many_waits_make_one_look_up_and_all_end(
    connection: str, gateway: Gateway, clock: Clock, look_ups: list[str]
) -> None:
    ids = [gateway.submit(f"fox {number}") for number in range(40)]

    async def together() -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(events_of(trigger(connection, video_id)) for video_id in ids))

    events = asyncio.run(together())
    assert [event["end"] for (event,) in events] == ["succeeded"] * 40
    assert [event["video_id"] for (event,) in events] == ids
    assert len(look_ups) <= 2, "a second one only after a minute"


def test_a_wait_ends_whichever_transport_is_used(
    connection: str, gateway: Gateway, clock: Clock, transport_in_use: bool
) -> None:
    assert asyncio.run(events_of(trigger(connection, gateway.submit("a fox"))))[0]["end"] == "succeeded"


@pytest.mark.parametrize("fault", ["query-html", "query-drop", "query-empty", "query-429", "flap=2"])
def test_a_blip_ends_nothing_whichever_transport_is_used(
    connection: str, gateway: Gateway, clock: Clock, transport_in_use: bool, fault: str
) -> None:
    event = asyncio.run(events_of(trigger(connection, gateway.submit(f"a fox [{fault}]"))))[0]
    assert event["end"] == "succeeded"


class TestAConnectionThatIsEdited:
    def use(self, connection: str, ask: Callable[[SharedGateway], Any]) -> Any:
        async def scenario() -> Any:
            async with shared_gateway(connection) as shared:
                return await ask(shared)

        return asyncio.run(scenario())

    async def settled(self, shared: SharedGateway) -> None:
        loading = shared._loading
        assert loading is not None
        await asyncio.wait([loading])
        await asyncio.sleep(0)

    def test_is_used_as_it_is_now_by_the_waits_that_run(
        self, connection: str, gateway: Gateway, clock: Clock, look_ups: list[str]
    ) -> None:
        video_id = gateway.submit("a fox")

        async def scenario(shared: SharedGateway) -> tuple[AsyncGateway, AsyncGateway]:
            with module.waiting_at(shared, shared.watch(video_id, deadline=None)) as waiting:
                await shared.ask(waiting)
                with shared.client() as before:
                    edit(connection, extra=json.dumps({"headers": {"X-Team": "films"}}))
                    await shared.ask(waiting)
                    assert len(look_ups) == 1, "not with each query"
                    clock.ahead += REFRESH + 1
                    await shared.ask(waiting)
                    await self.settled(shared)
                    await shared.ask(waiting)
                    with shared.client() as after:
                        return before, after

        before, after = self.use(connection, scenario)
        assert before is not after
        assert dict(after.settings.headers) == {"X-Team": "films"}
        assert len(look_ups) == 2

    def test_while_the_gateways_key_is_changed_ends_no_wait(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        """The gateway knows the new key some time before or after the connection has it."""
        right = json.loads(os.environ[f"AIRFLOW_CONN_{connection.upper()}"])["password"]
        video_id = gateway.submit("a fox [never]")

        async def scenario(shared: SharedGateway) -> list[Any]:
            verdicts = []
            with module.waiting_at(shared, shared.watch(video_id, deadline=None)) as waiting:
                for password in ("sk-bad", "sk-bad", right, right):
                    edit(connection, password=password)
                    clock.sleep(REFRESH / 2)
                    verdicts.append(await shared.ask(waiting))
                    await self.settled(shared)
                assert waiting.watch.failures == 0
            return verdicts

        assert all(isinstance(verdict, Wait) for verdict in self.use(connection, scenario))
        assert {request["status"] for request in gateway.requests("GET")} == {200, 401}

    def test_and_cannot_be_read_ends_no_wait(
        self, connection: str, gateway: Gateway, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        video_id = gateway.submit("a fox")

        async def scenario(shared: SharedGateway) -> bool:
            watch = shared.watch(video_id, deadline=None)
            with module.waiting_at(shared, watch) as waiting, shared.client() as before:
                edit(connection, host="")
                clock.ahead += REFRESH + 1
                await shared.ask(waiting)
                await self.settled(shared)
                await shared.ask(waiting)
                with shared.client() as after:
                    return before is after

        assert self.use(connection, scenario)
        assert "go on with what it was" in caplog.text


class TestALookUpThatFails:
    """A secrets backend that is restarted, an API server or a database that does not answer."""

    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
        """What the next look-ups raise."""
        import airflow.providers.common.compat.connection as compat

        errors: list[Exception] = []
        look_up = compat.get_async_connection

        async def failing(conn_id: str) -> Any:
            if errors:
                raise errors.pop(0)
            return await look_up(conn_id)

        monkeypatch.setattr(compat, "get_async_connection", failing)
        return errors

    def test_once_ends_no_wait(
        self, connection: str, gateway: Gateway, clock: Clock, failing: list[Exception]
    ) -> None:
        failing.append(RuntimeError("vault is sealed"))
        ids = [gateway.submit(f"fox {number}") for number in range(5)]

        async def together() -> list[list[dict[str, Any]]]:
            return await asyncio.gather(*(events_of(trigger(connection, video_id)) for video_id in ids))

        assert [event["end"] for (event,) in asyncio.run(together())] == ["succeeded"] * 5

    def test_for_good_says_that_the_video_goes_on_and_no_secret(
        self,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        failing: list[Exception],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "LOOK_UP_AGAIN_AFTER", (0.0, 0.0))
        failing += [OSError("token=hvs.SECRET")] * 3
        (event,) = asyncio.run(events_of(trigger(connection, gateway.submit("a fox"))))
        assert event["end"] == "unreachable"
        assert "could not be looked up (OSError)" in event["message"]
        assert "left running" in event["message"]
        assert "SECRET" not in json.dumps(event)


def test_a_wait_that_is_cancelled_at_the_gate_leaves_the_others_alone(
    connect: Callable[..., str], gateway: Gateway
) -> None:
    conn_id = connect(extra={"max_requests_per_second": 4})
    ids = [gateway.submit(f"fox {number}") for number in range(6)]
    gateway.finish()

    async def scenario() -> list[dict[str, Any]]:
        waits = [asyncio.create_task(events_of(trigger(conn_id, video_id))) for video_id in ids]
        while not gateway.requests("GET"):  # noqa: ASYNC110  another process says so
            await asyncio.sleep(0.01)
        waits[-1].cancel()
        done = await asyncio.gather(*waits, return_exceptions=True)
        return [events[0] for events in done[:-1] if not isinstance(events, BaseException)]

    assert [event["end"] for event in asyncio.run(scenario())] == ["succeeded"] * 5


def test_nothing_is_left_of_it_after_the_last_wait(connection: str, gateway: Gateway, clock: Clock) -> None:
    video_id = gateway.submit("a fox")

    async def scenario() -> SharedGateway:
        async with shared_gateway(connection) as shared:
            await events_of(trigger(connection, video_id))
            return shared

    ended = asyncio.run(scenario())
    assert ended.turns.gate.in_flight == 0
    assert ended.users == 0


def test_a_wait_that_ends_does_not_slow_those_behind_it_and_is_forgotten_after_an_interval(
    connection: str, gateway: Gateway
) -> None:
    video_id = gateway.submit("a fox")
    gateway.finish()

    async def scenario() -> None:
        async with shared_gateway(connection) as shared:
            watch = shared.watch(video_id, deadline=None, interval=0.5, mode="fixed")
            with module.waiting_at(shared, watch) as waiting:
                await shared.ask(waiting)
            assert shared.turns.gate.due == pytest.approx(2)
            while shared.turns.gate.due > 1e-6:  # noqa: ASYNC110  a timer of the loop's
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(scenario(), 60))
