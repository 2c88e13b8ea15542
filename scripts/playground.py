"""`make playground`: an Airflow and a gateway that costs nothing, left running to try things in.

Starts the package's sandbox, an S3 server and an Airflow over `dags_examples/`, whose connections are set up,
runs one of its Dags, and prints where to look. A Dag file that is changed or added there is seen within
seconds. Everything that it starts is stopped again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.demo import DAG_ID, ROOT, Demo, Stopped, show
from scripts.deployment import Connection, Deployment
from scripts.local_airflow import LocalAirflow
from scripts.services import S3Server, Sandbox

#: The bucket of the examples' default destinations.
BUCKET = "my-bucket"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make playground", description=__doc__.splitlines()[0])
    add_options(parser, videos=3, folder=ROOT / ".demo" / "playground")
    return show(Playground.of(parser.parse_args()))


def add_options(parser: argparse.ArgumentParser, *, videos: int, folder: Path) -> None:
    """The options of a demo that stays."""
    parser.add_argument("--videos", type=int, default=videos, help="how many videos to generate")
    parser.add_argument("--seconds", type=float, default=15, help="how long each video takes to generate")
    parser.add_argument("--once", action="store_true", help="end after the run")
    parser.add_argument("--folder", type=Path, default=folder, help="for videos, logs and state")


class Playground(Demo):
    """The demo on S3, which stays.

    :param files: how many videos
    :param once: end after the run instead of waiting for Ctrl-C
    """

    parts = "the sandbox, an S3 server and Airflow"
    invitation = (
        "stays until Ctrl-C: open the run above, trigger other Dags, or change a file in dags_examples/"
    )

    def __init__(self, folder: Path, seconds: float, files: int, *, once: bool) -> None:
        super().__init__(folder, seconds)
        self.files = files
        self.once = once

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Playground:
        """One as the command line wants it."""
        folder = arguments.folder.resolve()
        return cls(folder, arguments.seconds, arguments.videos, once=arguments.once)

    def deployment(self, connections: Mapping[str, Connection]) -> Deployment:
        """The Airflow to run, not started yet."""
        return LocalAirflow(home=self.home, dags_folder=ROOT / "dags_examples", connections=connections)

    def run(self) -> list[Path]:
        """See :meth:`Demo.run`."""
        self.tidy()
        self.say(f"starting {self.parts}; it takes about a minute")
        with (
            Sandbox(self.home / "sandbox.log", seconds=self.seconds) as sandbox,
            S3Server(self.videos, self.home / "rclone.log", buckets=[BUCKET]) as s3,
            self.deployment(
                {"video_default": sandbox.connection(), "aws_default": s3.connection()}
            ) as airflow,
        ):
            self.say(f"Airflow: {airflow.url}  (no login)")
            self.say(f"sandbox: {sandbox.url}  (tasks, payments, videos)")
            self.say(f"S3:      {s3.endpoint}, bucket {BUCKET}, served from {self.videos}")
            pids = {"sandbox": sandbox.pid, "rclone serve s3": s3.pid, **airflow.components()}
            self.say("running: " + ", ".join(f"{name} {pid}" for name, pid in pids.items()))
            prompts = [f"A paper boat on a rainy street, take {take}" for take in range(1, self.files + 1)]
            conf = {"prompts": prompts, "destination": f"s3://aws_default@{BUCKET}/films/"}
            run_id = airflow.trigger(DAG_ID, conf)
            self.say(f"run:     {airflow.url}/dags/{DAG_ID}/runs/{run_id}")
            done = airflow.wait(DAG_ID, run_id, timeout=600, on_change=self.tell)
            landed = self.landed(airflow, done)
            if len(landed) < self.files:
                self.explain(airflow, done)
            self.say(f"paid for {len(sandbox.payments())} videos (in the sandbox), {len(landed)} landed")
            self.say(f"look at: {airflow.url}/dags/{DAG_ID}/runs/{run_id}")
            if not self.once:
                self.stay()
        return landed

    def stay(self) -> None:
        """Wait for the signal that ends it: here that is what its user means, and no failure."""
        self.say(self.invitation)
        try:
            while True:
                time.sleep(1)
        except Stopped as reason:
            self.say(f"{reason}: stopping everything")

    def path(self, uri: str) -> Path:
        """See :meth:`Demo.path`."""
        return self.videos / BUCKET / unquote(urlsplit(uri).path).lstrip("/")


if __name__ == "__main__":
    sys.exit(main())
