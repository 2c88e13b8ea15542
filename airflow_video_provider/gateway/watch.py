"""The decision "keep waiting, done, or give up", once, for every way of waiting.

:class:`TaskWatch` does no I/O and reads no clock: the deferred trigger, the blocking operator and the
sensor's poke feed it what they got and when, and do what it says. So a deferred wait and a blocking one
cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_video_provider.gateway.durations import UNKNOWN, Expectation, Progress, expected_of_family
from airflow_video_provider.gateway.errors import (
    AuthenticationError,
    CertificateError,
    GatewayError,
    ModerationError,
    NotFoundError,
    RateLimitError,
    TransportError,
    UnreadableReplyError,
)
from airflow_video_provider.gateway.lines import Lines
from airflow_video_provider.gateway.pace import LONGEST_INTERVAL, LOWEST_INTERVAL, Schedule, ScheduleMode
from airflow_video_provider.gateway.state import TaskState
from airflow_video_provider.gateway.verdict import Done, End, Verdict, Wait

if TYPE_CHECKING:
    from airflow_video_provider.gateway.settings import GatewaySettings
    from airflow_video_provider.gateway.task import VideoTask

__all__ = ["TaskWatch", "watch_for"]

#: Seconds of failed queries in a row after which a wait is given up. Longer than a gateway's deployment.
UNREACHABLE_AFTER = 600.0
#: The same before the first answer, where a wrong host or port is likelier than an outage.
NO_FIRST_CONTACT_AFTER = 12.0
#: "Not found" is believed once it was said so often, over so many seconds: gateways say it right after a
#: submit (the wire contract, section 3), and one of several servers that lags behind says it later.
GONE_TIMES = 3
GONE_AFTER = 60.0
#: How many failures in a row it takes at the least: a clock that jumps, or a process that was stopped, makes
#: one of them last for hours.
FAILURES = 3
#: Seconds to the next query from which on its time is told.
FAR = 30.0
#: Seconds: a gateway's time of creation that is further off is of another clock.
A_DAY = 86_400.0
#: More queries of a task that succeeded and has no URL yet, and how far apart (seconds).
URL_ASKS = 3
URL_ASK_INTERVAL = 5.0


@dataclass(slots=True)
class TaskWatch:
    """The state of one wait.

    Times are seconds since the epoch, because a wait outlives the process that began it.

    :param video_id: the task that is waited for.
    :param deadline: when to give up on a task that is still running; None for never.
    :param schedule: how often to ask.
    :param started_at: when the task was submitted; None where that is not known, for the gateway's own word.
    :param expected: how long a generation of a model (None if unknown) is likely to take; default by the
        model's family.
    :param model: that was asked for; None for the one that the gateway names.
    :param unreachable_after: seconds of failures in a row after which to give up.
    :param contact_made: whether the gateway answered in this wait before (a submit, an earlier query).
    :param gone_after: seconds over which the gateway must say "not found", :data:`GONE_TIMES` times at
        the least, before it is believed; 0 believes the first.
    :param url_asks: how many more times to ask for the URL of a task that succeeded without one.
    """

    video_id: str
    deadline: float | None
    schedule: Schedule = field(default_factory=Schedule)
    started_at: float | None = None
    expected: Callable[[str | None], Expectation] = expected_of_family
    model: str | None = None
    unreachable_after: float = UNREACHABLE_AFTER
    contact_made: bool = True
    gone_after: float = GONE_AFTER
    url_asks: int = URL_ASKS
    news: str | None = field(default=None, init=False)
    """A line for the log when the last reply changed something, else None."""
    task: VideoTask | None = field(default=None, init=False)
    """As last seen, signed URL and all."""
    next_at: float | None = field(default=None, init=False)
    """When the next query is due; None before the first and after the last."""
    took: float | None = field(default=None, init=False)
    """Seconds that the generation took, once it has succeeded, where that can be told."""
    found_after: float | None = field(default=None, init=False)
    """Seconds between the end by the gateway's clock and the reply that told of it, where it tells."""
    _line: str | None = field(default=None, init=False)
    _lines: Lines = field(default_factory=Lines, init=False)
    _failures: int = field(default=0, init=False)
    _failing_since: float | None = field(default=None, init=False)
    _urls_missing: int = field(default=0, init=False)
    _not_found: int = field(default=0, init=False)
    _not_found_since: float = field(default=0.0, init=False)
    _first_seen: float | None = field(default=None, init=False)
    _last_running: float | None = field(default=None, init=False)
    _progress: Progress = field(default_factory=Progress, init=False)

    @property
    def failures(self) -> int:
        """How many queries in a row have failed up to now."""
        return self._failures

    def on_task(self, task: VideoTask, *, now: float) -> Verdict:
        """Decide after a reply. The status comes before the deadline: a finished task is never timed out."""
        recovered = self._failures
        self._failures, self._failing_since, self.contact_made = 0, None, True
        self._not_found = 0
        if self._first_seen is None:
            self._first_seen = now
        changed = task.line != self._line or recovered
        self._line = task.line
        verdict = self._noted(self._judge(task, now), now)
        telling = changed and self._lines.may_have_another(now, last=isinstance(verdict, Done))
        self.news = (
            self._told(f"{task.line}{self._for_how_long(task, now)}", verdict, now) if telling else None
        )
        return verdict

    def delay_after_restart(self, *, now: float) -> float:
        """Seconds until the first query of a wait that was broken off and begins again."""
        return self._until_deadline(self.schedule.delay_after_restart(), now)

    def _judge(self, task: VideoTask, now: float) -> Verdict:
        before, self.task = self.task, task
        if task.state is TaskState.SUCCEEDED:
            if before is None or before.state is not TaskState.SUCCEEDED:
                self._measure(task, now)
            if task.video_url is None and self._urls_missing < self.url_asks:
                self._urls_missing += 1
                return Wait(min(self.schedule.interval, URL_ASK_INTERVAL))
            return self._done(End.SUCCEEDED, f"video {self.video_id} is ready", task=task)
        if task.state.is_final:
            self._measure(task, now)
            why = task.failure or "the gateway gives no reason"
            code = f" (code {task.failure_code})" if task.failure_code else ""
            return self._done(End.FAILED, f"video {self.video_id} {task.state}: {why}{code}", task=task)
        self._last_running = now
        if self._overdue(now):
            return self._timed_out(task)
        return Wait(self._until_deadline(self._delay(task, now), now))

    # -- when next -----------------------------------------------------------------------------------------

    def _delay(self, task: VideoTask, now: float) -> float:
        started = self._started(task)
        if started is None:
            # A sensor's task of a gateway that tells no time: it may be of any age.
            return self.schedule.delay(now - (self._first_seen or now), UNKNOWN)
        age = max(now - started, 0.0)
        self._progress.note(task.progress, age)
        expected = self.expected(self.model or task.model)
        by_progress = self._progress.expected(age)
        return self.schedule.delay(age, expected if by_progress is None else expected.with_(by_progress))

    def _started(self, task: VideoTask) -> float | None:
        if self.started_at is None and task.created_at is not None and self._first_seen is not None:
            created = task.created_at.timestamp()
            if 0 <= self._first_seen - created <= A_DAY:
                self.started_at = created
        return self.started_at

    def _measure(self, task: VideoTask, now: float) -> None:
        """How long it took, by the gateway's clock, or between the last two replies."""
        ended = task.completed_at.timestamp() if task.completed_at else None
        if ended is not None and 0 <= now - ended <= A_DAY:
            self.found_after = now - ended
        if task.state is not TaskState.SUCCEEDED:
            return
        started = self._started(task)
        if ended is not None and task.created_at is not None:
            self.took = ended - task.created_at.timestamp()
        elif started is not None and self._last_running is not None:
            self.took = (self._last_running + now) / 2 - started

    # -- what is told --------------------------------------------------------------------------------------

    def _for_how_long(self, task: VideoTask, now: float) -> str:
        started, waited = self._started(task), now - (self._first_seen or now)
        if task.state.is_final or (started is None and waited < 1):
            return ""
        # Of a gateway that tells no time the age is not known, but that it is not less than this.
        return f", waited for {waited:.0f} s" if started is None else f", for {max(now - started, 0.0):.0f} s"

    def _told(self, what: str, verdict: Verdict, now: float, why: str = "") -> str:
        if not isinstance(verdict, Wait) or verdict.seconds <= FAR:
            return what + why
        at = datetime.fromtimestamp(now + verdict.seconds, tz=UTC).strftime("%H:%M:%S")
        return f"{what}{why}; next query at {at} UTC"

    def on_error(self, error: GatewayError, *, now: float) -> Verdict:
        """Decide after a query that failed. A blip never ends the wait for a paid task."""
        met_before = self.contact_made
        self._failures += 1
        if isinstance(error, RateLimitError):
            # An answer: the gateway is there, and the deadline is the bound. A blip after an hour of these
            # is a blip.
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
        # A page of HTML may come from anybody: a wrong host gives one to every path.
        if not isinstance(error, TransportError | UnreadableReplyError):
            self.contact_made = True
        verdict = self._noted(self._judge_error(error, now, met_before), now)
        # Not a line per query: of those in a row the 1st, 2nd, 4th, 8th …
        over = isinstance(verdict, Done)
        worth_it = over or self._failures & (self._failures - 1) == 0
        telling = worth_it and self._lines.may_have_another(now, last=over)
        asked = f"; the gateway asked for {error.retry_after:.0f} s" if error.retry_after else ""
        said = f"query {self._failures} in a row failed: {error}"
        self.news = self._told(said, verdict, now, asked) if telling else None
        return verdict

    def _noted(self, verdict: Verdict, now: float) -> Verdict:
        self.next_at = now + verdict.seconds if isinstance(verdict, Wait) else None
        return verdict

    def on_no_turn(self) -> Done:
        """Decide after a deadline that passed without a query, for want of a connection."""
        return self._timed_out(None, "too many other queries of the connection hang")

    def _judge_error(self, error: GatewayError, now: float, met_before: bool) -> Verdict:
        if not error.retryable and not self._may_pass(error, now, met_before):
            return self._final(error)
        patience = (
            self.unreachable_after
            if self.contact_made
            else min(NO_FIRST_CONTACT_AFTER, self.unreachable_after)
        )
        failing_for = 0.0 if self._failing_since is None else now - self._failing_since
        overdue, lost = self._overdue(now), failing_for >= patience and self._failures >= FAILURES
        if self.task is not None and self.task.state is TaskState.SUCCEEDED:
            # Only its URL is missing, which whoever fetches the file asks for afresh.
            if overdue or lost or self._failures >= self.url_asks:
                return self._done(End.SUCCEEDED, f"video {self.video_id} is ready", task=self.task)
        elif overdue:
            return self._timed_out(None, error)
        elif lost and not error.retryable:
            return self._final(error)
        elif lost:
            return self._done(
                End.UNREACHABLE,
                f"every query of video {self.video_id} failed for {failing_for:.0f} s, "
                f"at last with: {error}. The task was left as it is at the gateway; asking again is free",
                error=error,
            )
        if not self.contact_made:
            delay = min(2.0 ** min(self._failures - 1, 10), NO_FIRST_CONTACT_AFTER / 3)
            return Wait(self._until_deadline(delay, now))
        delay = self.schedule.delay_after_failures(self._failures, error.retry_after)
        return Wait(self._until_deadline(delay, now))

    def _may_pass(self, error: GatewayError, now: float, met_before: bool) -> bool:
        """Whether an error that asking again does not cure may yet be one of a moment.

        The gateway has taken these very queries before. What refuses one of them may be a proxy's page, a
        redirect to where people sign in, or a key that is being changed at both ends.
        """
        if isinstance(error, NotFoundError):
            return self._doubts_not_found(now)
        return met_before and not isinstance(error, CertificateError | ModerationError)

    def _final(self, error: GatewayError) -> Done:
        end = End.GONE if isinstance(error, NotFoundError) and not error.no_such_route else End.REFUSED
        return self._done(end, _refused(self.video_id, error), error=error)

    def _doubts_not_found(self, now: float) -> bool:
        self._not_found += 1
        if self._not_found == 1:
            self._not_found_since = now
        lasted = now - self._not_found_since >= self.gone_after
        return self.gone_after > 0 and not (self._not_found >= GONE_TIMES and lasted)

    def _overdue(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline

    def _until_deadline(self, delay: float, now: float) -> float:
        """The last query is made at the deadline, not before it."""
        return delay if self.deadline is None else min(delay, max(self.deadline - now, 0.0))

    def _timed_out(self, task: VideoTask | None, error: GatewayError | str | None = None) -> Done:
        deadline = datetime.fromtimestamp(self.deadline or 0.0, tz=UTC).isoformat(timespec="seconds")
        seen = self._line or "not seen"
        return self._done(
            End.TIMED_OUT,
            f"video {self.video_id} was not finished at the deadline {deadline}; last seen: {seen}"
            + (f"; the last query failed: {error}" if error else "")
            + ". The task was left running at the gateway",
            task=task,
            error=error if isinstance(error, GatewayError) else None,
        )

    def _done(
        self, end: End, message: str, *, task: VideoTask | None = None, error: GatewayError | None = None
    ) -> Done:
        return Done(
            end, self.video_id, message, task.as_json() if task else None, str(error.kind) if error else None
        )


def watch_for(
    settings: GatewaySettings,
    expected: Callable[[str | None], Expectation],
    video_id: str,
    *,
    deadline: float | None,
    interval: float = LOWEST_INTERVAL,
    max_interval: float = LONGEST_INTERVAL,
    mode: ScheduleMode = "adaptive",
    **more: Any,
) -> TaskWatch:
    """Make the watch of a task as its gateway wants it.

    :param settings: of the gateway, whose dialect bounds the interval and says whether URLs are told at all.
    :param expected: see :class:`TaskWatch`.
    :param interval: see :class:`~airflow_video_provider.gateway.pace.Schedule`, as the next two.
    :param more: further arguments of :class:`TaskWatch`.
    """
    dialect = settings.spoken
    more.setdefault("url_asks", URL_ASKS if dialect.url_in_reply else 0)
    return TaskWatch(
        video_id=video_id,
        deadline=deadline,
        schedule=Schedule(max(interval, dialect.poll_floor), max_interval, mode),
        expected=expected,
        **more,
    )


def _refused(video_id: str, error: GatewayError) -> str:
    message = f"video {video_id} cannot be waited for: {error}"
    if isinstance(error, NotFoundError) and error.no_such_route:
        return f"{message}. Check the connection's host, path prefix and dialect"
    if isinstance(error, NotFoundError):
        return f"{message}. Check the id, and that the connection is of the account that submitted it"
    if isinstance(error, CertificateError):
        return f"{message}. Check the connection's host and verify; the task itself goes on"
    if isinstance(error, AuthenticationError):
        return f"{message}. Check the connection's password; the task itself goes on"
    return message
