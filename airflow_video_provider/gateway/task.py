"""The one reading of any reply that speaks of a task.

*Where* a fact may lie is a table (:mod:`~airflow_video_provider.gateway.places`); what the facts mean
together, whether the task is done, and how it ended, is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from airflow_video_provider.gateway import places
from airflow_video_provider.gateway.envelope import fit_to_store
from airflow_video_provider.gateway.error_tree import NotFoundError, UnreadableReplyError
from airflow_video_provider.gateway.places import FACTS, every, first, parse_place
from airflow_video_provider.gateway.refusals import Refusal, refusal_of
from airflow_video_provider.gateway.state import TaskState
from airflow_video_provider.gateway.usage import read_usage
from airflow_video_provider.gateway.values import read_http_url, read_identifier, read_string

if TYPE_CHECKING:
    from airflow_video_provider.gateway.dialect import Dialect

__all__ = ["Refusal", "TaskState", "VideoTask", "read_created_id", "says_something_of_a_task"]


# Every word that is not here, and no word at all, is "running": a word that a gateway invents tomorrow must
# not end a task that is paid for. The deadline ends the waiting.
_STATE_OF_WORD: dict[str, TaskState] = {
    word: state
    for state, words in {
        TaskState.QUEUED: (
            "queued pending submitted not_start initializing created queueing preparing waiting in_queue"
        ),
        TaskState.SUCCEEDED: "completed complete success successful succeeded succeed done finished ready",
        TaskState.FAILED: (
            "failed failure fail error video_generation_failed video_upsampling_failed "
            "nsfw rejected not_found timeout timed_out aborted content_moderated request_moderated moderated"
        ),
        TaskState.CANCELLED: "cancelled canceled deleted",
        TaskState.EXPIRED: "expired",
    }.items()
    for word in words.split()
}
_SUCCEEDED_ONCE_THERE_IS_A_URL = "video_upsampling_completed"
_BAD_ENDS = frozenset({TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED})


def says_something_of_a_task(body: object, *, beside_an_id: bool = False) -> bool:
    """Whether a reply body holds a status, a video URL, a progress, or at least an id.

    :param beside_an_id: an id is not enough.
    """
    return (
        first(body, FACTS["raw_status"]) is not None
        or places.video_url(body) is not None
        or first(body, FACTS["progress"]) is not None
        or _operation_is_done(body) is not None
        or (not beside_an_id and first(body, places.IDS) is not None)
    )


def read_created_id(body: object, dialect: Dialect | None = None) -> str | None:
    """The id in the reply to a create, or None where it holds none.

    :param dialect: whose ``id_places`` come first.
    """
    if isinstance(body, str):
        return read_string(body)
    for place in dialect.id_places if dialect else ():
        for value in every(body, parse_place(place)):
            if (found := read_identifier(value)) is not None:
                return found
    found_elsewhere: str | None = first(body, places.IDS)
    return found_elsewhere


def _operation_is_done(body: object) -> bool | None:
    """Whether a long-running operation is done; None for what is no operation."""
    done = first(body, places.DONE)
    if done is None and first(body, places.OPERATION) is None:
        return None
    return bool(done)


def _state(body: object, facts: Mapping[str, Any], dialect: Dialect | None) -> TaskState:
    """Decide by the status word, and where there is none by an operation's flag.

    Never by an error key alone: a completed task may carry the error of an earlier try (seed 000).
    """
    said = (facts["raw_status"] or "").lower()
    word = re.sub(r"[\s-]+", "_", said).removeprefix("task_status_")  # Novita: TASK_STATUS_SUCCEED
    own = dialect.status_words.get(said) if dialect else None
    state = own or _STATE_OF_WORD.get(word, TaskState.RUNNING)
    rule = dialect.outcome if dialect else "status"
    if rule == "done":
        word = ""
        state = TaskState.RUNNING
    if rule == "error" and state is TaskState.SUCCEEDED and first(body, places.ERROR) is not None:
        state = TaskState.FAILED
    if word == _SUCCEEDED_ONCE_THERE_IS_A_URL and facts["video_url"]:
        state = TaskState.SUCCEEDED
    if not word and _operation_is_done(body):
        failed = first(body, places.ERROR if rule == "done" else places.OPERATION_ERROR) is not None
        state = TaskState.FAILED if failed else TaskState.SUCCEEDED
    return TaskState.FAILED if state is TaskState.SUCCEEDED and _withheld(body, facts) else state


def _withheld(body: object, facts: Mapping[str, Any]) -> str | None:
    """What says that a finished video was withheld by moderation, None where nothing does.

    Both come under a word that means success: Veo's filters leave a task that is done and holds no video
    (LiteLLM calls it completed), and xAI answers ``done`` with ``respect_moderation`` false.
    """
    if first(body, places.RESPECTS_MODERATION) is False:
        return "respect_moderation is false"
    if facts["video_url"] is None and (filtered := first(body, places.FILTERED)) is not None:
        return f"raiMediaFilteredCount is {filtered}" if isinstance(filtered, int) else str(filtered)
    return None


def _refusal(body: object, facts: Mapping[str, Any]) -> Refusal | None:
    said = refusal_of(
        facts["failure"], facts["failure_code"], facts["raw_status"], first(body, places.ERROR_TYPES)
    )
    if first(body, places.REJECTED_OUTPUT):
        return Refusal.OUTPUT
    return said or (Refusal.OUTPUT if _withheld(body, facts) else None)


def _own_urls(body: object, dialect: Dialect | None) -> list[str]:
    """The URLs at the first of a dialect's own places that holds one."""
    for place in dialect.url_places if dialect else ():
        if urls := [found for value in every(body, parse_place(place)) if (found := read_http_url(value))]:
            return urls
    return []


def _several_urls(body: object, url: str | None, own: list[str]) -> tuple[str, ...]:
    """All videos of a task: the list that holds its video URL, with that one first."""
    if url is None or own:
        return tuple(dict.fromkeys(own))
    for holder, place in places.places_in(body, places.SEVERAL_URLS):
        urls = [found for value in places.every(holder, place) if (found := read_http_url(value))]
        if url in urls:
            return tuple(dict.fromkeys((url, *urls)))
    return (url,)


class VideoTask(BaseModel):
    """A generation as a gateway tells of it.

    Made by :meth:`from_reply`. Frozen; times are aware and in UTC.
    """

    model_config = ConfigDict(frozen=True)

    video_id: str
    """The id that was submitted or asked for; the reply's own may differ (seed 001's ``detail.id``)."""
    state: TaskState
    raw_status: str | None = None
    """The gateway's own word, None where it gave none."""
    video_url: str | None = None
    """http(s) URL, byte for byte; the upsampled file where there is one."""
    video_urls: tuple[str, ...] = ()
    """The URLs of all videos of the task, :attr:`video_url` first; one where a task makes one."""
    progress: int | None = None
    """Percent, 0 to 100; None where the gateway tells none (veo)."""
    failure: str | None = None
    """The gateway's reason, only on a task that did not succeed."""
    failure_code: str | None = None
    refusal: Refusal | None = None
    """What moderation refused, on a task that did not succeed: ``input`` is final, after ``output`` the same
    request may pass."""
    model: str | None = None
    enhanced_prompt: str | None = None
    thumbnail_url: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    """When it ended, well or badly; None while it has not."""
    expires_at: datetime | None = None
    usage: dict[str, int | float] | None = None
    """What it cost, on a task that ended: numbers as they are, named as the gateway names them."""
    raw: SkipValidation[dict[str, Any]] = Field(default_factory=dict, repr=False)
    """The whole reply."""

    @classmethod
    def from_reply(cls, body: object, *, video_id: str, dialect: Dialect | None = None) -> VideoTask:
        """Read a reply of any dialect.

        The state is decided by the status word, never by an error key: a completed task may carry the
        error of an earlier try (seed 000), a healthy one an empty error object. An operation of Google's,
        which has no word, is decided by ``done``; a video that moderation withheld is a failure whatever
        the word.

        :param body: the decoded JSON body of a create or query reply.
        :param video_id: the id that was submitted or asked for.
        :param dialect: whose own words, places and outcome rule come before what is known of all.
        :raises UnreadableReplyError: the body is no task at all. Odd values in known fields never raise.
        :raises NotFoundError: the body says that there is no such task (DashScope's ``UNKNOWN``).
        """
        if isinstance(body, str) and body.strip():
            return cls(video_id=video_id, state=TaskState.RUNNING, raw={"data": body})
        own = _own_urls(body, dialect)
        if not isinstance(body, dict) or not (own or says_something_of_a_task(body)):
            raise UnreadableReplyError(
                f"the reply about {video_id} holds neither a status nor a URL nor an id"
            )
        facts = {fact: first(body, rows) for fact, rows in FACTS.items()}
        facts["video_url"] = own[0] if own else places.video_url(body)
        if facts["raw_status"] == first(body, places.DASHSCOPE_STATUS) == "UNKNOWN":
            raise NotFoundError(f"the gateway's status of {video_id} is UNKNOWN", code="UNKNOWN")
        state = _state(body, facts, dialect)
        if state is TaskState.SUCCEEDED:
            facts["video_url"] = facts["video_url"] or first(body, places.LATE_URLS)
        if state in _BAD_ENDS:
            facts["refusal"] = _refusal(body, facts)
            facts["failure"] = facts["failure"] or _withheld(body, facts)
        else:
            facts["failure"] = facts["failure_code"] = None
        if not state.is_final:
            facts["completed_at"] = None
        else:
            facts["usage"] = read_usage(body, map(parse_place, dialect.cost_places) if dialect else ())
        urls = _several_urls(body, facts["video_url"], own)
        return cls(video_id=video_id, state=state, video_urls=urls, raw=body, **facts)

    @property
    def original_url(self) -> str | None:
        """The file before upsampling, where a reply tells of both (seed 000); else :attr:`video_url`."""
        return first(self.raw, places.ORIGINAL_URLS) or self.video_url

    def as_json(self) -> dict[str, Any]:
        """The task as plain JSON for XCom, a trigger's event or a log.

        ``raw`` is left out, and so are URLs with a query: a presigned query is a credential, and what holds
        this dict is stored and shown. A signed URL is asked for afresh when the file is fetched.
        """
        facts = self.model_dump(mode="json", exclude={"raw"})
        for name in ("video_url", "thumbnail_url"):
            if facts[name] and not _is_plain_url(facts[name]):
                facts[name] = None
        if not all(map(_is_plain_url, facts["video_urls"])):
            facts["video_urls"] = []
        return facts

    @property
    def line(self) -> str:
        """State and progress as a person reads them: ``running (video_upsampling), 93 %``."""
        word = f" ({self.raw_status})" if self.raw_status and self.raw_status.lower() != self.state else ""
        return f"{self.state}{word}" + ("" if self.progress is None else f", {self.progress} %")


def _is_plain_url(url: str) -> bool:
    """Whether a URL holds nothing that signs it: no query, no user, no ``;sig=…`` in its path."""
    parts = urlsplit(url)
    if parts.query or parts.fragment or "@" in parts.netloc:
        return False
    return not re.search(r"(?:;|%3b)[^/]*=", parts.path, re.I) and fit_to_store(url) == url
