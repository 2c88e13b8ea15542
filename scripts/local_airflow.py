"""A real Airflow on this machine, for the demo and the tests: every component its own process.

`dag.test()` runs a deferral in the process of the caller, so it can prove nothing about workers that
are gone while a task waits, nor about a triggerer that is restarted. This can. It runs Airflow 3.x
(api-server, scheduler, triggerer, dag-processor) and 2.11 (scheduler and triggerer, no UI) on SQLite, from
any interpreter that has one installed, and itself imports none of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from scripts.deployment import Deployment, merged
from scripts.processes import stop_all


class LocalAirflow(Deployment):
    """One of each component, and SQLite. The parameters are those of :class:`Deployment`."""

    @property
    def database(self) -> Path:
        return self.home / "airflow.db"

    def commands(self) -> dict[str, list[str]]:
        """See :meth:`Deployment.commands`."""
        of_3 = {
            "api-server": ["api-server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"],
            "dag-processor": ["dag-processor"],
        }
        # Logs are read from disk: their servers would listen on every address of the machine.
        of_both = {name: [name, "--skip-serve-logs"] for name in ("scheduler", "triggerer")}
        return of_3 | of_both if self.version >= (3,) else of_both

    def task_components(self) -> list[str]:
        """See :meth:`Deployment.task_components`."""
        return ["scheduler"]

    def settings(self) -> dict[str, dict[str, object]]:
        """See :meth:`Deployment.settings`."""
        more: dict[str, dict[str, object]] = {
            "core": {"executor": "LocalExecutor", "parallelism": 4},
            # The writers of one small file wait for each other instead of failing. On 3.x not for long: an
            # async route of its api-server can wait for the commit that it holds up itself.
            "database": {
                "sql_alchemy_conn": f"sqlite:///{self.database}?timeout={3 if self.version >= (3,) else 60}"
            },
            "scheduler": {
                # 2.11: one process expands mapped tasks. SQLite has no row locks to keep two apart.
                "schedule_after_task_execution": False,
                # 2.11: its Dag processor must have handled a "zombie" before the scheduler looks again.
                # What it hears of twice fails the next attempt, too.
                "zombie_detection_interval": 30,
            },
        }
        return merged(super().settings(), more)

    def start_stores(self) -> None:
        """Make the database file."""
        # Several processes write: readers must not stop writers, as they do in SQLite's default mode.
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            database.execute("PRAGMA journal_mode=WAL")

    def query(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """See :meth:`Deployment.query`."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        ) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(statement, parameters)]

    def tables(self) -> list[str]:
        """See :meth:`Deployment.tables`."""
        return [row["name"] for row in self.query("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def kill_triggerer(self, *, gracefully: bool = False) -> None:
        """End the triggerer: as a crash would, or as a redeployment would."""
        if gracefully:
            stop_all([self._processes.pop("triggerer")], grace=30)
        else:
            self.kill_component("triggerer")

    def start_triggerer(self) -> None:
        """Start a triggerer and wait for its own first heartbeat, not one that a dead one left behind."""
        self.start_component("triggerer")

    def restart_triggerer(self, *, gracefully: bool = False) -> None:
        self.kill_triggerer(gracefully=gracefully)
        self.start_triggerer()

    def _environment(self) -> dict[str, str]:
        # 2.11 refuses SQLite with an executor that runs tasks side by side, unless told that this is a test.
        return {"_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1", **super()._environment()}
