"""`make demo`: three videos through a real Airflow, from a gateway that costs nothing.

Starts the package's sandbox and an Airflow of its own, runs `dags_examples/generate_and_download.py`,
and ends with one `landed: PATH` for each file. Everything that it starts is stopped again.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import unquote, urlsplit

from scripts.deployment import AirflowError, DagRun, Deployment, TaskInstance
from scripts.local_airflow import LocalAirflow
from scripts.processes import ProcessError
from scripts.services import Sandbox

ROOT = Path(__file__).resolve().parent.parent
DAG_ID = "video_generate_and_download"
FILES = 3
DOWNLOAD = "video.download"


class Stopped(BaseException):
    """Somebody wants this to end: Ctrl-C, `kill`, a closed terminal."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15, help="how long each video takes to generate")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="for videos, database and logs")
    arguments = parser.parse_args()
    return show(Demo(arguments.folder.resolve(), arguments.seconds))


def show(demo: Demo) -> int:
    """Run a demo to its end, tell what landed, and return the exit code of the program."""
    try:
        with stopped_by_signals():
            landed = demo.run()
    except Stopped as reason:
        print(f"\nstopped ({reason}); nothing is left running. Logs: {demo.home}", flush=True)
        return 130
    except (AirflowError, ProcessError) as error:
        print(f"\n{error}\n\nLogs: {demo.home}", file=sys.stderr, flush=True)
        return 1
    for path in landed:
        print(f"landed: {path}", flush=True)
    return 0 if len(landed) >= demo.files else 1


class Demo:
    files = FILES

    def __init__(self, folder: Path, seconds: float) -> None:
        self.videos = folder / "videos"
        self.home = folder / "airflow"
        self.seconds = seconds
        self.began = time.monotonic()

    def run(self) -> list[Path]:
        self.tidy()
        self.say("starting the sandbox and Airflow (scheduler, triggerer, dag-processor, api-server)")
        with Sandbox(self.home / "sandbox.log", seconds=self.seconds) as sandbox:
            self.say(f"sandbox: {sandbox.url}")
            airflow = LocalAirflow(
                home=self.home,
                dags_folder=ROOT / "dags_examples",
                connections={"video_default": sandbox.connection()},
            )
            with airflow:
                self.say(f"Airflow: {airflow.url}")
                run_id = airflow.trigger(DAG_ID, {"destination": f"{self.videos.as_uri()}/"})
                self.say(f"run:     {airflow.url}/dags/{DAG_ID}/runs/{run_id}")
                done = airflow.wait(DAG_ID, run_id, timeout=150, on_change=self.tell)
                landed = self.landed(airflow, done)
                if len(landed) < self.files:
                    self.explain(airflow, done)
                self.say(f"paid for {len(sandbox.payments())} videos (in the sandbox); stopping everything")
        return landed

    def tidy(self) -> None:
        """Remove what an earlier demo left: a file that is there at the end must be this one's."""
        for folder in (self.videos, self.home):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def landed(self, airflow: Deployment, done: DagRun) -> list[Path]:
        """The files that the run says it landed and that are there."""
        told = airflow.xcoms(DAG_ID, done.run_id, DOWNLOAD).values()
        paths = [self.path(str(result["uri"])) for result in told]
        return [path for path in paths if path.is_file()]

    def path(self, uri: str) -> Path:
        """Where the file of a URI lies on this machine."""
        return Path(unquote(urlsplit(uri).path))

    def explain(self, airflow: Deployment, done: DagRun) -> None:
        for task in done.failed:
            print(
                f"\n{task.name} failed; the end of its log:\n{airflow.task_log(task, lines=30)}", flush=True
            )
        print(f"\nLogs: {self.home}", flush=True)

    def tell(self, task: TaskInstance) -> None:
        # What Airflow has merely heard of has no state yet.
        if task.state not in {None, "scheduled", "queued"}:
            meaning = {"deferred": "deferred: waits in the triggerer, no worker busy"}.get(task.state or "")
            self.say(f"{task.name:<20} {meaning or task.state}")

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:5.1f}s] {text}", flush=True)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn the signals that end a program into an exception, so that every `with` can clean up.

    Once: what comes while it cleans up must not keep it from that.
    """
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: FrameType | None) -> None:
        for name in names:
            signal.signal(name, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    before = {name: signal.signal(name, stop) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


if __name__ == "__main__":
    sys.exit(main())
