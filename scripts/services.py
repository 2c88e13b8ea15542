"""Servers on this machine, each for as long as a `with` lasts.

A gateway and an object store, which a Dag of this package talks to; PostgreSQL and Redis, in which a
distributed Airflow keeps its state.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.processes import Process, ProcessError, Service, free_port, stop_all, uninterrupted, wait_until


class _Server(Service):
    """A server in a session of its own, for as long as the `with` lasts."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: Process | None = None

    def spawn(self, name: str, command: Sequence[str], env: Mapping[str, str], **options: Any) -> Process:
        with uninterrupted():
            self._process = Process(name, command, log=self.log, env=env, **options)
        return self._process

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def stop(self) -> None:
        if self._process is not None:
            stop_all([self._process], grace=3)
            self._process = None


class Sandbox(_Server):
    """`python -m airflow_video_provider.sandbox`, with the connection that leads to it.

    :param seconds: how long each generation takes
    :param key: the API key that it asks for; made up when left out
    :param cdn: serve the files from another port, as real gateways do from another host
    :param options: more of the sandbox's own command-line options
    """

    def __init__(
        self,
        log: Path,
        *,
        seconds: float = 6,
        key: str | None = None,
        cdn: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(log)
        self.seconds = seconds
        self.key = key or f"sk-sandbox-{secrets.token_hex(8)}"
        self.url = ""
        self._options = [*(["--cdn-port", "0"] if cdn else []), *options]

    def start(self) -> None:
        module = [sys.executable, "-m", "airflow_video_provider.sandbox"]
        options = ["--port", "0", "--seconds", f"{self.seconds:g}", "--key", self.key, *self._options]
        process = self.spawn("sandbox", [*module, *options], {**os.environ, "PYTHONUNBUFFERED": "1"})
        self.url = wait_until(self._address, timeout=30, what="address from the sandbox", needs=[process])

    def _address(self) -> str | None:
        found = re.search(r"sandbox: (http://\S+)", self.log.read_text(encoding="utf-8", errors="replace"))
        return found[1].rstrip("/") if found else None

    def connection(self, **changes: Any) -> dict[str, Any]:
        """The Airflow connection to it; `extra=` adds to the extra, anything else takes a field's place."""
        # The package refuses to fetch a video from loopback, unless the connection says that it may.
        extra = {"allowed_hosts": ["127.0.0.1"], **changes.pop("extra", {})}
        made = {"conn_type": "video_gateway", "host": self.url, "password": self.key, "extra": extra}
        return {**made, **changes}

    def payments(self) -> list[dict[str, Any]]:
        """What was paid so far: one entry for each task that was created."""
        told = self.get("/sandbox/payments")
        payments: list[dict[str, Any]] = told["payments"] if isinstance(told, dict) else told
        return payments

    def get(self, path: str) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own address
            self.url + path, headers={"Authorization": f"Bearer {self.key}"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as reply:
            return json.loads(reply.read())


class S3Server(_Server):
    """`rclone serve s3` over a directory: buckets are its directories, objects the files in them.

    :param root: what is served; the file of an object is `root / bucket / key`
    :param buckets: made before it starts
    """

    def __init__(self, root: Path, log: Path, *, buckets: Sequence[str] = ("videos",)) -> None:
        super().__init__(log)
        self.root = root
        self.buckets = tuple(buckets)
        self.access_key = f"AK{secrets.token_hex(8)}"
        self.secret_key = secrets.token_hex(16)
        self.endpoint = ""

    def start(self) -> None:
        for bucket in self.buckets:
            (self.root / bucket).mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        # The keys go by environment: a command line can be read by everybody on the machine. And no
        # configuration file: what its user keeps in one is none of this server's business.
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RCLONE_")},
            "RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"',
        }
        # Beside the interpreter, where the environment's other programs are.
        program = Path(sys.executable).parent / "rclone"
        command = [str(program), "serve", "s3", str(self.root), "--addr", f"127.0.0.1:{port}", "--config", ""]
        process = self.spawn("rclone serve s3", command, env)

        wait_until(lambda: _listens(port), timeout=30, what="S3 server", needs=[process])

    def connection(self) -> dict[str, Any]:
        """The Airflow connection to it."""
        return {
            "conn_type": "aws",
            "login": self.access_key,
            "password": self.secret_key,
            "extra": {"endpoint_url": self.endpoint, "region_name": "us-east-1"},
        }

    def objects(self, bucket: str) -> list[str]:
        """The keys in a bucket, unfinished uploads of the server itself left out."""
        folder = self.root / bucket
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class PostgreSQL(_Server):
    """A PostgreSQL of its own, with one database `airflow`, that forgets everything when it stops.

    Root may not run one: then it runs as the user that Debian's package makes, and its files lie in a
    directory of that user's.
    """

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        self.port = 0
        self.password = secrets.token_hex(16)
        self._folder: Path | None = None

    def url(self, driver: str = "postgresql+psycopg2") -> str:
        """The address as SQLAlchemy has it."""
        return f"{driver}://airflow:{self.password}@127.0.0.1:{self.port}/airflow"

    def start(self) -> None:
        programs = _postgresql_programs()
        user = "postgres" if os.geteuid() == 0 else None
        # Not below the home: a test's folders are closed to other users, and a socket's path must be short.
        with uninterrupted():
            self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        password, data = self._folder / "password", self._folder / "data"
        password.write_text(self.password)
        if user:
            for path in (self._folder, password):
                shutil.chown(path, user, user)
        self.port = free_port()
        env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
        made = subprocess.run(  # noqa: S603 - the command is ours
            [
                str(programs / "initdb"),
                *("--pgdata", str(data), "--username", "airflow", "--pwfile", str(password)),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync"),
            ],
            env=env,
            cwd=self._folder,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise ProcessError(f"initdb ended with {made.returncode}:\n{made.stdout}{made.stderr}")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self._folder,
            "max_connections": 300,
            # It need not outlive the machine: what a crash would lose is thrown away anyway.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        process = self.spawn(
            "postgresql",
            [str(programs / "postgres"), "-D", str(data), *options],
            env,
            cwd=self._folder,
            user=user,
            # "Fast": it does not wait for its clients to leave.
            stop_signal=signal.SIGINT,
        )
        wait_until(self._accepts, timeout=60, what="answer from PostgreSQL", needs=[process])
        with contextlib.closing(self.connect("postgres")) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE airflow")

    def connect(self, database: str = "airflow") -> Any:
        """A connection that reads what is committed now, and JSON as text, as SQLite has it."""
        import psycopg2.extras

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="airflow", password=self.password, dbname=database
        )
        connection.autocommit = True
        for register in (psycopg2.extras.register_default_json, psycopg2.extras.register_default_jsonb):
            register(connection, loads=str)
        return connection

    def stop(self) -> None:
        super().stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _accepts(self) -> bool:
        import psycopg2

        try:
            self.connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True


class Redis(_Server):
    """A Redis of its own that writes nothing to disk."""

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        self.port = 0
        self.password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ProcessError("redis-server is missing: apt-get install redis-server")
        self.port = free_port()
        # A file, because a command line can be read by everybody on the machine.
        config = self.log.with_suffix(".conf")
        config.parent.mkdir(parents=True, exist_ok=True)
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
            f'save ""\nappendonly no\ndir {config.parent}\n'
        )
        process = self.spawn("redis", [program, str(config)], {"PATH": os.environ.get("PATH", "")})
        wait_until(lambda: _listens(self.port), timeout=30, what="Redis", needs=[process])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _postgresql_programs() -> Path:
    """Where `initdb` and `postgres` are; Debian has them outside PATH, a directory for each version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name)
    )
    if not versions:
        raise ProcessError("PostgreSQL's server is missing: apt-get install postgresql")
    return versions[-1].parent
