"""Whether a gateway can be used as a connection says, found out without paying.

A task that cannot exist is asked for. A gateway that names the task as missing has accepted the key and the
route. Where the reply fits a missing route as well, a route that cannot exist is asked for, too: one that
answers both alike has not been told from a server with another path.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from airflow_video_provider.gateway.balance import Ask
from airflow_video_provider.gateway.errors import (
    AuthenticationError,
    GatewayError,
    Missing,
    NotFoundError,
    TransportError,
    UnreadableReplyError,
)
from airflow_video_provider.gateway.task import VideoTask
from airflow_video_provider.gateway.wire import WireRequest

__all__ = ["Check", "Verdict", "check_plan"]


#: LiteLLM's words for an error of the server behind it, be it a key (its own) or a connection: it asks OpenAI
#: for an id that is not in its own form. It got that far, so route and key are right.
_OF_UPSTREAM = re.compile(r"litellm\.\w+Error\b")


class Verdict(StrEnum):
    """What a check found."""

    ACCEPTED = "accepted"
    BAD_KEY = "bad_key"
    WRONG_HOST = "wrong_host"
    """Nobody answers there, or nobody who speaks JSON."""
    WRONG_ROUTE = "wrong_route"
    """A server that answers, and has no such route: path prefix or dialect."""
    REFUSED = "refused"
    """The gateway answers, and would not take a request now (no balance, too many requests, a failure)."""
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True)
class Check:
    """The verdict, and a sentence for people."""

    verdict: Verdict
    message: str

    @property
    def accepted(self) -> bool:
        """Whether the gateway knows the route and accepts the key."""
        return self.verdict is Verdict.ACCEPTED


def check_plan(query: Callable[[str], Ask], dialect: str, *, has_key: bool) -> Generator[Ask, Any, Check]:
    """Ask for what cannot exist, and judge the replies.

    Sent the readings of what it asked, or thrown their errors, it returns the :class:`Check`.

    :param query: makes the question for a task.
    :param dialect: its name, for the message.
    :param has_key: whether the connection has a key.
    """
    nonce = secrets.token_hex(8)
    ask = query(f"connection-test-{nonce}")
    reply = yield from _answer(ask)
    if isinstance(reply, NotFoundError) and reply.missing is Missing.TASK:
        return _accepted(dialect, has_key)
    if isinstance(reply, GatewayError) and _OF_UPSTREAM.match(reply.message):
        return _accepted(dialect, has_key)
    if (judged := _judged(reply)) is not None:
        return judged
    # The task was not named as missing, so a server's answer to nonsense is what this one is held against.
    nowhere = ask.wire.path.partition("?")[0].replace("/", f"/nowhere-{nonce}/", 1)
    other = yield from _answer(Ask(WireRequest("GET", nowhere), ask.read))
    if _likeness(reply, nonce) == _likeness(other, nonce):
        return Check(
            Verdict.CANNOT_TELL,
            "Cannot tell whether path and dialect are right: the host answers a task that cannot exist as it "
            f"answers a path that cannot exist: {_said(reply)}. Submit something small to find out",
        )
    return _accepted(dialect, has_key)


def _accepted(dialect: str, has_key: bool) -> Check:
    key = "accepts the key" if has_key else "wants no key"
    return Check(Verdict.ACCEPTED, f"The gateway {key} (dialect {dialect}). Nothing was paid")


def _answer(ask: Ask) -> Generator[Ask, Any, VideoTask | GatewayError]:
    try:
        task: VideoTask = yield ask
    except GatewayError as error:
        return error
    return task


def _judged(reply: VideoTask | GatewayError) -> Check | None:
    """What a reply says by itself; None where it takes another to judge it."""
    match reply:
        case AuthenticationError():
            return Check(Verdict.BAD_KEY, f"Bad API key: {reply}")
        case TransportError():
            return Check(Verdict.WRONG_HOST, f"Wrong host, or the gateway is down: {reply}")
        case UnreadableReplyError():
            return Check(Verdict.WRONG_HOST, f"Wrong host or path: {reply}")
        case NotFoundError() if reply.missing is Missing.ROUTE:
            return Check(
                Verdict.WRONG_ROUTE,
                f"Wrong path or dialect: the host answers, but has no such route: {reply}. "
                "Check the path in Host, and the dialect",
            )
        # A server that finds fault with the id of a task has the route.
        case GatewayError() if not isinstance(reply, NotFoundError) and reply.status_code not in {400, 422}:
            return Check(Verdict.REFUSED, str(reply))
        case _:
            return None


def _said(reply: VideoTask | GatewayError) -> str:
    return str(reply) if isinstance(reply, GatewayError) else f"a task that is {reply.line}"


def _likeness(reply: VideoTask | GatewayError, nonce: str) -> Mapping[str, Any]:
    if isinstance(reply, GatewayError):
        return {"status": reply.status_code, "code": reply.code, "message": reply.message.replace(nonce, "")}
    return {"raw": str(reply.raw).replace(nonce, "")}
