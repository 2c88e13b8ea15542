"""An Airflow connection of type ``video_gateway`` as a gateway client.

The client is imported where it is used: operators import this module each time a Dag file is parsed.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.sdk import BaseHook, mask_secret

from airflow_video_provider.gateway.errors import (
    AuthenticationError,
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    TransportError,
    UnreadableReplyError,
)
from airflow_video_provider.gateway.pace import RateGate
from airflow_video_provider.gateway.watch import Done, TaskWatch
from airflow_video_provider.get_provider_info import CONN_FIELDS, HIDDEN_FIELDS, PLACEHOLDERS, RELABELING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_video_provider.gateway.client import AsyncGateway, Gateway, GatewaySettings
    from airflow_video_provider.gateway.request import VideoRequest
    from airflow_video_provider.gateway.task import VideoTask

__all__ = ["DEFAULT_CONN_ID", "VideoHook", "settings_from_connection", "shared_gateway"]

DEFAULT_CONN_ID = "video_default"

#: A create that was provably not accepted is sent again this often, and a ``Retry-After`` up to so many
#: seconds is waited out in the worker; a longer one is left to Airflow's retries.
SUBMIT_ATTEMPTS = 4
LONGEST_SUBMIT_WAIT = 60.0


# -- the connection ----------------------------------------------------------------------------------------


def settings_from_connection(connection: Connection) -> GatewaySettings:
    """Read a connection, whichever way it was made: a form, JSON or a URI.

    :raises InvalidRequestError: naming the field of the connection that is wrong.
    """
    from airflow_video_provider.gateway.client import GatewaySettings

    with _named(connection.conn_id):
        extra = _extra(connection.extra)
        extra.pop("allowed_hosts", None)
        return GatewaySettings(base_url=_base_url(connection), api_key=connection.password or None, **extra)


@contextmanager
def _named(conn_id: str) -> Iterator[None]:
    """Put the connection's id before what is wrong with it."""
    try:
        yield
    except InvalidRequestError as error:
        raise InvalidRequestError(f"connection {conn_id!r}: {error.message}") from None


def allowed_hosts_from_connection(connection: Connection) -> tuple[str, ...]:
    """Hosts and networks that a file may be fetched from though their addresses are not public.

    Those of the connection's extra, and the gateway itself: who made the connection trusts that host and
    port.
    """
    from airflow_video_provider.gateway.client import origin_of

    gateway = urlsplit(origin_of(settings_from_connection(connection).base_url))
    return (*_extra(connection.extra).get("allowed_hosts", ()), gateway.netloc)


def _base_url(connection: Connection) -> str:
    host = (connection.host or "").strip()
    if not host:
        raise InvalidRequestError(
            "host: is missing; give the gateway's base URL, https://az.gptplus5.com for example"
        )
    schema = (connection.schema or "").strip()
    # Airflow's http connections keep the scheme in "schema"; a connection URI puts its path there.
    scheme, prefix = (
        (schema.lower(), "") if schema.lower() in {"http", "https"} else ("https", schema.strip("/"))
    )
    if "://" not in host:
        host = f"{scheme}://{host}"
    head, slash, path = host.partition("://")[2].partition("/")
    if connection.port and not re.search(r":\d+$", head):
        head = f"{head}:{connection.port}"
    return f"{host.partition('://')[0]}://{head}{slash}{path.rstrip('/')}" + (f"/{prefix}" if prefix else "")


def _boolean_or_path(value: object) -> bool | str:
    if isinstance(value, str):
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            value.strip().lower(), value.strip()
        )
    if isinstance(value, bool):
        return value
    raise ValueError("must be true, false or the path of a CA file")


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number of seconds")
    return float(value)


def _headers(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):  # the form of Airflow 2 has text fields only
        value = json.loads(value)
    if not isinstance(value, Mapping) or not all(isinstance(v, str | int | float) for v in value.values()):
        raise ValueError('must be an object of texts, {"X-Team": "films"} for example')
    return tuple((str(name), str(text)) for name, text in value.items())


def _hosts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, list) or not all(isinstance(host, str) for host in value):
        raise ValueError(
            'must be a list of hosts or networks, ["10.0.0.0/8", "minio.internal:9000"] for example'
        )
    return tuple(host.strip() for host in value if host.strip())


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value.strip()


_READ_EXTRA = {
    "dialect": _text,
    "timeout": _seconds,
    "headers": _headers,
    "forwarded_host": _text,
    "verify": _boolean_or_path,
    "allowed_hosts": _hosts,
}


def _extra(text: str | None) -> dict[str, Any]:
    try:
        extra = json.loads(text) if text else {}
    except ValueError as error:
        raise InvalidRequestError(f"extra: is no JSON: {error}") from None
    if not isinstance(extra, dict):
        raise InvalidRequestError("extra: must be a JSON object")
    unknown = sorted(set(extra) - set(_READ_EXTRA))
    if unknown:
        raise InvalidRequestError(f"extra.{unknown[0]}: is unknown; allowed: {', '.join(_READ_EXTRA)}")
    settings = {}
    for name, value in extra.items():
        if value is None or value in ("", {}, []):  # a form stores what was left empty
            continue
        try:
            settings[name] = _READ_EXTRA[name](value)
        except ValueError as error:
            raise InvalidRequestError(f"extra.{name}: {error}") from None
    return settings


# -- one client for all triggers of a process --------------------------------------------------------------


@dataclass
class _Shared:
    gateway: AsyncGateway
    gate: RateGate = field(default_factory=RateGate)
    users: int = 0


# A client belongs to the event loop it was made on; the loop's end must not be hindered by this table.
_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[GatewaySettings, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_gateway(video_conn_id: str) -> AsyncIterator[tuple[AsyncGateway, RateGate]]:
    """The client and the rate gate that all users of a connection on this event loop share.

    A client costs 15 to 20 ms of CPU and 0.8 MB (its TLS context), so a triggerer with a thousand waiting
    tasks must not make a thousand. The last user closes it.

    :param video_conn_id: the connection; read anew each time, so a changed key is used by the next wait.
    :raises InvalidRequestError: the connection is not usable.
    """
    from airflow.providers.common.compat.connection import get_async_connection

    from airflow_video_provider.gateway.client import AsyncGateway

    settings = settings_from_connection(await get_async_connection(video_conn_id))
    of_loop = _shared.setdefault(asyncio.get_running_loop(), {})
    if settings not in of_loop:
        with _named(video_conn_id):
            of_loop[settings] = _Shared(AsyncGateway.from_settings(settings))
    shared = of_loop[settings]
    shared.users += 1
    try:
        yield shared.gateway, shared.gate
    finally:
        shared.users -= 1
        if not shared.users:
            del of_loop[settings]
            await shared.gateway.close()


# -- the hook ----------------------------------------------------------------------------------------------


class VideoHook(BaseHook):
    """Talk to a video-generation gateway.

    :param video_conn_id: connection of type ``video_gateway``: host = base URL (scheme defaults to https;
        port and path prefix are honoured), password = API key, extra = ``dialect``, ``timeout`` (seconds),
        ``headers``, ``forwarded_host``, ``verify``, ``allowed_hosts``.
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
            for name, value in settings.headers:
                # Airflow masks the password by itself, but knows nothing of secret headers.
                if re.search(r"auth|key|token|secret|cookie", name, re.I):
                    mask_secret(value)
            with _named(self.video_conn_id):  # the file of "verify" is read here
                self._gateway = Gateway.from_settings(settings)
        return self._gateway

    def allowed_hosts(self) -> tuple[str, ...]:
        """See :func:`allowed_hosts_from_connection`."""
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

    def submit(self, request: VideoRequest, send: Callable[[], VideoTask] | None = None) -> VideoTask:
        """Submit a generation, which is paid for.

        What was provably not accepted (a rate limit, a refused connection) is sent again up to three times.
        Anything else is sent once.

        :param send: sends one create call for the request; default: the client's ``submit``.
        :raises GatewayError: ``maybe_accepted`` tells whether it may have been paid for.
        """
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

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
        )(send or partial(self.get_conn().submit, request))

    def get_task(self, video_id: str) -> VideoTask:
        """Ask once how a task stands.

        :raises GatewayError: ``retryable`` tells whether to ask again.
        """
        return self.get_conn().get_task(video_id)

    async def asubmit(self, request: VideoRequest) -> VideoTask:
        """Send one create call from an event loop, once; see :meth:`submit`."""
        async with shared_gateway(self.video_conn_id) as (gateway, _):
            return await gateway.submit(request)

    async def aget_task(self, video_id: str) -> VideoTask:
        """Ask once from an event loop how a task stands; see :meth:`get_task`."""
        async with shared_gateway(self.video_conn_id) as (gateway, _):
            return await gateway.get_task(video_id)

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

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection without paying: ask for a task that cannot exist, and read the verdict."""
        try:
            gateway = self.get_conn()
            gateway.get_task(f"connection-test-{secrets.token_hex(8)}")
        except NotFoundError as error:
            if error.no_such_route:
                return False, (
                    f"Wrong path or dialect: the host answers, but has no such route: {error}. "
                    "Check the path in Host, and the dialect"
                )
        except AuthenticationError as error:
            return False, f"Bad API key: {error}"
        except TransportError as error:
            return False, f"Wrong host, or the gateway is down: {error}"
        except UnreadableReplyError as error:
            return False, f"Wrong host or path: {error}"
        except GatewayError as error:
            return False, str(error)
        return True, f"The gateway accepts the key (dialect {gateway.settings.dialect}). Nothing was paid"

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
