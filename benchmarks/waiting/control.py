"""The gateway as the rows see it: started, planned, frozen, thawed and asked what arrived."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.waiting.gateway import BIN
from scripts.processes import Process, Service, stop_all, wait_until

__all__ = ["ROOT", "MeasuredGateway"]

ROOT = Path(__file__).resolve().parents[2]


class MeasuredGateway(Service):
    """The gateway process with a certificate of its own; a context manager.

    :param folder: where its certificate, socket and log lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.control = folder / "certificate.pem", folder / "control"
        self.port = 0
        self._process: Process | None = None

    def start(self) -> None:
        """Make the certificate, and return once the gateway listens."""
        key, port_file = self.folder / "key.pem", self.folder / "port"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", key, "-out", self.certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        arguments = {
            "--certificate": self.certificate,
            "--key": key,
            "--control": self.control,
            "--port-file": port_file,
        }
        self._process = Process(
            "gateway",
            [sys.executable, "-m", "benchmarks.waiting.gateway"]
            + [str(word) for pair in arguments.items() for word in pair],
            log=self.folder / "gateway.log",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        wait_until(
            port_file.exists, timeout=20, what="port of the gateway", needs=[self._process], every=0.02
        )
        self.port = int(port_file.read_text())

    def stop(self) -> None:
        """End it, frozen or not."""
        if self._process:
            self.thaw()
            stop_all([self._process])

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command over the control socket, and return the reply.

        :raises RuntimeError: somebody queried what the gateway does not know: nothing would be measured.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.control))
            connection.sendall(json.dumps(command).encode() + b"\n")
            with connection.makefile("rb") as replies:
                reply = dict(json.loads(replies.readline()))
        if reply.get("unknown"):
            raise RuntimeError(f"{reply['unknown']} queries that the gateway does not know")
        return reply

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does: connections stay open, nothing is answered."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def per_second(self, begin: float, seconds: float) -> list[int]:
        """How many queries arrived in each whole second from *begin* (seconds since the epoch) on."""
        bins = self.ask(bins=True)["bins"]
        first, in_a_second = int(begin / BIN), round(1 / BIN)
        return [
            sum(bins.get(str(first + second * in_a_second + part), 0) for part in range(in_a_second))
            for second in range(int(seconds))
        ]

    def _send(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send(number)

    def environment(self) -> dict[str, str]:
        """What a process needs that waits at this gateway: connections, and trust in its certificate."""
        host, password = "127.0.0.1", "sk-benchmark"
        connections: dict[str, dict[str, Any]] = {
            "gateway": {
                "conn_type": "video_gateway",
                "host": f"https://{host}:{self.port}",
                "extra": {"verify": str(self.certificate)},
            },
            "wait_http": {"conn_type": "http", "host": f"https://{host}", "port": self.port},
            "wait_dbt": {"conn_type": "dbt_cloud", "host": f"{host}:{self.port}", "login": "1"},
            "wait_databricks": {
                "conn_type": "databricks",
                "schema": "https",
                "host": host,
                "port": self.port,
            },
            "wait_batch": {"conn_type": "pydanticai", "host": f"https://{host}:{self.port}/v1"},
        }
        return {
            "PYTHONPATH": str(ROOT),
            "SSL_CERT_FILE": str(self.certificate),
            "REQUESTS_CA_BUNDLE": str(self.certificate),
            "NO_PROXY": host,
            "no_proxy": host,
            **{
                f"AIRFLOW_CONN_{name.upper()}": json.dumps({"password": password, **connection})
                for name, connection in connections.items()
            },
        }


def sleep_until(moment: float) -> None:
    """Sleep until a time in seconds since the epoch."""
    time.sleep(max(moment - time.time(), 0.0))
