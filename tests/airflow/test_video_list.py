"""Many videos in one trigger: each is waited for, one event tells of all, in the order of the list."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_video_provider.gateway.ends import ListEnd
from airflow_video_provider.triggers.video_list import VideoTaskListTrigger
from tests.airflow.support import Gateway, events_of

REFERENCE = {"dag_id": "films", "run_id": "manual__1", "task_id": "wait", "map_index": -1, "key": "video_ids"}


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Airflow's XComs of one task instance, by key."""
    values: dict[str, Any] = {}

    class XCom:
        @staticmethod
        def get_one(*, key: str, **of: Any) -> Any:
            assert {**of, "key": key} == {**REFERENCE, "key": key}
            return json.loads(json.dumps(values.get(key)))

    monkeypatch.setattr("airflow.providers.common.compat.sdk.XCom", XCom, raising=False)
    return values


@pytest.fixture
def trigger_for(connection: str, xcoms: dict[str, Any]) -> Callable[..., VideoTaskListTrigger]:
    def make(videos: list[Any], **changes: Any) -> VideoTaskListTrigger:
        xcoms["video_ids"] = videos
        return VideoTaskListTrigger(
            **{"video_conn_id": connection, "video_ids": REFERENCE, "poll_interval": 0.05, **changes}
        )

    return make


def run(trigger: VideoTaskListTrigger) -> ListEnd:
    """Run a trigger as a triggerer makes it, from its row, to its one event."""
    path, kwargs = trigger.serialize()
    assert path == f"{VideoTaskListTrigger.__module__}.{VideoTaskListTrigger.__qualname__}"
    (event,) = asyncio.run(events_of(VideoTaskListTrigger(**json.loads(json.dumps(kwargs)))))
    assert json.loads(json.dumps(event)) == event
    return ListEnd.from_event(event)


def finished(gateway: Gateway, *prompts: str) -> list[str]:
    """Videos that have ended at the gateway."""
    ids = [gateway.submit(prompt) for prompt in prompts]
    gateway.finish()
    return ids


class TestItsRow:
    FULL = {  # noqa: RUF012
        "video_conn_id": "video_other",
        "video_ids": REFERENCE,
        "poll_interval": 7.5,
        "max_poll_interval": 45.0,
        "schedule": "fixed",
        "deadline": 1770350999.25,
        "first_poll_at": 1770350090.5,
        "submitted_at": 1770350082.0,
        "model": "veo3.1-fast",
        "unreachable_after": 61.0,
        "fail_if": "first",
        "cancel_on_kill": True,
    }

    def test_holds_exactly_what_its_constructor_takes_as_plain_json(self) -> None:
        taken = set(inspect.signature(VideoTaskListTrigger.__init__).parameters) - {"self"}
        kwargs = VideoTaskListTrigger(**self.FULL).serialize()[1]
        assert set(kwargs) == taken == set(self.FULL)
        assert json.loads(json.dumps(kwargs)) == self.FULL


class TestItWaitsForAll:
    def test_and_tells_of_each_in_order(
        self, trigger_for: Callable[..., VideoTaskListTrigger], gateway: Gateway
    ) -> None:
        ids = finished(gateway, "a fox", "doomed [fail]", "a heron")
        end = run(trigger_for(ids))
        assert [(done.video_id, str(done.end)) for done in end.ends if done] == [
            (ids[0], "succeeded"),
            (ids[1], "failed"),
            (ids[2], "succeeded"),
        ]
