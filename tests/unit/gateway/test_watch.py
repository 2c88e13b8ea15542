"""When a wait goes on, when it is over, and what is said then. The clock is the test's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_video_provider.gateway import (
    AuthenticationError,
    CertificateError,
    GatewayError,
    InvalidRequestError,
    ModerationError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    ServerError,
    TransportError,
    UnreadableReplyError,
    VideoTask,
)
from airflow_video_provider.gateway.pace import Schedule
from airflow_video_provider.gateway.verdict import Done, End, Wait
from airflow_video_provider.gateway.watch import (
    GONE_AFTER,
    NO_FIRST_CONTACT_AFTER,
    UNREACHABLE_AFTER,
    URL_ASK_INTERVAL,
    URL_ASKS,
    TaskWatch,
)

#: A machine under load is no fault of the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ID = "sora-2:task_1"
NOW = 1_770_350_082.0
CDN = "https://cdn.example/v.mp4"
REGULAR = Schedule(10, 60, "fixed", jitter=0)


def watch(**settings: Any) -> TaskWatch:
    return TaskWatch(**{"video_id": ID, "deadline": NOW + 600, "schedule": REGULAR, **settings})


def task(status: str, **facts: Any) -> VideoTask:
    return VideoTask.from_reply({"status": status, **facts}, video_id=ID)


RUNNING = task("processing")
READY = task("completed", video_url=CDN)
READY_WITHOUT_URL = task("completed")
BLIPS: list[GatewayError] = [
    TransportError("no reply"),
    TransportError("refused", maybe_sent=False),
    ServerError("502", status_code=502),
    UnreadableReplyError("HTML"),
    RateLimitError("429", status_code=429),
]
FINAL: list[GatewayError] = [
    AuthenticationError("bad key", status_code=401),
    QuotaError("no balance"),
    InvalidRequestError("wrong"),
    ModerationError("blocked"),
    NotFoundError("task_not_exist", status_code=400),
    NotFoundError("404", no_such_route=True, status_code=404),
]


def kind(error: GatewayError) -> str:
    return f"{error.kind}{' of the route' if getattr(error, 'no_such_route', False) else ''}"


def over(verdict: Wait | Done) -> Done:
    assert isinstance(verdict, Done)
    return verdict


class TestAReply:
    @pytest.mark.parametrize("late", [-1, 0, 1, 10**6])
    def test_of_success_ends_the_wait_however_late(self, late: float) -> None:
        done = over(watch().on_task(READY, now=NOW + 600 + late))
        assert (done.end, done.task) == (End.SUCCEEDED, READY.as_json())

    @pytest.mark.parametrize(
        ("status", "facts", "words"),
        [
            ("failed", {"error": {"message": "too many hands", "code": "e1"}}, "too many hands (code e1)"),
            ("failed", {}, "the gateway gives no reason"),
            ("cancelled", {}, "cancelled"),
            ("expired", {}, "expired"),
        ],
    )
    @pytest.mark.parametrize("late", [-1, 1])
    def test_of_a_bad_end_ends_the_wait_with_the_gateways_reason(
        self, status: str, facts: dict[str, Any], words: str, late: float
    ) -> None:
        done = over(watch().on_task(task(status, **facts), now=NOW + 600 + late))
        assert done.end is End.FAILED
        assert ID in done.message
        assert words in done.message
        assert done.task is not None
        assert done.task["state"] == status

    @pytest.mark.parametrize("status", ["pending", "processing", "a word of tomorrow"])
    def test_of_a_task_that_goes_on_waits_for_the_interval(self, status: str) -> None:
        assert watch().on_task(task(status), now=NOW) == Wait(10)

    def test_of_a_task_that_goes_on_at_the_deadline_says_that_it_was_left_running(self) -> None:
        watching = watch()
        watching.on_task(task("processing", progress=93), now=NOW)
        done = over(watching.on_task(task("processing", progress=93), now=NOW + 600))
        assert done.end is End.TIMED_OUT
        assert "2026-02-06T04:04:42+00:00" in done.message
        assert "running (processing), 93 %" in done.message
        assert "left running" in done.message
        assert done.error_kind is None

    def test_without_a_deadline_waits_for_ever(self) -> None:
        assert watch(deadline=None).on_task(RUNNING, now=NOW + 10**9) == Wait(10)

    def test_is_asked_for_a_last_time_at_the_deadline(self) -> None:
        watching = watch()
        assert watching.on_task(RUNNING, now=NOW + 591) == Wait(9)
        assert over(watching.on_task(RUNNING, now=NOW + 600)).end is End.TIMED_OUT


class TestAMissingUrl:
    def test_is_asked_for_a_few_more_times_and_then_the_video_is_ready_all_the_same(self) -> None:
        watching = watch()
        for asked in range(URL_ASKS):
            assert watching.on_task(READY_WITHOUT_URL, now=NOW + asked) == Wait(URL_ASK_INTERVAL)
        done = over(watching.on_task(READY_WITHOUT_URL, now=NOW + 20))
        assert (done.end, (done.task or {})["video_url"]) == (End.SUCCEEDED, None)

    def test_that_comes_late_ends_the_wait(self) -> None:
        watching = watch()
        watching.on_task(READY_WITHOUT_URL, now=NOW)
        assert over(watching.on_task(READY, now=NOW + 5)).end is End.SUCCEEDED
        assert watching.task is READY

    def test_is_not_asked_for_where_a_dialect_gives_none(self) -> None:
        assert over(watch(url_asks=0).on_task(READY_WITHOUT_URL, now=NOW)).end is End.SUCCEEDED

    @pytest.mark.parametrize("error", BLIPS, ids=kind)
    def test_after_the_deadline_and_a_failure_is_no_timeout(self, error: GatewayError) -> None:
        watching = watch()
        assert isinstance(watching.on_task(READY_WITHOUT_URL, now=NOW + 599), Wait)
        done = over(watching.on_error(error, now=NOW + 604))
        assert done.end is End.SUCCEEDED

    def test_is_not_asked_for_until_the_gateway_is_called_unreachable(self) -> None:
        watching = watch(deadline=None)
        watching.on_task(READY_WITHOUT_URL, now=NOW)
        verdicts = [watching.on_error(BLIPS[0], now=NOW + 60 * n) for n in range(1, URL_ASKS + 1)]
        assert [type(each) for each in verdicts[:-1]] == [Wait] * (URL_ASKS - 1)
        assert over(verdicts[-1]).end is End.SUCCEEDED


class TestAnError:
    @pytest.mark.parametrize("error", BLIPS, ids=kind)
    def test_that_is_a_blip_never_ends_the_wait(self, error: GatewayError) -> None:
        watching = watch()
        assert watching.on_error(error, now=NOW) == Wait(10)
        assert watching.on_task(RUNNING, now=NOW + 10) == Wait(10)

    @pytest.mark.parametrize("error", BLIPS, ids=kind)
    def test_that_repeats_is_asked_about_less_and_less_often(self, error: GatewayError) -> None:
        watching = watch()
        waits = [watching.on_error(error, now=NOW) for _ in range(6)]
        assert waits == [Wait(10), Wait(20), Wait(40), Wait(60), Wait(60), Wait(60)]
        watching.on_task(RUNNING, now=NOW)
        assert watching.on_error(error, now=NOW) == Wait(10)

    @pytest.mark.parametrize("error", BLIPS[:-1], ids=kind)
    def test_for_too_long_without_a_break_ends_the_wait_and_the_task_is_left(
        self, error: GatewayError
    ) -> None:
        watching = watch(deadline=None)
        assert isinstance(watching.on_error(error, now=NOW), Wait)
        assert isinstance(watching.on_error(error, now=NOW + UNREACHABLE_AFTER - 1), Wait)
        done = over(watching.on_error(error, now=NOW + UNREACHABLE_AFTER))
        assert (done.end, done.error_kind) == (End.UNREACHABLE, str(error.kind))
        assert "left" in done.message
        assert f"{UNREACHABLE_AFTER:.0f} s" in done.message
        assert str(error) in done.message

    def test_is_forgotten_when_the_gateway_answers(self) -> None:
        watching = watch(deadline=None)
        watching.on_error(BLIPS[0], now=NOW)
        watching.on_task(RUNNING, now=NOW + UNREACHABLE_AFTER - 1)
        assert isinstance(watching.on_error(BLIPS[0], now=NOW + UNREACHABLE_AFTER), Wait)

    @pytest.mark.parametrize("error", FINAL, ids=kind)
    @pytest.mark.parametrize("late", [-300, 300])
    def test_that_is_final_ends_the_wait_at_once_where_the_gateway_was_never_met(
        self, error: GatewayError, late: float
    ) -> None:
        done = over(watch(gone_after=0, contact_made=False).on_error(error, now=NOW + 600 + late))
        gone = isinstance(error, NotFoundError) and not error.no_such_route
        assert done.end is (End.GONE if gone else End.REFUSED)
        assert done.error_kind == str(error.kind)
        assert error.message in done.message

    def test_about_a_key_says_that_the_task_goes_on(self) -> None:
        done = over(watch(contact_made=False).on_error(FINAL[0], now=NOW))
        assert "the task itself goes on" in done.message

    @pytest.mark.parametrize("error", FINAL[:3], ids=kind)
    def test_that_is_final_may_be_one_of_a_moment_where_the_gateway_was_met(
        self, error: GatewayError
    ) -> None:
        """A proxy's page with HTTP 403, a redirect to where people sign in, a key that is being changed."""
        watching = watch(deadline=None)
        watching.on_task(RUNNING, now=NOW)
        for seconds in (1, 60, UNREACHABLE_AFTER):
            assert isinstance(watching.on_error(error, now=NOW + seconds), Wait)
        done = over(watching.on_error(error, now=NOW + UNREACHABLE_AFTER + 1))
        assert (done.end, done.error_kind) == (End.REFUSED, str(error.kind))

    @pytest.mark.parametrize("error", [ModerationError("blocked"), CertificateError("untrusted")], ids=kind)
    def test_of_the_prompt_or_of_the_certificate_is_none_of_a_moment(self, error: GatewayError) -> None:
        watching = watch()
        watching.on_task(RUNNING, now=NOW)
        assert over(watching.on_error(error, now=NOW)).end is End.REFUSED

    @pytest.mark.parametrize("error", [BLIPS[0], FINAL[0]], ids=kind)
    def test_and_the_next_after_a_jump_of_the_clock_are_no_outage(self, error: GatewayError) -> None:
        watching = watch(deadline=None)
        watching.on_error(error, now=NOW)
        assert isinstance(watching.on_error(error, now=NOW + 10 * UNREACHABLE_AFTER), Wait)

    def test_about_a_route_says_what_to_check(self) -> None:
        assert "dialect" in over(watch(gone_after=0).on_error(FINAL[-1], now=NOW)).message

    @pytest.mark.parametrize("error", BLIPS, ids=kind)
    def test_at_the_deadline_says_what_failed_and_what_was_last_seen(self, error: GatewayError) -> None:
        watching = watch()
        watching.on_task(task("processing", progress=50), now=NOW)
        assert watching.on_error(error, now=NOW + 595) == Wait(5)
        done = over(watching.on_error(error, now=NOW + 600))
        assert (done.end, done.error_kind) == (End.TIMED_OUT, str(error.kind))
        assert "running (processing), 50 %" in done.message
        assert str(error) in done.message
        assert "left running" in done.message


class TestARateLimit:
    LIMIT = RateLimitError("slow down", status_code=429, retry_after=120)

    def test_is_waited_for_as_long_as_the_gateway_asks(self) -> None:
        assert watch().on_error(self.LIMIT, now=NOW) == Wait(120)

    def test_is_waited_for_until_the_deadline_at_most(self) -> None:
        assert watch(deadline=NOW + 50).on_error(self.LIMIT, now=NOW) == Wait(50)

    def test_is_bounded_by_the_deadline_only(self) -> None:
        watching = watch(deadline=NOW + 10 * UNREACHABLE_AFTER)
        for n in range(10):
            assert isinstance(watching.on_error(self.LIMIT, now=NOW + n * UNREACHABLE_AFTER), Wait)
        assert over(watching.on_error(self.LIMIT, now=NOW + 10 * UNREACHABLE_AFTER)).end is End.TIMED_OUT

    def test_of_an_hour_does_not_make_the_next_blip_an_outage(self) -> None:
        watching = watch(deadline=None)
        for n in range(60):
            watching.on_error(self.LIMIT, now=NOW + 60 * n)
        assert isinstance(watching.on_error(BLIPS[0], now=NOW + 3600), Wait)
        assert isinstance(watching.on_error(BLIPS[0], now=NOW + 3600 + UNREACHABLE_AFTER - 1), Wait)
        assert over(watching.on_error(BLIPS[0], now=NOW + 3600 + UNREACHABLE_AFTER)).end is End.UNREACHABLE


class TestBeforeTheFirstAnswer:
    @pytest.mark.parametrize("error", [TransportError("refused"), UnreadableReplyError("HTML")], ids=kind)
    def test_a_wrong_host_is_told_within_seconds(self, error: GatewayError) -> None:
        watching = watch(contact_made=False)
        now, asked = NOW, 0
        while isinstance(verdict := watching.on_error(error, now=now), Wait):
            now, asked = now + verdict.seconds, asked + 1
        assert over(verdict).end is End.UNREACHABLE
        assert now - NOW <= NO_FIRST_CONTACT_AFTER + 4
        assert 2 <= asked <= 8

    @pytest.mark.parametrize(
        "answer", [ServerError("502"), RateLimitError("429"), RUNNING], ids=lambda a: str(a)[:12]
    )
    def test_any_answer_of_a_gateway_makes_it_patient(self, answer: Any) -> None:
        watching = watch(contact_made=False, deadline=None)
        if isinstance(answer, VideoTask):
            watching.on_task(answer, now=NOW)
        else:
            watching.on_error(answer, now=NOW)
        assert watching.contact_made
        assert isinstance(watching.on_error(BLIPS[0], now=NOW + NO_FIRST_CONTACT_AFTER + 1), Wait)

    def test_the_deadline_is_kept(self) -> None:
        watching = watch(contact_made=False, deadline=NOW + 0.5)
        assert watching.on_error(BLIPS[0], now=NOW) == Wait(0.5)

    def test_a_shorter_patience_is_kept(self) -> None:
        watching = watch(contact_made=False, unreachable_after=3)
        for seconds in (0, 1):
            assert isinstance(watching.on_error(BLIPS[0], now=NOW + seconds), Wait)
        assert over(watching.on_error(BLIPS[0], now=NOW + 3)).end is End.UNREACHABLE


class TestNotFound:
    @pytest.mark.parametrize("error", FINAL[-2:], ids=kind)
    def test_is_believed_after_several_times_over_a_minute(self, error: GatewayError) -> None:
        """A gateway's replica, or the proxy before it, may not know the paid task, for a while."""
        watching = watch()
        assert isinstance(watching.on_error(error, now=NOW), Wait)
        assert isinstance(watching.on_error(error, now=NOW + 1), Wait)
        assert isinstance(watching.on_error(error, now=NOW + GONE_AFTER - 1), Wait)
        assert over(watching.on_error(error, now=NOW + GONE_AFTER)).end in {End.GONE, End.REFUSED}

    def test_is_not_believed_when_it_was_said_twice_however_far_apart(self) -> None:
        watching = watch()
        watching.on_error(FINAL[-2], now=NOW)
        assert isinstance(watching.on_error(FINAL[-2], now=NOW + 2 * GONE_AFTER), Wait)

    def test_counts_anew_once_the_task_was_seen(self) -> None:
        watching = watch()
        for seconds in (0, 1):
            watching.on_error(FINAL[-2], now=NOW + seconds)
        watching.on_task(task("processing"), now=NOW + 2)
        assert isinstance(watching.on_error(FINAL[-2], now=NOW + GONE_AFTER + 2), Wait)

    def test_is_believed_at_once_where_nobody_asks_twice(self) -> None:
        assert over(watch(gone_after=0).on_error(FINAL[-2], now=NOW)).end is End.GONE

    @pytest.mark.parametrize("error", FINAL[:-2], ids=kind)
    def test_alone_is_doubted_at_the_first_contact(self, error: GatewayError) -> None:
        assert over(watch(contact_made=False).on_error(error, now=NOW)).end is End.REFUSED

    def test_at_the_deadline_is_a_timeout(self) -> None:
        watching = watch(deadline=NOW + 5)
        assert over(watching.on_error(FINAL[-2], now=NOW + 5)).end is End.TIMED_OUT


class TestNews:
    def test_is_told_when_state_or_progress_changes_and_not_at_every_poll(self) -> None:
        watching = watch()
        told = []
        for status, progress in (
            ("pending", None), ("pending", None), ("processing", 10), ("processing", 10), ("processing", 20),
            ("completed", 100),
        ):  # fmt: skip
            watching.on_task(task(status, progress=progress, video_url=CDN), now=NOW)
            told.append(watching.news)
        assert told == [
            "queued (pending)", None, "running (processing), 10 %", None, "running (processing), 20 %",
            "succeeded (completed), 100 %",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("known", "age"), [({}, "waited for 62 s"), ({"started_at": NOW - 8}, "for 70 s")], ids=str
    )
    def test_has_the_age_or_how_long_the_video_was_waited_for(self, known: Any, age: str) -> None:
        watching = watch(**known)
        watching.on_task(task("pending"), now=NOW)
        watching.on_task(task("processing", progress=45), now=NOW + 62)
        assert watching.news == f"running (processing), 45 %, {age}"

    def test_is_told_of_every_failure_and_of_the_recovery(self) -> None:
        watching = watch()
        watching.on_task(RUNNING, now=NOW)
        watching.on_error(ServerError("oops", status_code=502), now=NOW)
        assert watching.news == "query 1 in a row failed: the gateway failed: oops (HTTP 502)"
        watching.on_error(TransportError("no reply"), now=NOW)
        assert watching.news == "query 2 in a row failed: no reply"
        watching.on_task(RUNNING, now=NOW)
        assert watching.news == "running (processing)"

    @pytest.mark.parametrize("other", [ServerError("502"), task("processing", progress=49)], ids=str)
    def test_is_a_line_a_minute_where_every_query_brings_another(self, other: Any) -> None:
        watching, lines = watch(deadline=None), 0
        for number in range(360):  # an hour
            answer = (task("processing", progress=50), other)[number % 2]
            tell = watching.on_task if isinstance(answer, VideoTask) else watching.on_error
            tell(answer, now=NOW + 10 * number)
            lines += watching.news is not None
        assert 20 <= lines <= 20 + 60
        watching.on_task(READY, now=NOW + 3600)
        assert watching.news == "succeeded (completed)"


class TestDone:
    @pytest.mark.parametrize("end", End)
    def test_as_an_event_survives_json(self, end: End) -> None:
        done = Done(end, ID, "因为", READY.as_json(), "server")
        event = done.as_event()
        assert all(type(value) in {str, dict} for value in event.values())
        assert Done.from_event(json.loads(json.dumps(event))) == done

    def test_tells_no_signed_url(self) -> None:
        signed = task("completed", video_url=f"{CDN}?X-Amz-Signature=SECRET")
        done = over(watch().on_task(signed, now=NOW))
        assert "SECRET" not in json.dumps(done.as_event())

    def test_tells_no_signed_url_of_a_failure(self) -> None:
        failed = task("failed", fail_reason=f'Get "{CDN}?key=SECRET": EOF')
        done = over(watch().on_task(failed, now=NOW))
        assert "SECRET" not in json.dumps(done.as_event())


answers = st.sampled_from(
    [*BLIPS, *FINAL, RUNNING, task("pending"), task("failed"), task("cancelled"), READY, READY_WITHOUT_URL]
)
weighted = st.one_of(answers, st.sampled_from([*BLIPS, RUNNING, READY_WITHOUT_URL]))


class TestAnyWait:
    @given(
        script=st.lists(weighted, min_size=1, max_size=40),
        patience=st.floats(min_value=1, max_value=2000),
        span=st.floats(min_value=0, max_value=2000),
        latency=st.floats(min_value=0, max_value=30),
        contact_made=st.booleans(),
        gone_after=st.sampled_from([0.0, 60.0]),
        url_asks=st.integers(min_value=0, max_value=4),
    )
    @settings(PATIENT, max_examples=300)
    def test_ends_once_and_for_a_reason(
        self,
        script: list[GatewayError | VideoTask],
        patience: float,
        span: float,
        latency: float,
        contact_made: bool,
        gone_after: float,
        url_asks: int,
    ) -> None:
        deadline = NOW + span
        watching = watch(
            deadline=deadline,
            unreachable_after=patience,
            contact_made=contact_made,
            gone_after=gone_after,
            url_asks=url_asks,
        )
        now, asked_late, last_seen = NOW, 0, None
        for asked in range(2000):
            answer = script[asked % len(script)]
            asked_late += now >= deadline
            if isinstance(answer, VideoTask):
                last_seen = answer
                verdict = watching.on_task(answer, now=now)
            else:
                verdict = watching.on_error(answer, now=now)
            if isinstance(verdict, Done):
                break
            assert 0 <= verdict.seconds <= 3600
            wanted_url = last_seen is READY_WITHOUT_URL and answer is last_seen
            assert now + verdict.seconds <= deadline + 1e-6 or wanted_url
            now += verdict.seconds + latency
        done = over(verdict)

        assert asked_late <= url_asks + 1
        assert Done.from_event(json.loads(json.dumps(done.as_event()))) == done
        assert ID in done.message
        if answer is READY:
            assert done.end is End.SUCCEEDED
        if done.end is End.SUCCEEDED:
            assert last_seen in (READY, READY_WITHOUT_URL)
        if done.end is End.FAILED:
            assert last_seen is not None
            assert last_seen.state in {"failed", "cancelled"}
        if done.end in {End.REFUSED, End.GONE}:
            assert answer in FINAL
        if done.end is End.TIMED_OUT:
            assert now >= deadline
        if done.end in {End.TIMED_OUT, End.UNREACHABLE}:
            assert last_seen is None or last_seen.state != "succeeded"
            assert "left" in done.message
