"""What every Airflow that the demos and the tests run has in common: its components, its runs, their results.

`local_airflow.LocalAirflow` is a small one on SQLite, `cluster.Cluster` a distributed one. Neither imports
Airflow: they run one from any interpreter that has it installed.

What happened is read from the metadata database directly. A query takes a millisecond, and the command line
of Airflow takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from cryptography.fernet import Fernet

from scripts.processes import Process, ProcessError, Service, free_port, stop_all, uninterrupted, wait_until

T = TypeVar("T")
Connection = str | Mapping[str, Any]

FINISHED = frozenset({"success", "failed"})
_JOBS = {
    "dag-processor": "DagProcessorJob",
    "scheduler": "SchedulerJob",
    "triggerer": "TriggererJob",
}


class AirflowError(RuntimeError):
    """Something that Airflow refused, or a run that did not end; the message says which and why."""


@dataclass(frozen=True)
class TaskInstance:
    """One row of `task_instance`, as it was when it was read."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    try_number: int
    max_tries: int
    trigger_id: int | None
    ti_id: str | None
    """Airflow 3 names a try with this id, in process titles too; 2.x has none."""

    @property
    def name(self) -> str:
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


@dataclass(frozen=True)
class DagRun:
    dag_id: str
    run_id: str
    state: str
    tasks: tuple[TaskInstance, ...]

    def task(self, task_id: str, map_index: int = -1) -> TaskInstance:
        for task in self.tasks:
            if (task.task_id, task.map_index) == (task_id, map_index):
                return task
        raise KeyError(
            f"{task_id}[{map_index}] is not in {self.dag_id}: {[task.name for task in self.tasks]}"
        )

    @property
    def failed(self) -> tuple[TaskInstance, ...]:
        """The tasks that failed themselves, not those that never ran because of them."""
        return tuple(task for task in self.tasks if task.state == "failed")


@dataclass(frozen=True)
class Trigger:
    """One row of the `trigger` table, its kwargs decrypted."""

    id: int
    classpath: str
    kwargs: dict[str, Any]
    triggerer_id: int | None


class Deployment(Service):
    """One Airflow with its own home, database and ports; a context manager that leaves nothing running.

    :param home: its AIRFLOW_HOME: a directory of its own, made when it is missing
    :param dags_folder: where it finds Dags; files added later are found within seconds
    :param connections: by id; a URI, or what Airflow's JSON form takes (conn_type, host, extra, ...)
    :param env: more environment for every component, tasks included
    :param python: the interpreter of the environment that holds the Airflow to run
    """

    #: How often a waiting caller looks into the database.
    poll_every = 0.1

    def __init__(
        self,
        *,
        home: Path,
        dags_folder: Path,
        connections: Mapping[str, Connection] | None = None,
        env: Mapping[str, str] | None = None,
        python: str | Path = sys.executable,
    ) -> None:
        self.home = home.resolve()
        self.dags_folder = dags_folder.resolve()
        self.python = str(python)
        self.version = _airflow_version(self.python)
        self.logs = self.home / "logs"
        self.url: str | None = None
        self._port = 0
        if self.version >= (3,):
            self._port = free_port()
            self.url = f"http://127.0.0.1:{self._port}"
        self._fernet_key = Fernet.generate_key()
        self._secrets = {"api": uuid.uuid4().hex, "jwt": uuid.uuid4().hex + uuid.uuid4().hex}
        self._token: str | None = None
        self._processes: dict[str, Process] = {}
        self._connections = dict(connections or {})
        self._more_env = dict(env or {})

    # ------------------------------------------------------------------ what differs

    def commands(self) -> dict[str, list[str]]:
        """The arguments of `airflow` that start each component, by its name, in the order of starting."""
        raise NotImplementedError

    def task_components(self) -> list[str]:
        """The components whose sessions hold the processes of tasks."""
        raise NotImplementedError

    def settings(self) -> dict[str, dict[str, object]]:
        """Airflow's configuration, by section; a deployment adds its own to this."""
        return {
            "core": {
                "dags_folder": self.dags_folder,
                "load_examples": False,
                "dags_are_paused_at_creation": False,
                "fernet_key": self._fernet_key.decode(),
                "hostname_callable": "socket.gethostname",
                "simple_auth_manager_all_admins": True,
                "execution_api_server_url": f"{self.url}/execution/",
            },
            "database": {"load_default_connections": False},
            "scheduler": {
                "scheduler_heartbeat_sec": 1,
                "scheduler_idle_sleep_time": 0.3,
                "job_heartbeat_sec": 1,
                "trigger_timeout_check_interval": 1,
                "min_file_process_interval": 30,
                "dag_dir_list_interval": 2,
                "enable_health_check": False,
            },
            "dag_processor": {"refresh_interval": 2, "min_file_process_interval": 30, "parsing_processes": 1},
            # After a crash, waits move to the next triggerer once the old one has been silent this long.
            "triggerer": {"job_heartbeat_sec": 1, "triggerer_health_check_threshold": 10},
            "api": {
                "host": "127.0.0.1",
                "port": self._port,
                "base_url": self.url,
                "secret_key": self._secrets["api"],
            },
            "api_auth": {"jwt_secret": self._secrets["jwt"]},
            "logging": {"colored_console_log": False},
            "usage_data_collection": {"enabled": False},
        }

    def query(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Rows of the metadata database; `?` stands for a parameter."""
        raise NotImplementedError

    def tables(self) -> list[str]:
        """The names of the tables of the metadata database."""
        raise NotImplementedError

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Make the database, start every component, and return once each has proved that it works."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.start_stores()
        self.cli("db", "migrate")
        names = list(self.commands())
        works = {name: self._works(name, after=0, of=names) for name in names}
        for name in names:
            self._spawn(name)
        for name in names:
            # A component that boots beside seven others on two cores takes its time.
            self._wait_until(works[name], 180, f"sign of life of {name}")

    def start_stores(self) -> None:
        """Start what the components need before the first of them."""

    def stop(self) -> None:
        """Stop every component and everything that any of them started. Safe to call twice."""
        try:
            # One that was stopped with SIGSTOP could not hear that it is to end.
            for process in self._processes.values():
                process.send(signal.SIGCONT)
            stop_all(self._processes.values())
        finally:
            self._processes.clear()

    def components(self) -> dict[str, int]:
        """The process id of every component that was started, which is also the id of its session."""
        return {name: process.pid for name, process in self._processes.items()}

    def members(self, name: str) -> list[psutil.Process]:
        """The living processes of a component's session; none where it was killed."""
        return self._processes[name].members() if name in self._processes else []

    def start_component(self, name: str, *, wait: bool = True, timeout: float = 120) -> None:
        """Start a component that was killed; wait for its own first sign of life, not a dead one's."""
        last = self.query("SELECT max(id) AS id FROM job")[0]["id"] or 0
        works = self._works(name, after=last, of=[name])
        self._spawn(name)
        if wait:
            self._wait_until(works, timeout, f"sign of life of {name}")

    def kill_component(self, name: str) -> None:
        """End a component and all that it started with SIGKILL, as the loss of its machine would."""
        self._processes.pop(name).kill()

    def pause_component(self, name: str) -> None:
        """Stop a component and all that it started with SIGSTOP: to the others it looks dead."""
        self._processes[name].send(signal.SIGSTOP)

    def resume_component(self, name: str) -> None:
        """Let a component that was paused go on, as one whose network or virtual machine came back does."""
        self._processes[name].send(signal.SIGCONT)

    def cli(self, *arguments: str, timeout: float = 180) -> str:
        """Run one command of Airflow's command line; it costs seconds, so prefer what is below."""
        done = subprocess.run(  # noqa: S603 - the command is ours
            [self.python, "-m", "airflow", *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            output = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise AirflowError(f"airflow {' '.join(arguments)} ended with {done.returncode}:\n{output}")
        return done.stdout

    # ------------------------------------------------------------------ runs

    def trigger(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, *, run_id: str | None = None
    ) -> str:
        """Start a run, once the Dag has been parsed, and return its id."""
        run_id = run_id or f"run-{uuid.uuid4().hex[:12]}"
        self.wait_for_dag(dag_id)
        if self.version >= (3,):
            body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})}
            self.api("POST", f"/api/v2/dags/{urllib.parse.quote(dag_id)}/dagRuns", body)
        else:
            self.cli("dags", "trigger", "--run-id", run_id, "--conf", json.dumps(conf or {}), dag_id)
        return run_id

    def wait_for_dag(self, dag_id: str, *, timeout: float = 60) -> None:
        """Wait until the Dag can be run; if its file cannot be imported, say why at once."""

        def parsed() -> bool:
            if self.query("SELECT 1 FROM dag JOIN serialized_dag USING (dag_id) WHERE dag_id = ?", dag_id):
                return True
            errors = self.query("SELECT filename, stacktrace FROM import_error")
            if errors:
                found = "\n".join(f"{row['filename']}: {row['stacktrace']}" for row in errors)
                raise AirflowError(f"no Dag {dag_id}; files that cannot be imported:\n{found}")
            return False

        self._wait_until(parsed, timeout, f"Dag {dag_id} in {self.dags_folder}")

    def wait(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout: float = 180,
        on_change: Callable[[TaskInstance], None] | None = None,
    ) -> DagRun:
        """Wait for the end of a run; `on_change` is told of each task whose state became another."""
        known: dict[tuple[str, int], str | None] = {}

        def ended() -> DagRun | None:
            # The run's state first: a task that changes in between is then seen one round later,
            # while the other order could report a finished run with a task that still seems to run.
            state = self.run_state(dag_id, run_id)
            tasks = self.tasks(dag_id, run_id)
            for task in tasks:
                key = (task.task_id, task.map_index)
                if known.get(key) != task.state:
                    known[key] = task.state
                    if on_change:
                        on_change(task)
            return DagRun(dag_id, run_id, state, tuple(tasks)) if state in FINISHED else None

        try:
            return self._wait_until(ended, timeout, f"end of {dag_id} {run_id}", every=0.2)
        except ProcessError as error:
            states = ", ".join(f"{task.name}: {task.state}" for task in self.tasks(dag_id, run_id))
            raise AirflowError(f"{dag_id} {run_id} did not end ({states})\n{error}") from error

    def run(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        timeout: float = 180,
        on_change: Callable[[TaskInstance], None] | None = None,
    ) -> DagRun:
        """Trigger and wait, for when nothing is to be done in between."""
        return self.wait(dag_id, self.trigger(dag_id, conf), timeout=timeout, on_change=on_change)

    def clear(self, dag_id: str, run_id: str, tasks: Iterable[str | tuple[str, int]]) -> None:
        """Clear tasks of a run, whatever their state, as the Clear button does.

        :param tasks: ids, which for a mapped task mean all of it, or an id with a map index (3.x only)
        """
        wanted = list(tasks)
        if self.version >= (3,):
            body = {
                "dry_run": False,
                "dag_run_id": run_id,
                "task_ids": [task if isinstance(task, str) else list(task) for task in wanted],
                "only_failed": False,
                "reset_dag_runs": True,
            }
            self.api("POST", f"/api/v2/dags/{urllib.parse.quote(dag_id)}/clearTaskInstances", body)
            return
        if not all(isinstance(task, str) for task in wanted):
            raise AirflowError(f"the command line of Airflow 2 clears no single map index: {wanted}")
        # It knows no run ids either: the run is the one at this moment.
        moment = self.query(
            "SELECT execution_date FROM dag_run WHERE dag_id = ? AND run_id = ?", dag_id, run_id
        )[0]["execution_date"]
        names = "|".join(re.escape(str(task)) for task in wanted)
        span = ["--start-date", str(moment), "--end-date", str(moment)]
        self.cli("tasks", "clear", "--yes", "--task-regex", f"^({names})$", *span, dag_id)

    # ------------------------------------------------------------------ what is there

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """The state of a run, None where there is no such run."""
        rows = self.query("SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?", dag_id, run_id)
        return str(rows[0]["state"]) if rows else None

    def tasks(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        rows = self.query(
            "SELECT * FROM task_instance WHERE dag_id = ? AND run_id = ?"
            " ORDER BY start_date IS NULL, start_date, task_id, map_index",
            dag_id,
            run_id,
        )
        return [
            TaskInstance(
                dag_id=row["dag_id"],
                run_id=row["run_id"],
                task_id=row["task_id"],
                map_index=row["map_index"],
                state=row["state"],
                try_number=row["try_number"],
                max_tries=row["max_tries"],
                trigger_id=row["trigger_id"],
                ti_id=str(uuid.UUID(row["id"])) if "id" in row else None,
            )
            for row in rows
        ]

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> TaskInstance | None:
        for task in self.tasks(dag_id, run_id):
            if (task.task_id, task.map_index) == (task_id, map_index):
                return task
        return None

    def wait_for_state(
        self, dag_id: str, run_id: str, task_id: str, state: str, *, map_index: int = -1, timeout: float = 90
    ) -> TaskInstance:
        """Wait until a task is in a state, such as "deferred"; fail at once when it can no longer be."""

        def reached() -> TaskInstance | None:
            task = self.task(dag_id, run_id, task_id, map_index)
            if task and task.state == state:
                return task
            if task and task.state in {"success", "failed", "upstream_failed", "skipped", "removed"}:
                raise AirflowError(f"{task.name} is {task.state}, not {state}:\n{self.task_log(task)}")
            return None

        return self._wait_until(reached, timeout, f"{dag_id}.{task_id} in state {state}")

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1
    ) -> Any:
        """One XCom, or None where there is none."""
        return self.xcoms(dag_id, run_id, task_id, key).get(map_index)

    def xcoms(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> dict[int, Any]:
        """The XComs of a mapped task, by map index (of any other task: under -1)."""
        rows = self.query(
            "SELECT map_index, value FROM xcom WHERE dag_id = ? AND run_id = ? AND task_id = ? AND key = ?"
            " ORDER BY map_index",
            dag_id,
            run_id,
            task_id,
            key,
        )
        return {row["map_index"]: _json(row["value"]) for row in rows}

    def variables(self, prefix: str = "") -> list[str]:
        """The names of Airflow's Variables that begin so."""
        rows = self.query("SELECT key FROM variable ORDER BY key")
        return [row["key"] for row in rows if row["key"].startswith(prefix)]

    def triggers(self) -> list[Trigger]:
        """What the triggerer has to wait for now."""
        return [
            Trigger(row["id"], row["classpath"], self._trigger_kwargs(row["kwargs"]), row["triggerer_id"])
            for row in self.query("SELECT id, classpath, kwargs, triggerer_id FROM trigger ORDER BY id")
        ]

    def worker_processes(self, task: TaskInstance) -> list[psutil.Process]:
        """The living processes that work on a task: its supervisor and what that started."""
        found: dict[int, psutil.Process] = {}
        for process in self._task_processes():
            with contextlib.suppress(psutil.Error):
                if self._works_on(process, task):
                    found[process.pid] = process
                    found.update((child.pid, child) for child in process.children(recursive=True))
        return list(found.values())

    def _task_processes(self) -> Iterator[psutil.Process]:
        for name in self.task_components():
            yield from self.members(name)

    def _works_on(self, process: psutil.Process, task: TaskInstance) -> bool:
        title = " ".join(process.cmdline())
        if task.ti_id:
            return task.ti_id in title
        # 2.x puts the command into the title, as Python writes a list.
        mapped = (
            f"'--map-index', '{task.map_index}'" in title
            if task.map_index >= 0
            else "--map-index" not in title
        )
        return mapped and f"'{task.dag_id}', '{task.task_id}', '{task.run_id}'" in title

    def wait_without_worker(self, task: TaskInstance, *, timeout: float = 120) -> None:
        """Wait until no process works on a task; right after a deferral its last one is still ending."""
        self._wait_until(lambda: not self.worker_processes(task), timeout, f"{task.name} without a worker")

    def log_files(self, task: TaskInstance) -> list[Path]:
        """Everything logged for a task, tries in order, what its triggers logged included."""
        folder = self.logs / f"dag_id={task.dag_id}" / f"run_id={task.run_id}" / f"task_id={task.task_id}"
        if task.map_index >= 0:
            folder /= f"map_index={task.map_index}"
        return sorted(folder.glob("attempt=*.log*"))

    def task_log(self, task: TaskInstance, *, lines: int | None = None) -> str:
        """A task's log as a person reads it (Airflow 3 writes JSON lines)."""
        text = [
            _readable(line)
            for path in self.log_files(task)
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        ]
        flat = "\n".join(text).splitlines()
        return "\n".join(flat if lines is None else flat[-lines:])

    def component_logs(self) -> dict[str, Path]:
        return {path.stem: path for path in sorted((self.home / "components").glob("*.log"))}

    def where_is(self, text: str) -> list[str]:
        """Every place where a text can be read: database, logs, decrypted triggers. For secrets: none."""
        found = []
        for table in self.tables():
            for row in self.query(f'SELECT * FROM "{table}"'):  # noqa: S608 - a name from the database
                found += [
                    f"{table}.{column}"
                    for column, value in row.items()
                    if text in (value.decode(errors="replace") if isinstance(value, bytes) else str(value))
                ]
        found += [
            f"trigger.kwargs (decrypted) of {t.classpath}" for t in self.triggers() if text in str(t.kwargs)
        ]
        for path in self.home.rglob("*.log*"):
            if path.is_file() and text in path.read_text(encoding="utf-8", errors="replace"):
                found.append(str(path.relative_to(self.home)))
        return sorted(set(found))

    def api(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the REST API of Airflow 3; every caller is an administrator here."""
        if self._token is None:
            self._token = self._http("GET", "/auth/token", None, None)["access_token"]
        try:
            return self._http(method, path, body, self._token)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise AirflowError(f"{method} {path}: {error.code} {said}") from error

    # ------------------------------------------------------------------ within

    def _http(self, method: str, path: str, body: Mapping[str, Any] | None, token: str | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.url}{path}",
            json.dumps(body).encode() if body is not None else None,
            headers,
            method=method,
        )
        # Never through a proxy of the machine: the address is loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as reply:
            return json.loads(reply.read() or b"null")

    def _api_answers(self) -> bool:
        try:
            health = self._http("GET", "/api/v2/monitor/health", None, None)
        except OSError:
            return False
        return bool(health["metadatabase"]["status"] == "healthy")

    def _works(self, name: str, *, after: int, of: Sequence[str]) -> Callable[[], bool]:
        """Whether a component that is started now has proved that it works.

        :param after: the last job that was there before
        :param of: all that are started together; two schedulers have two jobs
        """
        if name == "api-server":
            return self._api_answers
        if job_type := _job_type(name):
            alike = sum(_job_type(other) == job_type for other in of)
            return lambda: self._jobs(job_type, after=after) >= alike
        log = self._log(name)
        seen = log.stat().st_size if log.exists() else 0
        return lambda: log.exists() and " ready." in _from(log, seen)

    def _jobs(self, job_type: str, *, after: int) -> int:
        rows = self.query(
            "SELECT 1 FROM job WHERE job_type = ? AND id > ? AND state = 'running' AND end_date IS NULL"
            " AND latest_heartbeat IS NOT NULL",
            job_type,
            after,
        )
        return len(rows)

    def _log(self, name: str) -> Path:
        return self.home / "components" / f"{name}.log"

    def _spawn(self, name: str) -> None:
        with uninterrupted():
            self._processes[name] = Process(
                name,
                [self.python, "-m", "airflow", *self.commands()[name]],
                log=self._log(name),
                env=self._environment(),
            )

    def _wait_until(
        self, condition: Callable[[], T | None], timeout: float, what: str, *, every: float | None = None
    ) -> T:
        return wait_until(
            condition,
            timeout=timeout,
            what=what,
            needs=self._processes.values(),
            every=every or self.poll_every,
        )

    def _trigger_kwargs(self, stored: str) -> dict[str, Any]:
        # Airflow 3 stores in clear what a worker deferred with, and encrypts what it defers itself.
        if not stored.startswith("{"):
            stored = Fernet(self._fernet_key).decrypt(stored.encode()).decode()
        kwargs: dict[str, Any] = _unwrapped(json.loads(stored))
        return kwargs

    def _environment(self) -> dict[str, str]:
        # What the caller's shell says about its own Airflow must not reach this one.
        env = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW"))}
        env["AIRFLOW_HOME"] = str(self.home)
        env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1,localhost"
        env["PYTHONUNBUFFERED"] = "1"
        for section, options in self.settings().items():
            for option, value in options.items():
                env[f"AIRFLOW__{section.upper()}__{option.upper()}"] = str(value)
        for conn_id, connection in self._connections.items():
            env[f"AIRFLOW_CONN_{conn_id.upper()}"] = (
                connection if isinstance(connection, str) else json.dumps(connection)
            )
        return env | self._more_env


def merged(
    base: Mapping[str, Mapping[str, object]], more: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    """Settings, section by section; `more` wins."""
    return {
        section: {**base.get(section, {}), **more.get(section, {})}
        for section in [*base, *(section for section in more if section not in base)]
    }


def _job_type(component: str) -> str | None:
    """The row that a component keeps alive in the table `job`; api-server and workers have none there."""
    return next((job for kind, job in _JOBS.items() if component.startswith(kind)), None)


def _from(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def _airflow_version(python: str) -> tuple[int, ...]:
    done = subprocess.run(  # noqa: S603 - the command is ours
        [python, "-c", "from importlib.metadata import version; print(version('apache-airflow'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(int(part) for part in done.stdout.strip().split(".")[:2])


def _json(value: str | bytes | None) -> Any:
    return None if value is None else json.loads(value)


def _unwrapped(value: Any) -> Any:
    """Airflow's serialization, read back as far as a trigger's plain kwargs go."""
    if isinstance(value, dict):
        if value.keys() == {"__type", "__var"}:
            return _unwrapped(value["__var"])
        return {key: _unwrapped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    return value


def _readable(line: str) -> str:
    """One line of a task's log; Airflow 3 writes each as JSON, a traceback as a structure within."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "event" not in entry:
        return line
    text = f"{entry.get('timestamp', '')} {str(entry.get('level', '')).upper()} {entry['event']}"
    for detail in entry.get("error_detail") or ():
        # Where it happened is in the innermost frames; those above are Airflow's own way there.
        for frame in (detail.get("frames") or ())[-3:]:
            text += f"\n  {frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}"
        text += f"\n{detail.get('exc_type')}: {detail.get('exc_value')}"
    return text
