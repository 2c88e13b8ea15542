"""A real Airflow whose pages a real browser opens: Debian's chromium, driven by Playwright.

`UI_AIRFLOW_PYTHON` names the interpreter whose Airflow is looked at; by default the tests' own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from scripts.local_airflow import LocalAirflow
from scripts.services import S3Server, Sandbox

USERS = {"insider": "insider-password", "outsider": "outsider-password"}


class UiAirflow(LocalAirflow):
    """Airflow with two users, one of whom may not read the Dags of these tests."""

    def settings(self) -> dict[str, dict[str, object]]:
        settings = super().settings()
        passwords = self.home / "passwords.json"
        settings["core"] |= {
            "auth_manager": "tests.ui.auth.PerDagAuthManager",
            "simple_auth_manager_all_admins": False,
            "simple_auth_manager_users": ",".join(f"{name}:admin" for name in USERS),
            "simple_auth_manager_passwords_file": passwords,
        }
        return settings

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "passwords.json").write_text(json.dumps(USERS))
        super().start()

    def token(self, user: str) -> str:
        """What a user's browser has after the login."""
        return str(
            self._http("POST", "/auth/token", {"username": user, "password": USERS[user]}, None)[
                "access_token"
            ]
        )

    def api(self, method: str, path: str, body: Any = None) -> Any:
        self._token = self._token or self.token("insider")
        return super().api(method, path, body)


@pytest.fixture(scope="session")
def airflow(
    sandbox: Sandbox,
    s3_server: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[UiAirflow]:
    """The Airflow that is looked at."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "dags").mkdir()
    for path in (pytestconfig.rootpath / "tests/ui/dags").glob("*.py"):
        shutil.copy(path, folder / "dags")
    connections = {
        "video_default": sandbox.connection(extra={"console_url": f"{sandbox.url}/#{{video_id}}"}),
        "aws_default": s3_server.connection(),
    }
    python = os.environ.get("UI_AIRFLOW_PYTHON", sys.executable)
    with UiAirflow(
        home=folder / "home", dags_folder=folder / "dags", connections=connections, python=python
    ) as airflow:
        yield airflow


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium. Where there is none, the tests fail: a UI that nobody looked at is not tested."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("no chromium on this machine; apt-get install chromium (make test-ui does it for root)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture
def logged_in(browser: Any, airflow: UiAirflow) -> Iterator[Callable[..., Any]]:
    """A page of a browser: `logged_in("insider", dark=True)`. Closed after the test: Airflow's pages poll."""
    contexts = []

    def make(user: str = "insider", *, dark: bool = False, width: int = 1440, height: int = 900) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        context.add_cookies([{"name": "_token", "value": airflow.token(user), "url": airflow.url}])
        context.set_default_timeout(120_000)  # milliseconds, for machines that do much else
        page = context.new_page()
        page.foreign = []
        page.on("request", lambda request: note(page, request.url))
        page.problems = []
        page.on("console", lambda said: complain(page, said))
        return page

    def complain(page: Any, said: Any) -> None:
        if said.type == "error" and "/video-gateway" in said.location["url"]:  # Airflow's own are not ours
            page.problems.append(said.text)

    def note(page: Any, url: str) -> None:
        if not url.startswith((airflow.url, "data:", "blob:", "about:")):
            page.foreign.append(url)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def docs(pytestconfig: pytest.Config) -> Path | None:
    """Where to put screenshots: `UI_SCREENSHOTS=docs make test-ui` renews them."""
    folder = os.environ.get("UI_SCREENSHOTS")
    return pytestconfig.rootpath / folder if folder else None
