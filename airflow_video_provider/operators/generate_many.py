"""A list of prompts in one task instance: what ``VideoGenerateOperator(prompts=[…])`` does.

All that may be wrong with any item is found before anything is paid. Then each item goes by a memory of its
own (:mod:`airflow_video_provider.ledger.items`), is submitted or re-attached to, and one trigger waits for
all. Whatever becomes of one item, the others are waited for; then the task succeeds with all or fails with a
line for each that failed, and a retry pays only for what was never paid for, or failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_video_provider.costs import report_end
from airflow_video_provider.exceptions import (
    VideoGatewayUnreachable,
    VideoListFailed,
    VideoSubmitFailed,
    sentences,
)
from airflow_video_provider.gateway.ends import ListEnd, shortened
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.hooks.many import Awaited, ListWait
from airflow_video_provider.hooks.video import VideoHook
from airflow_video_provider.ledger import (
    Attempt,
    Ended,
    Submission,
    digest,
    ledger_for,
    once_succeeded,
)
from airflow_video_provider.ledger.items import ItemLedgers
from airflow_video_provider.operators.endings import failure, queried, remembered
from airflow_video_provider.operators.knobs import given, items_of
from airflow_video_provider.operators.list_items import settled
from airflow_video_provider.remembering import noted, reading, tidied_up
from airflow_video_provider.submitting_many import Settled, name_of
from airflow_video_provider.triggers.video_list import VideoTaskListTrigger
from airflow_video_provider.video_status import list_status, tell
from airflow_video_provider.waiting import xcom_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_video_provider.operators.generate import VideoGenerateOperator

__all__ = ["VideoList"]

#: XComs of the task: the ids for who wants them early, the videos for the trigger, the items for later.
IDS, VIDEOS, ITEMS = "video_ids", "list_awaited", "list_items"
#: How many items that failed are in the task's error, and how much of each; the log has all.
MOST_TOLD = 3
LONGEST_TOLD = 200


@dataclass(frozen=True)
class _Row:
    """One item from its submission on.

    :param key: of its memory.
    :param submission: what is waited for, as far as it is remembered.
    :param error: why the item has failed already.
    """

    place: int
    key: str
    video_id: str | None
    submission: Submission | None = None
    task: dict[str, Any] | None = None
    error: AirflowException | None = None

    @classmethod
    def of(cls, settled: Settled) -> _Row:
        submission, task = settled.submission, settled.task
        return cls(
            settled.item.place,
            settled.item.memory.key,
            None if submission is None else submission.video_id,
            submission,
            None if task is None else task.as_json(),
            settled.error,
        )

    def as_json(self) -> dict[str, Any]:
        final = isinstance(self.error, AirflowFailException)
        error = None if self.error is None else {"final": final, "message": str(self.error)}
        return {"key": self.key, "video_id": self.video_id, "error": error}

    @classmethod
    def from_json(cls, place: int, stored: Mapping[str, Any]) -> _Row:
        error = stored["error"]
        kind = AirflowFailException if error and error["final"] else VideoSubmitFailed
        return cls(
            place, stored["key"], stored["video_id"], error=None if error is None else kind(error["message"])
        )


class VideoList:
    """One attempt of a list.

    :param operator: with its templates rendered.
    """

    def __init__(self, operator: VideoGenerateOperator, context: Context) -> None:
        self._operator, self._context, self._log = operator, context, operator.log
        keep = operator.policy.on_clear == "reuse"
        self._ledgers = ItemLedgers(ledger_for(context, given(operator.ledger_path), keep=keep))
        self._rows: list[_Row] = []

    def execute(self) -> list[dict[str, Any]]:
        """Check all, submit or re-attach, then wait."""
        with reading(self._ledgers):
            memories = self._ledgers.read()
        with VideoHook(self._operator.video_conn_id) as hook:
            attempt = Attempt.of(self._context)
            found = settled(self._operator, attempt, hook, self._ledgers, memories)
            self._rows = [_Row.of(each) for each in found]
            for row in self._rows:
                if row.error is not None:
                    self._log.error("%s: %s", name_of(row.place), row.error)
            if self._operator.do_xcom_push:
                self._push(IDS, [row.video_id for row in self._rows])
            self._tell(self._videos())
            if not self._operator.wait_for_completion:
                self._rows = [self._seen(hook, row) for row in self._rows]
                return self._returned()
            if not any(row.error is None for row in self._rows):
                return self._returned()
        if self._operator.deferrable:
            self._defer()
        return self._after(self._wait())

    def resume(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Go on after the trigger's one event, in a fresh instance."""
        ti: Any = self._context["ti"]
        stored = ti.xcom_pull(task_ids=ti.task_id, key=ITEMS, map_indexes=ti.map_index)
        if not isinstance(stored, Mapping):
            raise VideoGatewayUnreachable(
                f"the XCom {ITEMS} of this task is gone, so which videos it waits for is not known any more. "
                "Nothing was submitted by this; a retry re-attaches to what is paid for."
            )
        self._ledgers.left = frozenset(stored["left"])
        self._rows = [
            self._remembered(_Row.from_json(place, row)) for place, row in enumerate(stored["items"])
        ]
        return self._after(ListEnd.from_event(event))

    def on_kill(self) -> None:
        """Say what runs on."""
        running = [str(row.video_id) for row in self._rows if row.video_id]
        if running:
            self._log.warning(
                "this process is ended; %d videos run on at the gateway, and are paid for: %s. The next "
                "attempt re-attaches to them and pays nothing",
                len(running),
                ", ".join(running),
            )

    def _push(self, key: str, value: object) -> None:
        ti: Any = self._context["ti"]
        ti.xcom_push(key=key, value=value)

    # -- the wait ------------------------------------------------------------------------------------------

    def _seen(self, hook: VideoHook, row: _Row) -> _Row:
        if row.error is not None or row.task is not None or row.submission is None:
            return row
        try:
            return replace(row, task=queried(hook, row.submission).as_json())
        except VideoGatewayUnreachable as error:
            return replace(row, error=error)

    def _deadline(self) -> float:
        """Of all: the list waits as long as its youngest video may take."""
        running = [row.submission for row in self._rows if row.submission and row.error is None]
        return max(s.waiting_since or s.begun_at for s in running) + self._operator.timeout

    def _defer(self) -> NoReturn:
        self._push(
            ITEMS, {"items": [row.as_json() for row in self._rows], "left": sorted(self._ledgers.left)}
        )
        self._push(VIDEOS, [self._awaited(row) for row in self._rows if row.submission and row.error is None])
        deadline = self._deadline()
        trigger = VideoTaskListTrigger(
            video_conn_id=self._operator.video_conn_id,
            video_ids=xcom_of(self._context["ti"], VIDEOS),
            **self._operator.waits.of_list_trigger(deadline),
        )
        self._operator.defer_for(max(deadline - time.time(), 0.0), trigger, self._context)

    def _wait(self) -> ListEnd:
        """Wait here, as the trigger of a list does elsewhere."""
        rows = [row for row in self._rows if row.error is None]
        of_watch = {**self._operator.waits.of_watch(), "deadline": self._deadline()}
        videos = [Awaited.of(self._awaited(row)) for row in rows]
        if all(row.task is None for row in rows):  # what is paid for now is not there yet
            time.sleep(self._operator.waits.poll_interval)
        wait = ListWait(self._operator.video_conn_id, videos, log=self._log, of_watch=of_watch)
        return asyncio.run(wait.until_all_end("any"))

    @staticmethod
    def _awaited(row: _Row) -> dict[str, Any]:
        submission = row.submission
        return {
            "video_id": str(row.video_id),
            "submitted_at": submission and submission.begun_at,
            "model": submission and submission.model,
        }

    # -- the end -------------------------------------------------------------------------------------------

    def _remembered(self, row: _Row) -> _Row:
        """With its submission, where that can be read: the video is there all the same."""
        if row.error is not None:
            return row
        try:
            with reading(self._ledgers):
                history = self._ledgers.of(row.key).read()
        except AirflowException as error:
            self._log.warning("%s", error)
            history = ()
        return replace(
            row, submission=next((s for s in reversed(history) if s.video_id == row.video_id), None)
        )

    def _after(self, list_end: ListEnd) -> list[dict[str, Any]]:
        waited = [row.video_id for row in self._rows if row.error is None]
        ends = {str(video_id): done for video_id, done in zip(waited, list_end.ends, strict=False) if done}
        why = list_end.broke_off or "the wait ended without a word about it"
        missing = VideoGatewayUnreachable(sentences(why, "A retry re-attaches to it"))
        self._rows = [
            row if row.error is not None
            else replace(row, error=missing) if (done := ends.get(str(row.video_id))) is None
            else self._judged(row, done)
            for row in self._rows
        ]  # fmt: skip
        return self._returned()

    def _judged(self, row: _Row, done: Done) -> _Row:
        operator, submission = self._operator, row.submission
        if done.end in {End.SUCCEEDED, End.FAILED} and (submission is None or not submission.counted):
            model = submission.model if submission else operator.model
            report_end(done.task, conn_id=operator.video_conn_id, model=model, log=self._log)
            submission = submission and replace(submission, counted=True)
        if done.end is End.SUCCEEDED:
            return replace(row, submission=submission, task=done.task or {})
        after = submission and remembered(done, submission, operator.policy)
        if after is not None:
            noted(self._ledgers.of(row.key), after, self._log)
        error = failure(done, submission, operator.policy)
        self._log.error("%s: %s", name_of(row.place), error)
        return replace(row, error=error)

    def _returned(self) -> list[dict[str, Any]]:
        """The XCom: the tasks in order, each with its prompt, if none has failed."""
        failed = [row for row in self._rows if row.error is not None]
        for row in self._rows:
            if row.error is None and row.submission is not None and (not failed or row.submission.counted):
                # What is there while another item failed has not ended the task: a retry re-attaches to it.
                after = row.submission if failed else row.submission.ended_as(Ended.SUCCEEDED)
                noted(self._ledgers.of(row.key), after, self._log)
        videos = self._videos()
        self._tell(videos)
        if failed:
            if self._operator.do_xcom_push:  # for a task that goes on with what there is
                self._push("return_value", videos)
            raise _failure_of(failed, len(self._rows))
        if self._ledgers.forgets:
            once_succeeded(self._context["ti"], partial(tidied_up, self._ledgers, self._log))
        return videos

    def _videos(self) -> list[dict[str, Any]]:
        prompts = [item.get("prompt") for item in items_of(self._operator.prompts)]
        return [_as_result(row, _prompt_of(row, prompts)) for row in self._rows]

    def _tell(self, videos: Sequence[Mapping[str, Any]]) -> None:
        """What Airflow's UI shows of the items, as far as they are."""
        models = [row.submission.model if row.submission else None for row in self._rows]
        known = [{**video, "model": model} for video, model in zip(videos, models, strict=True)]
        tell(self._operator, self._context["ti"], list_status(self._operator.ui_status(), known))


def _as_result(row: _Row, prompt: str | None) -> dict[str, Any]:
    """An entry of the XCom: the task, or why there is none."""
    if row.error is None:
        return {"video_id": row.video_id, **(row.task or {}), "prompt": prompt}
    return {"video_id": row.video_id, "state": None, "message": str(row.error), "prompt": prompt}


def _prompt_of(row: _Row, prompts: Sequence[Any]) -> str | None:
    """The item's prompt, unless the list renders differently from what was paid for."""
    prompt = prompts[row.place] if row.place < len(prompts) else None
    if not isinstance(prompt, str):
        return None
    paid_for = None if row.submission is None else row.submission.request.get("prompt")
    return prompt if paid_for in (None, digest(prompt.strip())) else None


def _failure_of(failed: Sequence[_Row], of: int) -> AirflowException:
    """One error for all items that failed; Airflow retries it if that helps any of them."""
    told = "; ".join(
        f"{name_of(row.place)}: {shortened(str(row.error), LONGEST_TOLD)}" for row in failed[:MOST_TOLD]
    )
    more = len(failed) - MOST_TOLD
    said = f"{len(failed)} of {of} videos failed: {told}"
    if more > 0:
        said = f"{said.rstrip('. ')}; and {more} more, each with a line in the log"
    if all(isinstance(row.error, AirflowFailException) for row in failed):
        return AirflowFailException(sentences(said))
    help_ = "A retry re-attaches to what is paid for, and pays for what was never paid for, or failed, alone"
    return VideoListFailed(sentences(said, help_))
