"""What a task cost reaches the task as the gateway tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_video_provider.gateway import VideoTask
from airflow_video_provider.gateway.dialects import dialect_from


def usage_of(body: dict[str, Any], **dialect: Any) -> dict[str, int | float] | None:
    spoken = dialect_from({"base": "openai", **dialect})
    return VideoTask.from_reply({"status": "completed", **body}, video_id="x", dialect=spoken).usage


class TestUsage:
    @pytest.mark.parametrize(
        ("body", "usage"),
        [
            ({"usage": {"duration_seconds": 4.0}}, {"duration_seconds": 4.0}),
            ({"usage": {"cost": 0.5, "is_byok": False}}, {"cost": 0.5}),
            (
                {"usage": {"completion_tokens": 7, "total_tokens": 8}},
                {"completion_tokens": 7, "total_tokens": 8},
            ),
            ({"usage": {"details": {"cached": 3}}}, {"details.cached": 3}),
            ({"usage": 12}, {"usage": 12}),
            ({"cost": 0.25}, {"cost": 0.25}),
            ({"cost": {"credits": 50}}, {"cost.credits": 50}),
            ({"billed_duration": 6}, {"billed_duration": 6}),
            ({"quota": 175000}, {"quota": 175000}),
            ({"credits": 4}, {"credits": 4}),
            ({"metrics": {"predict_time": 62.1}}, {"metrics.predict_time": 62.1}),
            (
                {"data": {"status": "SUCCESS", "quota": 5, "data": {"usage": {"total_tokens": 9}}}},
                {"quota": 5, "total_tokens": 9},
            ),
            ({"task": {"status": "succeeded", "usage": {"total_seconds": 5}}}, {"total_seconds": 5}),
            ({"output": {"billed_duration": 5}}, {"billed_duration": 5}),
            ({"usage": {"cost": 1}, "data": {"usage": {"cost": 2}}}, {"cost": 1}),
        ],
    )
    def test_is_told_in_the_gateways_numbers_and_names(
        self, body: dict[str, Any], usage: dict[str, Any]
    ) -> None:
        told = usage_of(body)
        assert told == usage
        assert repr(told) == repr(usage)

    @pytest.mark.parametrize("word", ["failed", "cancelled"])
    def test_is_told_of_a_task_that_failed_because_some_are_billed(self, word: str) -> None:
        assert usage_of({"status": word, "cost": {"credits": 50}}) == {"cost.credits": 50}

    @pytest.mark.parametrize("word", ["queued", "processing", ""])
    def test_is_not_told_before_the_end(self, word: str) -> None:
        assert usage_of({"id": "x", "status": word, "quota": 5}) is None

    @pytest.mark.parametrize(
        "usage",
        [
            None, {}, [], "5", True, {"cost": "0.5"}, {"cost": None}, {"cost": True}, {"cost": float("nan")},
            {"cost": float("inf")}, {"cost": 10**400}, {"a name with spaces": 1}, {"x" * 65: 1},
            {"a": {"b": {"c": {"d": 1}}}},
        ],
    )  # fmt: skip
    def test_what_is_no_number_is_not_told(self, usage: object) -> None:
        assert usage_of({"usage": usage}) is None

    def test_is_bounded(self) -> None:
        assert len(usage_of({"usage": {f"n{i}": i for i in range(1000)}}) or {}) == 32

    def test_comes_first_from_where_a_dialect_says(self) -> None:
        body = {"billing": {"amount": 3}, "usage": {"cost": 1}}
        assert usage_of(body, cost_places=["billing.amount"]) == {"billing.amount": 3, "cost": 1}
        assert usage_of({"data": {"price": 3}}, cost_places=["data.price"]) == {"price": 3}

    def test_is_in_the_json(self) -> None:
        task = VideoTask.from_reply({"status": "completed", "usage": {"cost": 0.5}}, video_id="x")
        assert json.loads(json.dumps(task.as_json()))["usage"] == {"cost": 0.5}
