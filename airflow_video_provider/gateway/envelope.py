"""What an error's body says, whichever envelope it came in: a message, a code, a status that it claims.

Envelopes seen: ``{"error": {"message", "type", "code"}}``, ``{"code", "message", "data": null}``,
``{"error": "text"}``, ``{"detail": "text"}``, a list of problems by field (FastAPI, Laravel, NestJS),
``{"base_resp": {"status_code", "status_msg"}}`` (MiniMax), ``{"output": {"code", "message"}}`` (DashScope),
HTML, text, nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from airflow_video_provider.http_common import without_secrets

__all__ = [
    "Envelope",
    "claimed_status",
    "fit_to_store",
    "problems_in",
    "read_content",
    "read_envelope",
    "says_nothing",
    "unwrapped",
]

# Kling's envelope says SUCCEED of a failed task, and so does the reason that new-api copies from it.
_SAYS_NOTHING = frozenset({
    "", "succeed", "succeeded", "success", "successful", "ok", "okay", "completed", "done", "none", "null",
    "nil", "undefined", "n/a", "nan", "{}", "[]", "-", "failed", "failure", "fail", "error", "成功",
    "请求成功", "操作成功", "查询成功",
})  # fmt: skip
# Words in a code's place that say nothing went wrong; 1000 is the success of one gateway's envelope.
_NO_CODE = frozenset({"", "0", "200", "201", "202", "1000", "success", "ok"})
_LONGEST_WRAPPED = 20_000
_LONGEST_STORED = 2**16
_REASON_PHRASES = frozenset(status.phrase.lower() for status in HTTPStatus)

#: MiniMax answers HTTP 200 and a status of its own (platform.minimax.io, "Error Codes"): the HTTP status that
#: each stands for. One that is not here is a server's failure.
_BASE_RESP = {
    1002: 429, 1004: 401, 1008: 402, 1026: 451, 1027: 451, 1039: 429, 2013: 400, 2049: 401,
}  # fmt: skip


def fit_to_store(text: str) -> str:
    """A gateway's words as they may be logged and stored: no credential, of which the query of a URL may be
    one (Go's HTTP errors quote the whole URL), and no half of a surrogate pair, which no log can write."""
    return without_secrets(text[:_LONGEST_STORED].encode("utf-8", "replace").decode()).strip()


def says_nothing(text: str) -> bool:
    """Whether a text in a reason's place is none: "SUCCEED", "ok", "null"."""
    return text.strip().strip(".!").lower() in _SAYS_NOTHING


@dataclass(frozen=True)
class Envelope:
    """What a body says of an error.

    :param message: the gateway's words; "" where it gave none.
    :param code: its code as text, or the type that stands in for one; None where it gave none.
    :param types: the types of the problems that a list names.
    """

    message: str = ""
    code: str | None = None
    types: tuple[str, ...] = ()


def read_envelope(body: object) -> Envelope:
    """Read message and code from any of the envelopes."""
    if isinstance(body, str):
        return Envelope(_text(body))
    if not isinstance(body, dict):
        return Envelope()
    error, base, output = (_object(body.get(name)) for name in ("error", "base_resp", "output"))
    texts = [
        text
        for value in (
            error.get("message"), body.get("error"), body.get("message"), body.get("msg"), body.get("detail"),
            body.get("error_message"), body.get("fail_reason"), error.get("msg"), error.get("detail"),
            body.get("failure_reason"), base.get("status_msg"), output.get("message"),
            body.get("error_description"), body.get("title"),
        )
        if (text := _text(value))
    ]  # fmt: skip
    problems = [
        problem
        for value in (body.get("detail"), body.get("errors"), error.get("details"), error.get("errors"),
                      body.get("error"), body.get("message"))
        for problem in problems_in(value)
    ]  # fmt: skip
    codes = (
        error.get("code"), body.get("code"), base.get("status_code"), output.get("code"), error.get("type"),
        body.get("type"),
    )  # fmt: skip
    # NestJS and Spring: "Not Found" in `error`, the words in `message`.
    said = next(
        (text for text in texts if not says_nothing(text) and text.lower() not in _REASON_PHRASES),
        next((text for text in texts if not says_nothing(text)), next(iter(texts), "")),
    )
    listed = "; ".join(dict.fromkeys(text for text, _ in problems))
    types = tuple(kind for _, kind in problems if kind)
    return Envelope(
        # Laravel's message is its first problem "(and 2 more errors)"; the list says them all.
        listed if listed and (not said or said.lower() in _REASON_PHRASES or body.get("errors")) else said,
        next((code for code in map(_code, codes) if code), None) or next(iter(types), None),
        types,
    )


def claimed_status(body: object) -> int | None:
    """The HTTP status of an error that a body claims, whatever the status of the reply; None without one."""
    if not isinstance(body, dict):
        return None
    error, base = _object(body.get("error")), _object(body.get("base_resp"))
    for holder in (error, body):
        for name in ("code", "status", "status_code", "statusCode"):
            value = holder.get(name)
            if isinstance(value, int | str) and re.fullmatch(r"[45]\d\d", text := str(value)):
                return int(text)
    status = base.get("status_code")
    if isinstance(status, bool) or not isinstance(status, int) or not status:
        return None
    return _BASE_RESP.get(status, 500)


def read_content(content: bytes) -> tuple[object, str]:
    """A reply's body as JSON where it is, and as one line of text for a message where it is not."""
    try:
        return json.loads(content), ""
    except (ValueError, RecursionError):  # RecursionError: a reply of a hundred thousand opening brackets
        text = content[:4096].decode("utf-8", "replace")
        title = re.search(r"<title>(.*?)</title>", text, re.I | re.S)
        plain = title.group(1) if title else re.sub(r"<[^>]+>", " ", text)
        return None, fit_to_store(" ".join(plain.split()))[:120]


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def unwrapped(text: str) -> str:
    """What a text says that is a provider's whole error as JSON: resellers put that into a message.

    Any other text is returned as it is.
    """
    if not text.startswith("{") or len(text) > _LONGEST_WRAPPED:
        return text
    try:
        inner = read_envelope(json.loads(text))
    except (ValueError, RecursionError):
        return text
    if not inner.message:
        return text
    return (
        f"{inner.message} ({inner.code})" if inner.code and inner.code not in inner.message else inner.message
    )


def _text(value: object) -> str:
    return unwrapped(fit_to_store(value)) if isinstance(value, str) else ""


def _code(value: object) -> str | None:
    """A code as text; "", 0 and success are none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = fit_to_store(str(value))
    return None if text.lower() in _NO_CODE else text


def problems_in(value: object) -> Iterable[tuple[str, str]]:
    """Each problem that a list names, as "field: what is wrong" and its type.

    FastAPI and fal: ``[{"loc": ["body", "prompt"], "msg", "type"}]``; NestJS: ``["prompt must be text"]``;
    Laravel: ``{"prompt": ["The prompt field is required."]}``; others: ``[{"field", "message"}]``.
    """
    if isinstance(value, dict):
        if not all(isinstance(each, list) for each in value.values()):
            return
        value = [{"field": name, "message": text} for name, texts in value.items() for text in texts]
    for each in value[:20] if isinstance(value, list) else ():
        if isinstance(each, str):
            each = {"message": each}
        if not isinstance(each, dict):
            continue
        text = next(
            (said for name in ("msg", "message", "detail", "error") if (said := _text(each.get(name)))), ""
        )
        where = each.get("loc") or each.get("field") or each.get("param")
        steps = where if isinstance(where, list) else [where]
        # "body" only says where every field of a create is.
        field = ".".join(
            fit_to_store(str(step)) for step in steps if step is not None and step not in ("body", "")
        )
        kind = _text(each.get("type")) or _text(each.get("code"))
        if text or kind:
            yield f"{field}: {text or kind}" if field else text or kind, kind
