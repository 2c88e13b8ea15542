"""The two servers that a Dag of this package talks to, on this machine: a gateway and an object store."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.processes import Process, Service, free_port, stop_all, uninterrupted, wait_until


class _Server(Service):
    """A server in a session of its own, for as long as the `with` lasts."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: Process | None = None

    def spawn(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> Process:
        with uninterrupted():
            self._process = Process(name, command, log=self.log, env=env)
        return self._process

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

        def listens() -> bool:
            with socket.socket() as probe:
                probe.settimeout(1)
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, timeout=30, what="S3 server", needs=[process])

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
