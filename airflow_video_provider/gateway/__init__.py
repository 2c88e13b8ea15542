"""What video-generation gateways say and how they are asked. Knows no Airflow and no disk.

The names below are loaded when they are first used: a Dag file imports the operators, and must not pay for
an HTTP client each time it is parsed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_video_provider.gateway.balance import Balance as Balance
    from airflow_video_provider.gateway.check import Check as Check
    from airflow_video_provider.gateway.check import Verdict as Verdict
    from airflow_video_provider.gateway.client import (
        AsyncGateway as AsyncGateway,
    )
    from airflow_video_provider.gateway.client import (
        Gateway as Gateway,
    )
    from airflow_video_provider.gateway.client import (
        GatewaySettings as GatewaySettings,
    )
    from airflow_video_provider.gateway.dialect import Dialect as Dialect
    from airflow_video_provider.gateway.errors import (
        AuthenticationError as AuthenticationError,
    )
    from airflow_video_provider.gateway.errors import (
        BotCheckError as BotCheckError,
    )
    from airflow_video_provider.gateway.errors import (
        CertificateError as CertificateError,
    )
    from airflow_video_provider.gateway.errors import (
        ErrorKind as ErrorKind,
    )
    from airflow_video_provider.gateway.errors import (
        GatewayError as GatewayError,
    )
    from airflow_video_provider.gateway.errors import (
        InvalidRequestError as InvalidRequestError,
    )
    from airflow_video_provider.gateway.errors import (
        Missing as Missing,
    )
    from airflow_video_provider.gateway.errors import (
        ModerationError as ModerationError,
    )
    from airflow_video_provider.gateway.errors import (
        NotFoundError as NotFoundError,
    )
    from airflow_video_provider.gateway.errors import (
        QuotaError as QuotaError,
    )
    from airflow_video_provider.gateway.errors import (
        RateLimitError as RateLimitError,
    )
    from airflow_video_provider.gateway.errors import (
        ServerError as ServerError,
    )
    from airflow_video_provider.gateway.errors import (
        TransportError as TransportError,
    )
    from airflow_video_provider.gateway.errors import (
        UnreadableReplyError as UnreadableReplyError,
    )
    from airflow_video_provider.gateway.errors import (
        error_from_reply as error_from_reply,
    )
    from airflow_video_provider.gateway.refusals import Refusal as Refusal
    from airflow_video_provider.gateway.request import (
        ReferenceFile as ReferenceFile,
    )
    from airflow_video_provider.gateway.request import (
        VideoRequest as VideoRequest,
    )
    from airflow_video_provider.gateway.state import TaskState as TaskState
    from airflow_video_provider.gateway.task import VideoTask as VideoTask

_NAMES_OF = {
    "balance": "Balance",
    "check": "Check Verdict",
    "client": "AsyncGateway Gateway GatewaySettings",
    "dialect": "Dialect",
    "errors": (
        "AuthenticationError BotCheckError CertificateError ErrorKind GatewayError InvalidRequestError "
        "Missing ModerationError NotFoundError "
        "QuotaError RateLimitError ServerError TransportError UnreadableReplyError error_from_reply"
    ),
    "refusals": "Refusal",
    "request": "ReferenceFile VideoRequest",
    "state": "TaskState",
    "task": "VideoTask",
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
