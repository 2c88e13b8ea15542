"""What a video cost: a line in the log and Airflow's metrics, once for each video."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_video_provider.costs import report_end
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.sensors.video import VideoTaskSensor
from tests.airflow.support import Gateway, Memory, StateStore, context_of, film

USAGE = {"cost": 0.5, "duration_seconds": 8, "refund": -1}


class Stats(list[tuple[str, float, dict[str, str]]]):
    def incr(self, stat: str, count: float = 1, rate: float = 1, *, tags: dict[str, str]) -> None:
        self.append((stat, count, tags))


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> Stats:
    stats = Stats()
    monkeypatch.setattr("airflow.providers.common.compat.sdk.Stats", stats, raising=False)
    return stats


def ended(video_id: str, **facts: Any) -> dict[str, Any]:
    task = {"video_id": video_id, "state": "succeeded", "model": "kling/v2,5", "usage": USAGE, **facts}
    end = End.SUCCEEDED if task["state"] == "succeeded" else End.FAILED
    return Done(end, video_id, "the end", task).as_event()


def test_is_logged_and_counted_once_though_the_task_is_cleared(
    connection: str, gateway: Gateway, stats: Stats, logged: list[str]
) -> None:
    memory = Memory(store=StateStore())
    for _ in range(2):
        memory.submit()
        (payment,) = gateway.payments
        film().execute_complete(context_of(memory.ti, memory.store), ended(payment["video_id"]))
        memory.clear()
    assert (
        sum("used, as the gateway tells: cost 0.5, duration_seconds 8, refund -1" in x for x in logged) == 1
    )
    tags = {"conn_id": "video_default", "model": "kling_v2_5"}
    assert stats == [
        ("video_gateway.videos", 1, {**tags, "state": "succeeded"}),
        ("video_gateway.usage.cost", 0.5, tags),
        ("video_gateway.usage.duration_seconds", 8, tags),
    ]


def test_of_a_failed_video_is_counted_too(connection: str, gateway: Gateway, stats: Stats) -> None:
    memory = Memory(store=StateStore())
    memory.submit()
    (payment,) = gateway.payments
    with pytest.raises(Exception, match="the end"):
        film().execute_complete(
            context_of(memory.ti, memory.store), ended(payment["video_id"], state="failed", usage=None)
        )
    assert [(name, tags["state"]) for name, _, tags in stats] == [("video_gateway.videos", "failed")]


def test_is_told_by_the_sensor(connection: str, stats: Stats, logged: list[str]) -> None:
    sensor = VideoTaskSensor(task_id="seen", video_id="v1")
    sensor.execute_complete(context_of(), ended("v1"))
    assert len(stats) == 3
    assert any(line.startswith("video v1 used") for line in logged)


def test_a_backend_that_fails_fails_nothing(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    class Broken:
        def incr(self, *_: Any, **__: Any) -> None:
            raise ConnectionError

    monkeypatch.setattr("airflow.providers.common.compat.sdk.Stats", Broken(), raising=False)
    report_end(ended("v1")["task"], conn_id="c", model=None, log=VideoTaskSensor.log)


def test_airflows_own_metrics_take_the_names_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Log:
        def info(self, *_: Any) -> None:
            pass

        def debug(self, text: str, *arguments: Any) -> None:
            said.append(text % arguments)

    report_end(ended("v1")["task"], conn_id="c", model=None, log=Log())
    assert said == []
