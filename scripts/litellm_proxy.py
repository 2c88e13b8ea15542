"""A LiteLLM proxy in front of an OpenAI-format server, for as long as a `with` lasts.

It runs in an environment of its own (`make test-gateways` builds it): its pins are not Airflow's. It asks
nobody on the network, neither for prices nor with telemetry.
"""

from __future__ import annotations

import json
import os
import secrets
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.processes import Process, Service, free_port, stop_all, uninterrupted, wait_until

__all__ = ["LiteLLM"]

_QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "NO_PROXY": "127.0.0.1"}


class LiteLLM(Service):
    """`litellm --config …`, with the connection that leads to it.

    :param python: the interpreter of its environment
    :param folder: for its configuration and log
    :param upstream: base URL of the OpenAI-format server behind it
    :param key: that server's key
    :param models: the models that it serves, by the names that the server has for them
    """

    def __init__(self, python: Path, folder: Path, *, upstream: str, key: str, models: Sequence[str]) -> None:
        self.key = f"sk-litellm-{secrets.token_hex(8)}"
        self.url = ""
        self._python, self._folder = python, folder
        self._config = {
            "model_list": [
                {
                    "model_name": model,
                    "litellm_params": {
                        "model": f"openai/{model}", "api_base": f"{upstream}/v1", "api_key": key,
                    },
                }
                for model in models
            ],
            "general_settings": {"master_key": self.key},
            "router_settings": {"num_retries": 0},
        }  # fmt: skip
        self._process: Process | None = None

    def start(self) -> None:
        config, port = self._folder / "config.yaml", free_port()
        config.write_text(json.dumps(self._config), encoding="utf-8")  # JSON is YAML
        command = [
            str(self._python.with_name("litellm")), "--config", str(config),
            "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False",
        ]  # fmt: skip
        # A key of the machine's own would send what it cannot place to OpenAI.
        env = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
        with uninterrupted():
            self._process = Process(
                "litellm", command, log=self._folder / "litellm.log", env={**env, **_QUIET}
            )
        self.url = f"http://127.0.0.1:{port}"
        # It imports for a minute where the machine is busy.
        wait_until(
            self._answers,
            timeout=240, what="answer from LiteLLM", needs=[self._process],
        )  # fmt: skip

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/health/liveliness", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            stop_all([self._process], grace=3)
            self._process = None

    def connection(self, **changes: Any) -> Mapping[str, Any]:
        """The Airflow connection to it."""
        extra = {"dialect": "openai", "allowed_hosts": ["127.0.0.1"]}
        made = {"conn_type": "video_gateway", "host": self.url, "password": self.key, "extra": extra}
        return {**made, **changes}
