"""`make demo-cluster`: the playground on a distributed Airflow: Celery, PostgreSQL, Redis, two of everything.

Starts the package's sandbox, an S3 server and the deployment of `scripts/cluster.py`, runs
`dags_examples/generate_and_download.py` on it, and stays until Ctrl-C. Everything that it starts is
stopped again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from scripts.cluster import Cluster
from scripts.demo import ROOT, show
from scripts.deployment import Connection, Deployment
from scripts.playground import Playground, add_options


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo-cluster", description=__doc__.splitlines()[0])
    add_options(parser, videos=8, folder=ROOT / ".demo" / "cluster")
    return show(ClusterDemo.of(parser.parse_args()))


class ClusterDemo(Playground):
    """The playground on a cluster."""

    parts = "the sandbox, an S3 server, PostgreSQL, Redis and Airflow"
    invitation = "stays until Ctrl-C; trigger more runs, or kill one of the processes above and look on"

    def deployment(self, connections: Mapping[str, Connection]) -> Deployment:
        """See :meth:`Playground.deployment`."""
        return Cluster(home=self.home, dags_folder=ROOT / "dags_examples", connections=connections)


if __name__ == "__main__":
    sys.exit(main())
