"""The demos that stay: they land their videos, and leave nothing running at a signal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest


def family(folder: Path) -> list[psutil.Process]:
    """Every process that works for a demo in a folder: its environment names it, whatever its parent."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in text for text in (*process.environ().values(), *process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("module", "processes"),
    [("playground", 6), pytest.param("demo_cluster", 12, marks=pytest.mark.slow)],
)
def test_lands_its_videos_stays_and_leaves_nothing_running_at_a_signal(
    tmp_path: Path, pytestconfig: pytest.Config, module: str, processes: int
) -> None:
    folder, log = tmp_path / "demo", tmp_path / "demo.log"
    command = [sys.executable, "-m", f"scripts.{module}", "--videos", "3", "--seconds", "4"]
    # A folder that no other process names.
    env = {name: value for name, value in os.environ.items() if str(tmp_path) not in value}
    with log.open("w") as output:
        demo = subprocess.Popen(
            [*command, "--folder", str(folder)],
            cwd=pytestconfig.rootpath,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while "stays until Ctrl-C" not in log.read_text():
            assert demo.poll() is None, log.read_text()
            time.sleep(0.5)
        (told,) = re.findall(r"running: (.+)", log.read_text())
        pids = [int(part.rpartition(" ")[2]) for part in told.split(", ")]
        assert len(pids) == processes
        assert all(psutil.pid_exists(pid) for pid in pids)
        assert len(family(folder)) >= processes
        (run,) = re.findall(r"look at: (http://\S+)", log.read_text())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(run, timeout=30) as page:
            assert page.status == 200
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 0, log.read_text()
    finally:
        demo.send_signal(signal.SIGTERM)
        demo.wait(60)
    landed = [line.removeprefix("landed: ") for line in log.read_text().splitlines() if "landed: " in line]
    assert len(landed) == 3
    assert all(Path(path).stat().st_size > 10_000 for path in landed)
    assert family(folder) == []
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
