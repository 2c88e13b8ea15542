"""A distributed Airflow on one machine: PostgreSQL, Redis, Celery, and two of what may die.

It is what a real deployment is, except for the network between: one api-server, one dag-processor, two
schedulers, two triggerers and two Celery workers, each a process in a session of its own that can be killed,
or stopped and resumed, apart from the others. Everything listens on 127.0.0.1 only.

It needs Airflow 3, and Debian's packages `postgresql` and `redis-server`.
"""

from __future__ import annotations

import contextlib
from typing import Any

from scripts.deployment import Deployment, merged
from scripts.services import PostgreSQL, Redis

SCHEDULERS = ("scheduler-1", "scheduler-2")
TRIGGERERS = ("triggerer-1", "triggerer-2")
WORKERS = ("worker-1", "worker-2")

HEARTBEAT_TIMEOUT = 25
"""Seconds of silence after which a running task is taken for dead and repeated; Airflow's default is 300."""

TRIGGERER_THRESHOLD = 12
"""Seconds of silence after which a triggerer's waits move to another; Airflow's default is 30."""

VISIBILITY_TIMEOUT = 90
"""Seconds after which Redis gives a message that a worker took and did not finish to another worker.
Airflow's default is a day; it must exceed the longest time that a task holds a worker."""


class Cluster(Deployment):
    """Airflow on PostgreSQL and Celery. The parameters are those of :class:`Deployment`, and:

    :param concurrency: how many tasks each worker runs at a time
    """

    # Beside eight components on two cores, looking often would slow down what is looked at.
    poll_every = 0.5

    def __init__(self, *, concurrency: int = 6, **options: Any) -> None:
        super().__init__(**options)
        self.concurrency = concurrency
        self.postgresql = PostgreSQL(self._log("postgresql"))
        self.redis = Redis(self._log("redis"))
        self._connection: Any = None

    def commands(self) -> dict[str, list[str]]:
        """See :meth:`Deployment.commands`."""
        commands = {
            "api-server": ["api-server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"],
            "dag-processor": ["dag-processor"],
        }
        # Logs are read from disk: their servers would listen on every address of the machine.
        commands |= {name: ["scheduler", "--skip-serve-logs"] for name in SCHEDULERS}
        commands |= {name: ["triggerer", "--skip-serve-logs"] for name in TRIGGERERS}
        for name in WORKERS:
            commands[name] = ["celery", "worker", "--skip-serve-logs", "--celery-hostname", name]
            commands[name] += ["--concurrency", str(self.concurrency)]
            # Two workers of one home would take each other's for their own.
            commands[name] += ["--pid", str(self.home / f"{name}.pid")]
        return commands

    def task_components(self) -> list[str]:
        """See :meth:`Deployment.task_components`."""
        return list(WORKERS)

    def settings(self) -> dict[str, dict[str, object]]:
        """See :meth:`Deployment.settings`."""
        more: dict[str, dict[str, object]] = {
            "core": {
                "executor": "CeleryExecutor",
                "parallelism": 4 * self.concurrency,
                "max_active_tasks_per_dag": 4 * self.concurrency,
            },
            "database": {
                "sql_alchemy_conn": self.postgresql.url(),
                "sql_alchemy_conn_async": self.postgresql.url("postgresql+asyncpg"),
            },
            "celery": {
                "broker_url": self.redis.url,
                "result_backend": f"db+{self.postgresql.url()}",
                "worker_prefetch_multiplier": 1,
            },
            "celery_broker_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT},
            "scheduler": {
                "task_instance_heartbeat_sec": 3,
                "task_instance_heartbeat_timeout": HEARTBEAT_TIMEOUT,
                "task_instance_heartbeat_timeout_detection_interval": 3,
                # What a dead scheduler had in hand is taken over by the other.
                "scheduler_health_check_threshold": 12,
                "orphaned_tasks_check_interval": 5,
                "task_queued_timeout": 2 * VISIBILITY_TIMEOUT,
                "task_queued_timeout_check_interval": 10,
            },
            "triggerer": {"triggerer_health_check_threshold": TRIGGERER_THRESHOLD},
            "workers": {"min_heartbeat_interval": 3},
        }
        return merged(super().settings(), more)

    def start_stores(self) -> None:
        """Start PostgreSQL and Redis."""
        self.postgresql.start()
        self.redis.start()

    def stop(self) -> None:
        """See :meth:`Deployment.stop`."""
        try:
            super().stop()
        finally:
            with contextlib.ExitStack() as stack:
                stack.callback(self.postgresql.stop)
                stack.callback(self.redis.stop)
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None

    def components(self) -> dict[str, int]:
        """See :meth:`Deployment.components`; PostgreSQL and Redis are among them."""
        stores = {"postgresql": self.postgresql.pid, "redis": self.redis.pid}
        return {name: pid for name, pid in stores.items() if pid} | super().components()

    def query(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """See :meth:`Deployment.query`."""
        if self._connection is None:
            self._connection = self.postgresql.connect()
        with self._connection.cursor() as cursor:
            cursor.execute(statement.replace("?", "%s"), parameters or None)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def tables(self) -> list[str]:
        """See :meth:`Deployment.tables`."""
        rows = self.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [row["tablename"] for row in rows]
