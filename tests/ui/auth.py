"""Airflow's simple auth manager, in which the user `outsider` may not read the Dags of these tests."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

OUTSIDER = "outsider"


class PerDagAuthManager(SimpleAuthManager):
    """An auth manager that tells Dags apart, as those of real deployments do."""

    def is_authorized_dag(
        self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None
    ) -> bool:
        if user.username == OUTSIDER and str(getattr(details, "id", None)).startswith("ui_"):
            return False
        return super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        )
