from __future__ import annotations

import pytest

from airflow_video_provider.media.progress import LogProgress, Meter, Progress


class TestProgress:
    def test_progress_says_bytes_percent_rate_and_time_left(self) -> None:
        moment = Progress("v", 50 * 2**20, 200 * 2**20, 2**20, 50.0)
        assert str(moment) == "v: 50.0 MiB of 200.0 MiB (25 %), 1.0 MiB/s, 2 min 30 s left"

    def test_progress_is_a_line_every_few_seconds_and_one_at_the_end(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        now = [0.0]
        meter = Meter("v", LogProgress(), clock=lambda: now[0])
        for tick in range(1, 121):
            now[0] = tick / 10
            meter.update(tick * 1000, 120_000)
        meter.finish(120_000)
        assert [record.message.split(",")[0] for record in caplog.records] == [
            "v: 48.8 KiB of 117.2 KiB (42 %)",
            "v: 97.7 KiB of 117.2 KiB (83 %)",
            "v: 117.2 KiB in 12.0 s (9.8 KiB/s)",
        ]
