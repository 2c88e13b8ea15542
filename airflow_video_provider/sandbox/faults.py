"""Failures on request: one table, read by the routes, the status page, the docs and the tests.

A fault is asked for by a marker in the prompt (``a cat [flap=2]``) or by a suffix of the model name
(``veo3.1-fast@flap=2``); several may be given at once. A fault at the create call happens **before**
anything is paid, unless its name ends in ``-paid``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["create", "paid", "query", "outcome", "reply", "bytes"]

ALWAYS = math.inf
"""Argument of a fault that does not end by itself; written ``always``."""

STAGES: Mapping[Stage, str] = {
    "create": "At the create call; nothing is paid",
    "paid": "At the create call, after it was paid",
    "query": "When the task is asked for",
    "outcome": "How the generation goes",
    "reply": "How the finished task is told",
    "bytes": "When the video is fetched",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said instead of the true reply.

    ``html`` wins over ``code`` and ``message``; with none of the three the body is empty. ``drop``
    closes the connection without a word; ``hang`` keeps the caller waiting.
    """

    status: int = 200
    code: str = ""
    message: str = ""
    html: str = ""
    retry_after: Literal["", "seconds", "date"] = ""
    kind: Literal["reply", "drop", "hang", "wrapped", "empty-object"] = "reply"


RETRY_AFTER = 2
"""Seconds that every ``Retry-After`` of the sandbox asks for: long enough to be seen in a log, short
enough for a test."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    :param default: the argument when none is written. For most faults it says how many times the
        fault happens.
    :param unit: what the argument counts; empty when the fault takes none.
    :param answers: given in turn.
    """

    name: str
    stage: Stage
    text: str
    default: float = ALWAYS
    unit: str = "times"
    answers: tuple[Answer, ...] = ()

    @property
    def argument(self) -> str:
        """The argument as the table shows it: ``3 times``, ``always``, or nothing."""
        if not self.unit:
            return ""
        return "always" if self.default == ALWAYS else f"{self.default:g} {self.unit}"


def _html(status: int, title: str) -> str:
    return (
        f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )


BAD_GATEWAY = Answer(502, html=_html(502, "Bad Gateway"))
UNAVAILABLE = Answer(503, html=_html(503, "Service Temporarily Unavailable"))
GATEWAY_TIMEOUT = Answer(504, html=_html(504, "Gateway Time-out"))
ORIGIN_TIMEOUT = Answer(524, html=_html(524, "A timeout occurred"))
SERVER_ERROR = Answer(500, code="do_request_failed", message="upstream error: do request failed")
HTML_PAGE = Answer(200, html=_html(200, "Just a moment..."))
BLOCKED = "Your request was refused by content moderation. Please change it or try again later."
NO_QUOTA = "用户额度不足, 剩余额度: $0.000000"

FAULTS: tuple[Fault, ...] = (
    Fault(
        "moderation",
        "create",
        "451 `sentinel_block`, in words that suggest to try again (in vain)",
        answers=(Answer(451, code="sentinel_block", message=BLOCKED),),
    ),
    Fault(
        "moderation-400",
        "create",
        "the same as a 400",
        answers=(Answer(400, code="sentinel_block", message=BLOCKED),),
    ),
    Fault(
        "quota",
        "create",
        "403 `insufficient_user_quota`: no balance",
        answers=(Answer(403, code="insufficient_user_quota", message=NO_QUOTA),),
    ),
    Fault(
        "quota-429",
        "create",
        "no balance, told as a 429: looks like a rate limit and is none",
        answers=(Answer(429, code="insufficient_user_quota", message=NO_QUOTA),),
    ),
    Fault("rate-limit", "create", "429, empty body, no Retry-After", answers=(Answer(429),)),
    Fault(
        "rate-limit-seconds",
        "create",
        "429, Retry-After in seconds",
        answers=(
            Answer(429, code="rate_limit_exceeded", message="Too many requests", retry_after="seconds"),
        ),
    ),
    Fault(
        "rate-limit-date",
        "create",
        "429, Retry-After as an HTTP date",
        answers=(Answer(429, code="rate_limit_exceeded", message="Too many requests", retry_after="date"),),
    ),
    Fault("create-500", "create", "500", answers=(SERVER_ERROR,)),
    Fault("create-502", "create", "502, HTML", answers=(BAD_GATEWAY,)),
    Fault(
        "create-503",
        "create",
        "503 `get_channel_failed`: provably not accepted",
        answers=(Answer(503, code="get_channel_failed", message="No available channel (retry exhausted)"),),
    ),
    Fault(
        "create-wrapped",
        "create",
        'HTTP 200 around a refusal: `{"code": 400, "msg": …}`',
        answers=(Answer(200, message="prompt is not supported by this model", kind="wrapped"),),
    ),
    Fault(
        "create-drop",
        "create",
        "the connection is dropped without a reply",
        answers=(Answer(kind="drop"),),
    ),
    Fault(
        "create-drop-paid",
        "paid",
        "paid, then the connection is dropped without a reply",
        answers=(Answer(kind="drop"),),
    ),
    Fault(
        "create-hang-paid",
        "paid",
        "paid, then no reply for so long; the true reply after that",
        default=600,
        unit="seconds",
        answers=(Answer(kind="hang"),),
    ),
    Fault("create-500-paid", "paid", "paid, then 500", answers=(SERVER_ERROR,)),
    Fault("create-524-paid", "paid", "paid, then 524, HTML", answers=(ORIGIN_TIMEOUT,)),
    Fault("create-html-paid", "paid", "paid, then HTTP 200 with an HTML page", answers=(HTML_PAGE,)),
    Fault(
        "create-no-id-paid",
        "paid",
        "paid, then HTTP 200 with `{}`: no id",
        answers=(Answer(kind="empty-object"),),
    ),
    Fault(
        "flap",
        "query",
        "503, 502, 500, 504 in turn, then well again",
        default=3,
        answers=(UNAVAILABLE, BAD_GATEWAY, SERVER_ERROR, GATEWAY_TIMEOUT),
    ),
    Fault("query-html", "query", "HTTP 200 with an HTML page", default=3, answers=(HTML_PAGE,)),
    Fault("query-empty", "query", "HTTP 200 with an empty body", default=3, answers=(Answer(200),)),
    Fault(
        "query-wrapped",
        "query",
        "500 `fail_to_fetch_task`",
        default=3,
        answers=(Answer(500, code="fail_to_fetch_task", message="Invalid JSON: unexpected end of data"),),
    ),
    Fault("query-429", "query", "429, empty body, no Retry-After", default=3, answers=(Answer(429),)),
    Fault(
        "query-429-seconds",
        "query",
        "429, Retry-After in seconds",
        default=3,
        answers=(
            Answer(429, code="rate_limit_exceeded", message="Too many requests", retry_after="seconds"),
        ),
    ),
    Fault(
        "query-429-date",
        "query",
        "429, Retry-After as an HTTP date",
        default=3,
        answers=(Answer(429, code="rate_limit_exceeded", message="Too many requests", retry_after="date"),),
    ),
    Fault(
        "query-404",
        "query",
        "404: the task is not known yet",
        default=2,
        answers=(Answer(404, code="task_not_exist", message="task_not_exist"),),
    ),
    Fault(
        "query-401",
        "query",
        "401: the key was revoked while the task ran",
        answers=(Answer(401, message="无效的令牌"),),
    ),
    Fault(
        "query-drop",
        "query",
        "the connection is dropped without a reply",
        default=3,
        answers=(Answer(kind="drop"),),
    ),
    Fault("fail", "outcome", "fails after half the time, with a reason", unit=""),
    Fault("fail-moderation", "outcome", "runs, then is refused by moderation", unit=""),
    Fault("fail-output", "outcome", "runs, then the video is withheld by moderation", unit=""),
    Fault("cancelled", "outcome", "is cancelled by somebody after half the time", unit=""),
    Fault("expired", "outcome", "ends as expired", unit=""),
    Fault("never", "outcome", "never finishes", unit=""),
    Fault("slow", "outcome", "takes longer by this factor", default=5, unit="x"),
    Fault("time", "outcome", "takes this long, whatever `--seconds` says", default=5, unit="seconds"),
    Fault("unknown-word", "reply", "while running, a status word that is in no document", unit=""),
    Fault("no-status", "reply", "while running, no status at all", unit=""),
    Fault("url-late", "reply", "succeeded without a URL for the first asks", default=3),
    Fault("url-lost", "reply", "succeeded, never a URL; the content route works", unit=""),
    Fault("url-gone", "reply", "succeeded, never a URL, and the content route has nothing", unit=""),
    Fault("url-expires", "reply", "a signed URL that lives this long", default=5, unit="seconds"),
    Fault(
        "url-in-fail-reason", "reply", "newapi: the URL lies in `fail_reason`, as in old versions", unit=""
    ),
    Fault("data-url", "reply", "the URL is `data:video/mp4;base64,…`", unit=""),
    Fault("content-url", "reply", "the URL is the content route, which needs the key", unit=""),
    Fault("videos", "reply", "one task that makes so many videos, eight at most", default=3, unit="videos"),
    Fault("cdn-403", "bytes", "the CDN answers 403", answers=(Answer(403, html=_html(403, "Forbidden")),)),
    Fault("cdn-404", "bytes", "the CDN answers 404", answers=(Answer(404, html=_html(404, "Not Found")),)),
    Fault(
        "cdn-500",
        "bytes",
        "the CDN answers 500, 502, 503 in turn",
        answers=(Answer(500, html=_html(500, "Internal Server Error")), BAD_GATEWAY, UNAVAILABLE),
    ),
    Fault(
        "cdn-drop", "bytes", "the CDN drops the connection without a reply", answers=(Answer(kind="drop"),)
    ),
    Fault("cdn-redirect", "bytes", "the CDN redirects to itself under another name"),
    Fault("content-json", "bytes", "the content route answers JSON that holds the URL", unit=""),
    Fault("content-redirect", "bytes", "the content route redirects to the CDN", unit=""),
    Fault("truncated", "bytes", "the full Content-Length, half the body, then the connection closes"),
    Fault("short", "bytes", "half the file, with a Content-Length that fits the half", unit=""),
    Fault("wrong-type", "bytes", "the video as `text/plain`", unit=""),
    Fault("not-a-video", "bytes", "HTTP 200 with an HTML page", answers=(HTML_PAGE,)),
    Fault("no-length", "bytes", "no Content-Length", unit=""),
    Fault("no-range", "bytes", "Range is ignored", unit=""),
    Fault("slow-bytes", "bytes", "the body drips over this long", default=10, unit="seconds"),
    Fault("big", "bytes", "the file is padded by this much", default=64, unit="MiB"),
)

BY_NAME: Mapping[str, Fault] = {fault.name: fault for fault in FAULTS}


Faults = Mapping[str, float]
"""The faults that one create call asked for: name -> argument."""

_MARKER = re.compile(r"\[([a-z0-9-]+)(?:=([a-z0-9.]+))?\]")
_SUFFIX = re.compile(r"@([a-z0-9-]+)(?:=([a-z0-9.]+))?")


def asked_for(model: str, prompt: str) -> Faults:
    """The faults named in a model name and a prompt. What the table does not know is no fault:
    people write brackets in prompts."""
    found = {}
    for name, argument in (*_SUFFIX.findall(model), *_MARKER.findall(prompt)):
        if fault := BY_NAME.get(name):
            found[name] = _argument(fault, argument)
    return found


def base_model(model: str) -> str:
    """The model name without its faults."""
    return model.partition("@")[0]


def at(faults: Faults, stage: Stage) -> list[tuple[Fault, float]]:
    """The faults of one stage with their arguments, in the table's order."""
    return [(fault, faults[fault.name]) for fault in FAULTS if fault.stage == stage and fault.name in faults]


def _argument(fault: Fault, text: str) -> float:
    if text == "always":
        return ALWAYS
    try:
        value = float(text)
    except ValueError:
        return fault.default
    return value if value >= 0 else fault.default


@dataclass(slots=True)
class Mode:
    """A fault of the whole gateway, set by ``POST /sandbox/faults`` for as long as a test needs it.

    :param rules: stage (``create``, ``query``, ``content``, ``cdn`` or ``any``) -> an HTTP status,
        or ``drop``, ``hang``, ``html``.
    :param times: how many requests it hits before it ends by itself; ``None``: until it is cleared.
    :param retry_after: sent as ``Retry-After``, in seconds or as the text given. Empty: not sent.
    :param delay: seconds that every reply is held back, with or without a rule.
    """

    rules: dict[str, int | str] = field(default_factory=dict)
    times: int | None = None
    retry_after: str = ""
    delay: float = 0.0

    def strike(self, stage: str) -> int | str | None:
        """The action for one request at ``stage``, counted; ``None`` when it is left alone."""
        action = self.rules.get(stage, self.rules.get("any"))
        if action is None or self.times == 0:
            return None
        if self.times is not None:
            self.times -= 1
        return action


MODE_STAGES = ("create", "query", "content", "cdn", "any")
MODE_ACTIONS = ("drop", "hang", "html")


def mode_from(body: object) -> Mode:
    """Reads the body of ``POST /sandbox/faults``.

    :raises ValueError: naming the field that is wrong; a test that mistypes a mode must not pass.
    """
    if not isinstance(body, dict):
        raise ValueError("a JSON object is expected")
    unknown = set(body) - {*MODE_STAGES, "down", "times", "retry_after", "delay"}
    if unknown:
        raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
    rules: dict[str, int | str] = {"any": 502} if body.get("down") else {}
    for stage in MODE_STAGES:
        if (action := body.get(stage)) is None:
            continue
        is_status = isinstance(action, int) and not isinstance(action, bool) and 200 <= action <= 599
        if not is_status and action not in MODE_ACTIONS:
            raise ValueError(f"{stage}: an HTTP status or one of {', '.join(MODE_ACTIONS)}, not {action!r}")
        rules[stage] = action
    times = body.get("times")
    if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
        raise ValueError(f"times: a whole number from 1, not {times!r}")
    delay = body.get("delay", 0)
    if isinstance(delay, bool) or not isinstance(delay, int | float) or delay < 0:
        raise ValueError(f"delay: seconds from 0, not {delay!r}")
    return Mode(rules, times, str(body.get("retry_after", "")), float(delay))
