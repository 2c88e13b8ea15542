"""`make demo-cluster`: a distributed Airflow to look at, whose videos cost nothing and land in an S3 store.

Starts the package's sandbox, an S3 server and the deployment of `scripts/cluster.py`, runs
`dags_examples/generate_and_download.py` on it, and stays until Ctrl-C. Everything that it starts is
stopped again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.cluster import Cluster
from scripts.demo import DAG_ID, ROOT, Demo, Stopped, show
from scripts.services import S3Server, Sandbox

BUCKET = "videos"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo-cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=8, help="how many videos to generate")
    parser.add_argument("--seconds", type=float, default=15, help="how long each video takes to generate")
    parser.add_argument("--once", action="store_true", help="end after the run")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".demo" / "cluster", help="for videos, logs and state"
    )
    arguments = parser.parse_args()
    demo = ClusterDemo(arguments.folder.resolve(), arguments.seconds, arguments.videos, once=arguments.once)
    return show(demo)


class ClusterDemo(Demo):
    """The demo on a cluster.

    :param files: how many videos
    :param once: end after the run instead of waiting for Ctrl-C
    """

    def __init__(self, folder: Path, seconds: float, files: int, *, once: bool) -> None:
        super().__init__(folder, seconds)
        self.files = files
        self.once = once

    def run(self) -> list[Path]:
        self.tidy()
        self.say("starting the sandbox, an S3 server, PostgreSQL, Redis and Airflow; it takes about a minute")
        with (
            Sandbox(self.home / "sandbox.log", seconds=self.seconds) as sandbox,
            S3Server(self.videos, self.home / "rclone.log", buckets=[BUCKET]) as s3,
            Cluster(
                home=self.home,
                dags_folder=ROOT / "dags_examples",
                connections={"video_default": sandbox.connection(), "aws_default": s3.connection()},
            ) as airflow,
        ):
            self.say(f"Airflow: {airflow.url}")
            self.say(f"sandbox: {sandbox.url}")
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
            if not self.once:
                self.stay()
        return landed

    def stay(self) -> None:
        """Wait for the signal that ends it: here that is what its user means, and no failure."""
        self.say("stays until Ctrl-C; trigger more runs, or kill one of the processes above and look on")
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
