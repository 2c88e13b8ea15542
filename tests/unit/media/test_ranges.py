from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from airflow_video_provider.media import DownloadOptions
from airflow_video_provider.media.options import MIB
from airflow_video_provider.media.ranges import ConnectionScaler, Range, RangePlan

OPTIONS = DownloadOptions()
MIN_RANGE = OPTIONS.min_range


class TestRangePlan:
    @given(st.integers(1, 300 * MIB), st.integers(1, 16), st.randoms(use_true_random=False))
    def test_every_byte_is_handed_out_once(self, total: int, connections: int, rng: Random) -> None:
        plan, running, fetched = RangePlan(total, OPTIONS), list[Range](), list[tuple[int, int]]()
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
                part.position += min(part.remaining, rng.randrange(1, 4 * MIN_RANGE))
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

    def test_a_file_of_unknown_length_is_one_range_that_tells_it(self) -> None:
        plan = RangePlan(None, OPTIONS)
        part = plan.take(4)
        assert part is not None
        assert plan.take(4) is None
        part.position = 77
        plan.done(part)
        assert (plan.total, plan.is_complete) == (77, True)


class TestConnectionScaler:
    def run(self, rate_of: Callable[[int], float], total: int = 2**30, ceiling: int = 16) -> list[int]:
        """Levels over time, for a source whose rate depends on the number of connections."""
        pace, now, received, levels = ConnectionScaler(OPTIONS, 0, 0.0), 0.0, 0.0, [1]
        while received < total:
            now += 0.1
            received += rate_of(levels[-1]) * 0.1
            levels.append(pace.connections(now=now, received=int(received), total=total, ceiling=ceiling))
        return levels

    def test_connections_are_added_while_each_brings_its_own_rate(self) -> None:
        assert max(self.run(lambda n: n * 20e6)) == 16

    def test_connections_that_bring_nothing_are_taken_back(self) -> None:
        levels = self.run(lambda n: 50e6)
        assert max(levels) <= 4
        assert levels[-1] <= 2

    def test_a_fast_source_keeps_its_one_connection(self) -> None:
        assert max(self.run(lambda n: 2e9)) == 1

    def test_there_are_never_more_connections_than_allowed(self) -> None:
        assert max(self.run(lambda n: n * 5e6, ceiling=3)) == 3
