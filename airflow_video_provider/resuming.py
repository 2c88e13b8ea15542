"""Defer, and resume in the attempt that has deferred; a later attempt begins anew.

Airflow stores with a deferral which method to call afterwards, and with what, and forgets that when the
attempt ends. The API server of 3.0 does not forget it when an attempt fails after its wait: each retry would
be handed the result that failed the first one. So a deferral says which attempt it is of.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_video_provider.waiting import SAFETY_NET

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context
    from airflow.triggers.base import BaseTrigger
else:
    # Airflow gives every subclass of BaseOperator an __init__ that calls BaseOperator's own, which would go
    # past BaseSensorOperator's.
    BaseOperator = object

__all__ = ["ResumesItsOwnAttempt"]

#: An argument for :meth:`ResumesItsOwnAttempt.resume_execution` alone: ``execute_complete(context, event)``
#: does not get it, here or in a subclass.
TRY_NUMBER = "try_number"


class ResumesItsOwnAttempt(BaseOperator):
    """Mixin of an operator or a sensor that takes no result of an earlier attempt for its own."""

    def defer_for(self, seconds: float, trigger: BaseTrigger, context: Context) -> NoReturn:
        """Wait in the triggerer, and go on in ``execute_complete``.

        :param seconds: how long the trigger may wait. Airflow ends the deferral
            :data:`~airflow_video_provider.waiting.SAFETY_NET` later.
        """
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={TRY_NUMBER: context["ti"].try_number},
            timeout=timedelta(seconds=seconds) + SAFETY_NET,
        )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; after one of an earlier attempt, execute this attempt.

        A deferral that says nothing of its attempt is taken for this one's: Airflow itself began it
        (``start_from_trigger``), ended it (a trigger that broke), or runs it in ``dag.test()``.
        """
        handed = dict(next_kwargs or {})
        deferred_in = handed.pop(TRY_NUMBER, None)
        now = context["ti"].try_number
        if deferred_in in (None, now):
            return super().resume_execution(next_method, handed, context)
        self.log.info(
            "attempt %s begins anew: what Airflow has handed it is the result of attempt %s", now, deferred_in
        )
        return self.execute(context)
