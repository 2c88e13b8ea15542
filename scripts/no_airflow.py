"""A pytest plugin that makes Airflow impossible to import: `pytest -p scripts.no_airflow tests/unit`.

What must work without Airflow is run without it, instead of trusting that nothing reaches for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class NoAirflow(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] == "airflow":
            raise ModuleNotFoundError(f"{fullname}: what is tested here needs no Airflow", name=fullname)
        return None


sys.meta_path.insert(0, NoAirflow())
