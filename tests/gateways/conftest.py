"""Programs of others, in the environment that `make test-gateways` builds and names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.services import Sandbox

# Before Airflow is imported: this module chooses an Airflow home of the tests' own.
from tests.airflow.conftest import listeners as listeners
from tests.airflow.conftest import variables as variables


@pytest.fixture(scope="session")
def others() -> Path:
    """The interpreter of the environment with LiteLLM and the openai client."""
    path = os.environ.get("GATEWAYS_PYTHON")
    if not path:
        pytest.skip("`make test-gateways` builds their environment, and names it in GATEWAYS_PYTHON")
    return Path(path).absolute()


@pytest.fixture(scope="session")
def strict(start_sandbox: Callable[..., Sandbox]) -> Sandbox:
    """A gateway that speaks OpenAI's format by the book; a generation takes two seconds."""
    return start_sandbox(seconds=2, options=["--strict-openai"])
