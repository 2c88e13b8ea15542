"""The hook: an Airflow connection of type ``video_gateway`` as a gateway client.

The client is imported where it is used: operators import this module each time a Dag file is parsed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook, mask_secret

from airflow_video_provider.gateway.errors import GatewayError, RateLimitError, TransportError
from airflow_video_provider.gateway.verdict import Done
from airflow_video_provider.gateway.watch import TaskWatch
from airflow_video_provider.get_provider_info import CONN_FIELDS, HIDDEN_FIELDS, PLACEHOLDERS, RELABELING
from airflow_video_provider.hooks.connection import (
    allowed_hosts_from_connection,
    named,
    secrets_of,
    settings_from_connection,
)
from airflow_video_provider.hooks.shared import learn, shared_gateway, watch_at

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_video_provider.gateway.balance import Balance
    from airflow_video_provider.gateway.client import Gateway
    from airflow_video_provider.gateway.request import VideoRequest
    from airflow_video_provider.gateway.task import VideoTask

__all__ = ["DEFAULT_CONN_ID", "VideoHook"]

DEFAULT_CONN_ID = "video_default"

#: A create that was provably not accepted is sent again this often, and a ``Retry-After`` up to so many
#: seconds is waited out in the worker; a longer one is left to Airflow's retries.
SUBMIT_ATTEMPTS = 4
LONGEST_SUBMIT_WAIT = 60.0


class VideoHook(BaseHook):
    """Talk to a video-generation gateway.

    :param video_conn_id: connection of type ``video_gateway``: host = base URL (scheme defaults to https;
        port and path prefix are honoured), password = API key, extra = ``dialect``, ``create_encoding``,
        ``timeout`` (seconds), ``headers``, ``forwarded_host``, ``verify``, ``allowed_hosts``,
        ``max_requests_per_second``, ``console_url``.
    """

    conn_name_attr = "video_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "video_gateway"
    hook_name = "Video gateway"

    def __init__(self, video_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.video_conn_id = video_conn_id
        self._connection: Connection | None = None
        self._gateway: Gateway | None = None

    def _settings_source(self) -> Connection:
        """The connection, fetched once per hook: each fetch may be a call to a secrets backend."""
        if self._connection is None:
            self._connection = self.get_connection(self.video_conn_id)
        return self._connection

    def get_conn(self) -> Gateway:
        """The client, made once per hook.

        :raises InvalidRequestError: naming the field of the connection that is wrong.
        """
        from airflow_video_provider.gateway.client import Gateway

        if self._gateway is None:
            settings = settings_from_connection(self._settings_source())
            for value in secrets_of(settings):
                # Airflow masks the password by itself, but knows nothing of secret headers.
                mask_secret(value)
            with named(self.video_conn_id):  # the file of "verify" is read here
                self._gateway = Gateway(settings)
        return self._gateway

    def allowed_hosts(self) -> tuple[str, ...]:
        """Hosts and networks that files may be fetched from though their addresses are not public."""
        return allowed_hosts_from_connection(self._settings_source())

    def close(self) -> None:
        """Close the connections, if any were made."""
        if self._gateway is not None:
            self._gateway.close()
            self._gateway = None

    def __enter__(self) -> VideoHook:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def submit(
        self,
        request: VideoRequest,
        send: Callable[[], VideoTask] | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> VideoTask:
        """Submit a generation, which is paid for.

        What was provably not accepted (a rate limit, a refused connection) is sent again up to three times.
        Anything else is sent once.

        :param send: sends one create call for the request; default: the client's ``submit``.
        :param sleep: waits so many seconds before it is sent again; default: this thread does.
        :raises GatewayError: ``maybe_accepted`` tells whether it may have been paid for.
        """
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential
        from tenacity.nap import sleep as sleep_here

        backoff = wait_random_exponential(multiplier=1, max=8)

        def wait(state: Any) -> float:
            error = state.outcome.exception()
            return max(backoff(state), error.retry_after or 0.0)

        def say(state: Any) -> None:
            self.log.info(
                "not accepted, nothing paid: %s; sending it again in %.0f s",
                state.outcome.exception(),
                state.next_action.sleep,
            )

        return Retrying(
            stop=stop_after_attempt(SUBMIT_ATTEMPTS),
            wait=wait,
            retry=retry_if_exception(_may_be_sent_again),
            before_sleep=say,
            reraise=True,
            sleep=sleep or sleep_here,
        )(send or partial(self.get_conn().submit, request))

    def get_task(self, video_id: str) -> VideoTask:
        """Ask once how a task stands.

        :raises GatewayError: ``retryable`` tells whether to ask again.
        """
        return self.get_conn().get_task(video_id)

    async def asubmit(self, request: VideoRequest) -> VideoTask:
        """Send one create call from an event loop, once; see :meth:`submit`."""
        async with shared_gateway(self.video_conn_id) as shared:
            with shared.client() as client:
                return await client.submit(request)

    async def aget_task(self, video_id: str) -> VideoTask:
        """Ask once from an event loop how a task stands; see :meth:`get_task`."""
        async with shared_gateway(self.video_conn_id) as shared:
            with shared.client() as client:
                return await client.get_task(video_id)

    def watch(self, video_id: str, *, deadline: float | None = None, **more: Any) -> TaskWatch:
        """Make the decisions of a wait for one task, as its gateway wants it; for :meth:`wait`.

        :param deadline: seconds since the epoch at which to give up; None for never.
        :param more: see ``gateway.watch.watch_for``.
        """
        settings = self.get_conn().settings
        return watch_at(self.video_conn_id, settings, video_id, deadline=deadline, **more)

    def ask(self, watch: TaskWatch) -> Done | float:
        """Ask once and let the watch decide.

        :returns: how the wait ended, or the seconds until the next question.
        """
        try:
            task = self.get_task(watch.video_id)
        except GatewayError as error:
            verdict = watch.on_error(error, now=time.time())
        else:
            verdict = watch.on_task(task, now=time.time())
            if isinstance(verdict, Done):
                learn(self.video_conn_id, watch)
        if watch.news:
            self.log.info("video %s: %s", watch.video_id, watch.news)
        return verdict if isinstance(verdict, Done) else verdict.seconds

    def wait(self, watch: TaskWatch, *, delay: float = 0.0, first_contact_only: bool = False) -> Done | None:
        """Wait in this process.

        :param watch: the decision core, which has the deadline.
        :param delay: seconds before the first question.
        :param first_contact_only: return None as soon as the gateway answered and the task goes on.
        """
        while True:
            time.sleep(delay)
            verdict = self.ask(watch)
            if isinstance(verdict, Done):
                return verdict
            if first_contact_only and watch.contact_made:
                return None
            delay = verdict

    def cancel(self, video_id: str) -> None:
        """Cancel a task, or delete it, where the gateway has a route for that; see :meth:`Gateway.cancel`.

        :raises InvalidRequestError: the dialect has no such route, or the gateway refused.
        """
        self.get_conn().cancel(video_id)

    def balance(self) -> Balance | None:
        """What is left on the account, in the gateway's own units; None where no route tells it.

        :raises GatewayError: the key or the rate was refused, or the gateway could not be reached.
        """
        return self.get_conn().balance()

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection without paying: ask for a task that cannot exist, and read the verdict."""
        try:
            check = self.get_conn().check()
        except GatewayError as error:
            return False, str(error)
        return check.accepted, check.message + (self._balance_as_told() if check.accepted else "")

    def _balance_as_told(self) -> str:
        """For the connection test, which does not fail for want of it."""
        try:
            balance = self.balance()
        except GatewayError as error:
            return f". The balance is not told: {error}"
        return f". Balance: {balance}" if balance is not None else ""

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """How Airflow 2.11 to 3.1 draw the connection form; later ones read the provider's metadata."""
        return {"hidden_fields": HIDDEN_FIELDS, "relabeling": RELABELING, "placeholders": PLACEHOLDERS}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The extra's fields for the form of Airflow 2.11 to 3.1."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from flask_babel import lazy_gettext
        from wtforms import StringField

        return {
            name: StringField(
                lazy_gettext(field["label"]), widget=BS3TextFieldWidget(), description=field["description"]
            )
            for name, field in CONN_FIELDS.items()
        }


def _may_be_sent_again(error: BaseException) -> bool:
    return (
        isinstance(error, RateLimitError | TransportError)
        and not error.maybe_accepted
        and (error.retry_after or 0.0) <= LONGEST_SUBMIT_WAIT
    )
