"""Whatever the video's server or the store does: a whole file or an error that names the cause.

The table :data:`ROWS` is the one of `docs/downloads.md`; a test holds the two together.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from airflow_video_provider.media import (
    DamagedVideo,
    DownloadOptions,
    DownloadTimeout,
    LinkExpired,
    MediaError,
    NotAVideo,
    RedirectRefused,
    SourceChanged,
    SourceRefused,
    TooLarge,
    TransferBroken,
    UnsafeAddress,
    UntrustedCertificate,
)
from tests.system.landing import CLIP, EAGER, LAST, MIDDLE, OTHER, STALLS, land
from tests.system.misbehaving import (
    FINE,
    Fault,
    Misbehaving,
    Seen,
    answer,
    cut,
    digest,
    reset,
    stall,
    trickle,
)
from tests.system.stores import Store, Watcher
from tests.system.videos import h264

SECRET = "X-Signature-of-the-link"
HTML = b"<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Sorry, try later</h1></body></html>"


def damaged(content: bytes, size: int) -> bytes:
    """The right length, with some bytes in the middle that nobody meant."""
    return content[:MIDDLE] + random.Random(5).randbytes(size) + content[MIDDLE + size :]  # noqa: S311


def to_raw_utf_8(seen: Seen) -> Fault | None:
    """Redirect to a name with letters beyond ASCII, and serve the file under what browsers make of it."""
    if seen.target.startswith("/clip.mp4"):
        return answer(302, Location="/vid\u00c3\u00a9o/\u00e5\u00bd\u00b1.mp4")
    return None if seen.target == "/vid%C3%A9o/%E5%BD%B1.mp4" else answer(404)


@dataclass(frozen=True)
class Row:
    """A fault, and what comes of it: ``None`` for a whole file, else the error and words of its message."""

    name: str
    script: tuple[Fault, ...] = ()
    forever: Fault = FINE
    outcome: type[MediaError] | None = None
    says: str = ""
    server: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    lands: bytes = CLIP


ROWS = (
    Row("reset at byte 0", (reset(0),)),
    Row("reset in the middle", (reset(MIDDLE),)),
    Row("reset at the last byte", (reset(LAST),)),
    Row("reset for ever", forever=reset(0), outcome=TransferBroken, says="repeated failures"),
    Row("reset in the middle, no ETag", (reset(MIDDLE),), server={"etag": None}),
    Row("stall", (stall(MIDDLE),), call=STALLS),
    Row("stall for ever", forever=stall(1000), outcome=TransferBroken, says="stall timeout", call=STALLS),
    Row("trickle", (trickle(MIDDLE),), call=STALLS),
    Row(
        "trickle for ever", forever=trickle(600), outcome=TransferBroken, says="bytes per second", call=STALLS
    ),
    Row(
        "slower than the timeout allows",
        forever=trickle(70_000),
        outcome=DownloadTimeout,
        says="timeout of 3 s",
        call={"timeout": 3.0, "stall_timeout": 30.0},
    ),
    Row("shorter than announced", (cut(MIDDLE), cut(1000))),
    Row(
        "shorter than announced, for ever, no ranges",
        forever=cut(MIDDLE),
        server={"ranges": False},
        outcome=TransferBroken,
        says="no way to go on",
    ),
    Row("longer than announced", (Fault("longer"),)),
    Row("no Content-Length", forever=Fault("no_length")),
    Row("chunked", forever=Fault("chunked")),
    Row("chunked, cut once", (Fault("chunked_cut", MIDDLE),), forever=Fault("chunked")),
    Row(
        "chunked, cut for ever",
        forever=Fault("chunked_cut", MIDDLE),
        outcome=TransferBroken,
        says="incomplete",
    ),
    Row("200 in place of 206", (reset(MIDDLE), Fault("ignore_range"))),
    Row("wrong Content-Range", (reset(MIDDLE), Fault("wrong_range"))),
    Row("wrong Content-Range for ever", forever=Fault("wrong_range")),
    Row(
        "ETag changed between ranges, the new file is served",
        (reset(MIDDLE), Fault("new_version")),
        server={"next_version": OTHER},
        lands=OTHER,
    ),
    Row("a range of another version, called 206", (reset(MIDDLE), Fault("other_etag"))),
    Row(
        "ETag changes with every answer",
        forever=Fault("rotating", MIDDLE),
        outcome=SourceChanged,
        says="the file changed",
    ),
    Row("gzip bomb", forever=Fault("gzip"), outcome=NotAVideo, says="Content-Encoding gzip"),
    Row(
        "a Content-Encoding that changes no byte",
        server={"more_headers": {"Content-Encoding": "aws-chunked"}},
    ),
    Row("more than max_bytes", outcome=TooLarge, says="max_bytes=1000", call={"max_bytes": 1000}),
    Row(
        "more than max_bytes, unannounced",
        forever=Fault("chunked"),
        outcome=TooLarge,
        says="max_bytes=100000",
        call={"max_bytes": 100_000},
    ),
    Row(
        "redirect in a circle",
        forever=answer(302, Location="/clip.mp4"),
        outcome=RedirectRefused,
        says="more than 5",
    ),
    Row(
        "redirect to a private address",
        forever=answer(302, Location="http://10.1.2.3/x"),
        outcome=UnsafeAddress,
        says="10.1.2.3",
    ),
    Row(
        "redirect to the metadata service",
        forever=answer(307, Location="http://169.254.169.254/latest/"),
        outcome=UnsafeAddress,
        says="169.254.169.254",
    ),
    Row(
        "redirect to file:",
        forever=answer(302, Location="file:///etc/passwd"),
        outcome=RedirectRefused,
        says="file:",
    ),
    Row(
        "redirect with credentials",
        forever=answer(302, Location="http://u:pw@127.0.0.1/x"),
        outcome=RedirectRefused,
        says="credentials",
    ),
    Row(
        "403 for ever",
        forever=answer(403, b"<Error><Code>AccessDenied</Code></Error>"),
        outcome=LinkExpired,
        says="HTTP 403",
    ),
    Row("429 with Retry-After", (answer(429, Retry_After="0"), answer(429, Retry_After="0"))),
    Row("429 for ever", forever=answer(429, Retry_After="0"), outcome=SourceRefused, says="HTTP 429"),
    Row(
        "503 with Retry-After",
        (answer(503, b"busy", Retry_After="0"), reset(MIDDLE), answer(503, Retry_After="0")),
    ),
    Row(
        "Retry-After beyond the timeout",
        forever=answer(503, Retry_After="900"),
        outcome=SourceRefused,
        says="HTTP 503",
    ),
    Row(
        "400",
        forever=answer(400, b'{"error": {"message": "video is not ready"}}'),
        outcome=SourceRefused,
        says="not ready",
    ),
    Row(
        "not there yet: 404, 202, 409, 425, 400 “not ready”, 502",
        (
            answer(404),
            answer(202, b'{"status": "processing"}'),
            answer(409),
            answer(425),
            answer(400, b'{"error": {"message": "video is not ready"}}'),
            answer(502, b"<html>bad gateway</html>"),
        ),
        call={"attempts": 8},
    ),
    Row("404 for ever", forever=answer(404), outcome=LinkExpired, says="HTTP 404"),
    Row("206 that never tells the length", forever=Fault("never_tells")),
    Row("206 without a Content-Range", forever=answer(206, CLIP)),
    Row("redirect whose Location holds raw UTF-8", server={"answers": to_raw_utf_8}),
    Row("a newline after the last box", server={"content": CLIP + b"\n"}, lands=CLIP + b"\n"),
    Row(
        "an AVIF picture",
        server={"content": b"\0\0\0\x1cftypavif\0\0\0\0mif1miafavif" + bytes(2000)},
        outcome=NotAVideo,
        says="an AVIF image",
    ),
    Row(
        "HTML with 200",
        forever=answer(200, HTML, Content_Type="video/mp4"),
        outcome=NotAVideo,
        says="an HTML page: 'Sorry",
    ),
    Row(
        "JSON with 200",
        forever=answer(200, b'{"error": {"message": "gone"}}', Content_Type="application/json"),
        outcome=NotAVideo,
        says="JSON",
    ),
    Row("empty 200", forever=answer(200), outcome=NotAVideo, says="nothing (an empty body)"),
    Row(
        "truncated MP4 of the announced length",
        server={"content": CLIP[:MIDDLE]},
        outcome=DamagedVideo,
        says="truncated MP4",
    ),
    Row(
        "MP4 cut before its index",
        server={"content": h264(3, 1, False)[:-3000]},
        outcome=DamagedVideo,
        says="truncated MP4",
    ),
    Row(
        "truncated, unannounced",
        server={"content": CLIP[:-5]},
        forever=Fault("no_length"),
        outcome=DamagedVideo,
        says="truncated MP4",
    ),
    Row(
        "a corrupted middle", server={"content": damaged(CLIP, 40_000)}, outcome=DamagedVideo, says="damaged"
    ),
    Row(
        "one corrupted spot, every frame checked",
        server={"content": damaged(CLIP, 500)},
        outcome=DamagedVideo,
        says="",
        call={"check": "frames"},
    ),
    Row(
        "not the digest that was announced",
        forever=FINE,
        outcome=DamagedVideo,
        says="sha256 digest",
        server={"more_headers": {"Repr-Digest": "sha-256=:" + base64.b64encode(b"0" * 32).decode() + ":"}},
    ),
)


def serve(row: Row) -> Misbehaving:
    return Misbehaving(**{"content": CLIP, "script": row.script, "forever": row.forever, **row.server})


class TestEveryFault:
    @pytest.mark.parametrize("connections", [1, 8], ids=["one", "many"])
    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    def test_every_fault_ends_in_a_whole_file_or_a_named_error(
        self, row: Row, connections: int, store: Store
    ) -> None:
        with serve(row) as server, Watcher(store, "v1.mp4") as watcher:
            url = f"{server.url}?sig={SECRET}"
            if row.outcome is None:
                landed = land(url, store, connections=connections, options=EAGER, **row.call)
                assert landed.sha256 == digest(row.lands)
                assert store.read("v1.mp4") == row.lands
            else:
                with pytest.raises(row.outcome) as caught:
                    land(url, store, connections=connections, options=EAGER, **row.call)
                assert type(caught.value) is row.outcome
                assert row.says in str(caught.value)
                assert SECRET not in str(caught.value)
                assert store.names() == []
        assert watcher.seen <= {row.lands}
        assert store.leftovers() == []

    def test_every_fault_stands_in_the_documentation(self, pytestconfig: pytest.Config) -> None:
        text = (pytestconfig.rootpath / "docs" / "downloads.md").read_text()
        missing = [row.name for row in ROWS if f"| {row.name} |" not in text]
        assert missing == []


class TestFreshLinks:
    def test_a_refused_link_is_replaced_and_the_bytes_that_are_there_are_kept(self, store: Store) -> None:
        def answers(seen: Any) -> Fault | None:
            if "old" not in seen.target:
                return None
            return cut(MIDDLE) if len(server.seen) == 1 else answer(403)

        with Misbehaving(CLIP, answers=answers) as server:
            landed = land(f"{server.url}?old", store, refresh_url=lambda: f"{server.url}?new")
            assert landed.sha256 == digest(CLIP)
            assert server.seen[-1].headers["range"] == f"bytes={MIDDLE}-{LAST}"
            assert server.seen[-1].headers["if-range"] == '"v1"'

    def test_a_fresh_link_to_another_file_is_begun_anew(self, store: Store) -> None:
        with (
            Misbehaving(CLIP, script=(reset(MIDDLE),), forever=answer(410)) as old,
            Misbehaving(OTHER, etag='"v9"') as new,
        ):
            landed = land(old.url, store, refresh_url=lambda: new.url)
        assert landed.sha256 == digest(OTHER)

    def test_the_same_bytes_under_another_version_are_gone_on_with(self, store: Store) -> None:
        with (
            Misbehaving(CLIP, script=(cut(MIDDLE),), forever=answer(403)) as old,
            Misbehaving(CLIP, etag='"another"') as new,
        ):
            landed = land(old.url, store, refresh_url=lambda: new.url, connections=1)
            assert landed.sha256 == digest(CLIP)
            assert new.seen[-1].headers["range"] == f"bytes={MIDDLE}-{LAST}"
            assert new.seen[-1].headers["if-range"] == '"another"'

    def test_a_link_that_breaks_while_it_is_compared_is_begun_anew(self, store: Store) -> None:
        with (
            Misbehaving(CLIP, script=(cut(MIDDLE),), forever=answer(403)) as old,
            Misbehaving(CLIP, etag='"another"', script=(FINE, reset(0))) as new,
        ):
            assert land(old.url, store, refresh_url=lambda: new.url, connections=1).sha256 == digest(CLIP)
            assert new.seen[-1].headers["range"] == "bytes=0-"

    @pytest.mark.parametrize("spot", [100, MIDDLE - 1], ids=["the first", "the latest"])
    def test_other_bytes_of_the_same_length_are_begun_anew(self, spot: int, store: Store) -> None:
        room = (MIDDLE + 8).to_bytes(4) + b"free" + bytes(MIDDLE)
        before = CLIP[:32] + room + CLIP[32:]
        after = before[:spot] + b"!" + before[spot + 1 :]
        with (
            Misbehaving(before, script=(cut(MIDDLE),), forever=answer(403)) as old,
            Misbehaving(after, etag='"another"') as new,
        ):
            options = DownloadOptions(proof_bytes=1000, check="structure")
            landed = land(old.url, store, refresh_url=lambda: new.url, connections=1, options=options)
        assert landed.sha256 == digest(after)

    def test_a_link_that_says_it_has_expired_is_not_even_asked(self, store: Store) -> None:
        with Misbehaving(CLIP) as server:
            expired = f"{server.url}?X-Amz-Date=20200101T000000Z&X-Amz-Expires=60&old"
            land(expired, store, refresh_url=lambda: f"{server.url}?new")
            assert [seen.target for seen in server.seen] == ["/clip.mp4?new"]

    def test_fresh_links_that_are_refused_as_well_end_the_download(self, store: Store) -> None:
        asked = []
        with Misbehaving(CLIP, forever=answer(403)) as server, pytest.raises(LinkExpired, match="403"):
            land(server.url, store, refresh_url=lambda: asked.append(1) or server.url)
        assert 1 <= len(asked) <= 3


class TestCredentials:
    KEY: ClassVar = {"Authorization": "Bearer sk-secret"}

    def test_credentials_go_to_their_own_origin_only(self, store: Store) -> None:
        with (
            Misbehaving(CLIP) as cdn,
            Misbehaving(CLIP, forever=answer(302, Location=cdn.url)) as gateway,
        ):
            land(gateway.url, store, headers=self.KEY, headers_origin=gateway.base)
        assert {seen.headers.get("authorization") for seen in gateway.seen} == {"Bearer sk-secret"}
        assert {seen.headers.get("authorization") for seen in cdn.seen} == {None}

    def test_credentials_are_not_sent_to_a_link_elsewhere(self, store: Store) -> None:
        with Misbehaving(CLIP) as cdn:
            land(cdn.url, store, headers=self.KEY, headers_origin="https://gateway.example")
        assert {seen.headers.get("authorization") for seen in cdn.seen} == {None}

    def test_credentials_do_not_come_back_after_a_detour(self, store: Store) -> None:
        with Misbehaving(CLIP) as cdn, Misbehaving(CLIP) as gateway:
            gateway.answers = lambda seen: (
                answer(302, Location=cdn.url) if seen.target == "/clip.mp4" else None
            )
            cdn.forever = answer(302, Location=f"{gateway.base}/back")
            land(gateway.url, store, headers=self.KEY)
        assert [seen.headers.get("authorization") for seen in gateway.seen] == ["Bearer sk-secret", None]


class TestJsonAnswers:
    @pytest.mark.parametrize("place", ["data.url", "output.video_url", "data.data.task_result.videos.0.url"])
    def test_a_link_in_json_is_followed_once(self, store: Store, place: str) -> None:
        with Misbehaving(CLIP) as cdn:
            link: Any = cdn.url
            for step in reversed(place.split(".")):
                link = [link] if step.isdigit() else {step: link}
            body = json.dumps(link).encode()
            with Misbehaving(CLIP, forever=answer(200, body, Content_Type="application/json")) as gateway:
                landed = land(f"{gateway.base}/content", store, headers={"Authorization": "Bearer k"})
        assert landed.sha256 == digest(CLIP)
        assert "authorization" not in cdn.seen[0].headers

    def test_json_behind_json_is_an_error(self, store: Store) -> None:
        with Misbehaving(CLIP) as gateway:
            gateway.forever = answer(200, json.dumps({"url": gateway.url}).encode())
            with pytest.raises(NotAVideo, match="JSON"):
                land(gateway.url, store)

    @pytest.mark.parametrize("for_ever", [False, True])
    def test_a_json_answer_that_is_cut_is_asked_for_again(self, store: Store, for_ever: bool) -> None:
        with Misbehaving(CLIP) as cdn:
            body = json.dumps({"padding": "x" * 2000, "url": cdn.url}).encode()
            with Misbehaving(body, script=[cut(1000)], forever=cut(1000) if for_ever else FINE) as gateway:
                if for_ever:
                    with pytest.raises(TransferBroken, match="was begun 3 times"):
                        land(gateway.url, store)
                else:
                    assert land(gateway.url, store).sha256 == digest(CLIP)
        assert store.leftovers() == []

    def test_a_data_url_is_a_video_too(self, store: Store) -> None:
        url = "data:video/mp4;base64," + base64.b64encode(CLIP).decode()
        assert land(url, store).sha256 == digest(CLIP)
        assert store.leftovers() == []

    def test_a_broken_data_url_is_an_error(self, store: Store) -> None:
        with pytest.raises(DamagedVideo):
            land("data:video/mp4;base64,!!!!", store)
        assert store.names() == store.leftovers() == []


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            "http://[::ffff:127.0.0.1]:{port}/clip.mp4",
            "http://2130706433:{port}/clip.mp4",
            "http://0x7f.1:{port}/clip.mp4",
            "http://127.0.0.1:{port}/clip.mp4",
            "http://localhost:{port}/clip.mp4",
            "http://0.0.0.0:{port}/clip.mp4",
            "http://[::1]:{port}/clip.mp4",
            "http://169.254.169.254/",
        ],
    )
    def test_addresses_that_are_not_public_are_never_connected_to(self, url: str, store: Store) -> None:
        with Misbehaving(CLIP) as server:
            with pytest.raises(UnsafeAddress, match="not a public one"):
                land(url.format(port=server.port), store, allowed_hosts=())
            assert server.seen == []
        assert store.names() == store.leftovers() == []

    def test_a_name_that_changes_its_address_does_not_pass(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """127.0.0.2 stands for the public address: it is let through, 127.0.0.1 is not."""
        real, asked = socket.getaddrinfo, []

        def rebinding(host: str, *args: Any, **more: Any) -> Any:
            if host != "video.example":
                return real(host, *args, **more)
            asked.append(host)
            return real("127.0.0.2" if len(asked) == 1 else "127.0.0.1", *args, **more)

        with Misbehaving(CLIP, script=(reset(MIDDLE),), host="127.0.0.2") as public:
            monkeypatch.setattr(socket, "getaddrinfo", rebinding)
            with pytest.raises(UnsafeAddress, match=r"video\.example \(which is 127\.0\.0\.1\)"):
                land(f"http://video.example:{public.port}/clip.mp4", store, allowed_hosts=["127.0.0.2"])
        assert len(asked) == 2
        assert [seen.local_address for seen in public.seen] == ["127.0.0.2"]
        assert store.leftovers() == []


class TestTls:
    @pytest.mark.parametrize("connections", [1, 8], ids=["one", "many"])
    def test_a_download_over_tls_is_resumed_like_any_other(
        self, connections: int, store: Store, tls: ssl.SSLContext, certificate: Path
    ) -> None:
        with Misbehaving(CLIP, script=(cut(MIDDLE), reset(1000)), tls=tls) as server:
            landed = land(server.url, store, verify=str(certificate), connections=connections, options=EAGER)
        assert (landed.sha256, store.leftovers()) == (digest(CLIP), [])

    def test_a_certificate_of_nobody_known_is_not_trusted(self, store: Store, tls: ssl.SSLContext) -> None:
        with Misbehaving(CLIP, tls=tls) as server, pytest.raises(UntrustedCertificate, match="verify"):
            land(server.url, store)
        assert store.names() == store.leftovers() == []

    def test_https_is_not_left_for_plain_http(
        self, store: Store, tls: ssl.SSLContext, certificate: Path
    ) -> None:
        with (
            Misbehaving(CLIP) as plain,
            Misbehaving(CLIP, tls=tls, forever=answer(302, Location=plain.url)) as server,
        ):
            with pytest.raises(RedirectRefused, match="from https to http"):
                land(server.url, store, verify=str(certificate))
            assert plain.seen == []

    def test_a_download_over_tls_is_broken_off_when_the_time_is_over(
        self, store: Store, tls: ssl.SSLContext, certificate: Path
    ) -> None:
        with Misbehaving(CLIP, forever=stall(MIDDLE), tls=tls) as server:
            patient = {"timeout": 3.0, "stall_timeout": 600.0}
            with pytest.raises(DownloadTimeout, match=f"{MIDDLE} of {len(CLIP)} bytes"):
                land(server.url, store, verify=str(certificate), connections=1, **patient)
            assert not [thread for thread in threading.enumerate() if thread.name == "video-download"]
        assert store.names() == store.leftovers() == []


class TestStopping:
    def test_a_cancelled_download_leaves_nothing(self, store: Store) -> None:
        from airflow_video_provider.media import Cancelled

        cancel = threading.Event()
        with Misbehaving(CLIP, forever=stall(MIDDLE)) as server:
            server.on_sent = lambda sent: cancel.set()
            with pytest.raises(Cancelled):
                land(server.url, store, cancel=cancel, stall_timeout=30.0)
        assert store.names() == store.leftovers() == []

    def test_an_interrupt_leaves_nothing(self, store: Store) -> None:
        """As when Airflow ends a task: an exception out of nowhere in the thread that downloads."""

        def interrupt(moment: Any) -> None:
            if moment.received >= 1000:
                raise KeyboardInterrupt

        with Misbehaving(CLIP, forever=stall(MIDDLE)) as server, pytest.raises(KeyboardInterrupt):
            land(server.url, store, progress=interrupt, stall_timeout=30.0)
        assert store.names() == store.leftovers() == []
