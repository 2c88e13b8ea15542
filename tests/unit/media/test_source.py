from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_video_provider.media.http import Url
from airflow_video_provider.media.ranges import MIB, MIN_PART, Range, RangePlan
from airflow_video_provider.media.source import (
    ConnectionScaler,
    Head,
    Limits,
    Transfer,
    expiry_of,
    pause_before,
    validator_of,
)


class TestPlan:
    @given(st.integers(1, 300 * MIB), st.integers(1, 16), st.randoms(use_true_random=False))
    def test_hands_out_every_byte_once(self, total: int, connections: int, rng) -> None:
        plan, running, fetched = RangePlan(total), [], []
        first = plan.take(1)
        assert first is not None
        running.append(first)
        while True:
            if rng.random() < 0.3:
                plan.share_out(connections)
            while len(running) < connections and (part := plan.take(connections)) is not None:
                running.append(part)
            if not running:
                break
            part = running.pop(rng.randrange(len(running)))
            begin = part.position
            if rng.random() < 0.2 and part.remaining:
                part.position += min(part.remaining, rng.randrange(1, 4 * MIN_PART))
                plan.give_back(part)
                again = plan.take(connections)
                if again is not None:
                    running.append(again)
            else:
                part.position = part.end
                plan.done(part)
            fetched.append((begin, part.position))
            assert plan.watermark <= plan.received <= total
        assert plan.is_complete
        position = 0
        for begin, end in sorted(fetched):
            assert begin == position
            position = end
        assert position == total == plan.received == plan.watermark

    def test_of_unknown_length_is_one_part_that_tells_it(self) -> None:
        plan = RangePlan(None)
        part = plan.take(4)
        assert part is not None
        assert plan.take(4) is None
        part.position = 77
        plan.done(part)
        assert (plan.total, plan.is_complete) == (77, True)


class TestPace:
    def run(self, rate_of, total: int = 2**30, ceiling: int = 16) -> list[int]:
        """Levels over time, for a source whose rate depends on the number of connections."""
        pace, now, received, levels = ConnectionScaler(0, 0.0), 0.0, 0.0, [1]
        while received < total:
            now += 0.1
            received += rate_of(levels[-1]) * 0.1
            levels.append(pace.connections(now=now, received=int(received), total=total, ceiling=ceiling))
        return levels

    def test_adds_connections_while_each_brings_its_own_rate(self) -> None:
        assert max(self.run(lambda n: n * 20e6)) == 16

    def test_takes_back_what_brings_nothing(self) -> None:
        levels = self.run(lambda n: 50e6)
        assert max(levels) <= 4
        assert levels[-1] <= 2

    def test_leaves_a_fast_source_alone(self) -> None:
        assert max(self.run(lambda n: 2e9)) == 1

    def test_keeps_to_the_ceiling(self) -> None:
        assert max(self.run(lambda n: n * 5e6, ceiling=3)) == 3


@pytest.mark.parametrize(
    ("url", "expires"),
    [
        ("https://h/x?X-Amz-Date=19700101T000100Z&X-Amz-Expires=40&X-Amz-Signature=s", 100.0),
        ("https://h/x?X-Goog-Date=19700101T000100Z&X-Goog-Expires=40", 100.0),
        ("https://h/x?se=1970-01-01T00%3A01%3A40Z&sig=s", 100.0),
        ("https://h/x?Expires=1700000000&Signature=s", 1_700_000_000.0),
        ("https://h/x?e=1700000000", 1_700_000_000.0),
        ("https://h/x?e=5&exp=soon&se=never&sig=1", None),
        ("https://h/x", None),
    ],
)
def test_a_visible_expiry_is_read(url: str, expires: float | None) -> None:
    assert expiry_of(url) == expires


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"etag": '"abc"'}, '"abc"'),
        ({"etag": 'W/"abc"'}, None),
        ({"etag": "abc"}, None),
        (
            {"last-modified": "Thu, 01 Jan 1970 00:00:00 GMT", "date": "Thu, 01 Jan 1970 00:02:00 GMT"},
            "Thu, 01 Jan 1970 00:00:00 GMT",
        ),
        ({"last-modified": "Thu, 01 Jan 1970 00:01:59 GMT", "date": "Thu, 01 Jan 1970 00:02:00 GMT"}, None),
        ({"last-modified": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_only_what_names_the_very_bytes_is_a_validator(
    headers: dict[str, str], validator: str | None
) -> None:
    assert validator_of(headers) == validator


def test_pauses_grow_and_follow_what_the_server_asks() -> None:
    assert pause_before(1, 1.0) < 1.3
    assert 6.0 <= pause_before(4, 1.0) <= 10.0
    assert pause_before(20, 1.0) <= 37.5
    assert pause_before(1, 1.0, asked=50.0) == 50.0


class TestPartsThatShrink:
    """Another connection takes over the end of a part while the answer to its request is on its way."""

    def test_are_no_reason_to_begin_anew(self) -> None:
        class Answer:
            status = 206
            headers: ClassVar = {"content-range": "bytes 0-99/100", "etag": '"v"', "content-length": "100"}
            link = Url.parse("http://h/v")

            def close(self) -> None:
                raise AssertionError

        part = Range(0, 100)

        class Asked:
            def get(self, *_: object, **__: object) -> Answer:
                part.end = 50
                return Answer()

        transfer = Transfer(Asked(), "http://h/v", 0, limits=Limits())
        transfer._head = Head(Answer.link, 100, '"v"', None, Answer.headers)
        assert transfer.ask_for(part) is not None
