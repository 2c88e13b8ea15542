"""The files: whole, playable, one per prompt; and the CDN that serves them."""

from __future__ import annotations

import base64
import io
import json
from itertools import pairwise

import av
import pytest

from airflow_video_provider.sandbox.media import Clip, frame_size, render
from airflow_video_provider.sandbox.serving import byte_range, padded


def decode(data: bytes) -> tuple[int, int, int, int]:
    """Pictures, sound samples, width, height: of a file that decodes to its end."""
    with av.open(io.BytesIO(data)) as container:
        pictures = list(container.decode(video=0))
    with av.open(io.BytesIO(data)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    first = bytes(pictures[0].planes[0])
    assert any(bytes(picture.planes[0]) != first for picture in pictures), "nothing moves"
    return len(pictures), samples, pictures[0].width, pictures[0].height


def test_a_finished_task_has_a_video_that_decodes_to_the_end(desk) -> None:
    _, reply = desk.finished()
    fetched = desk.fetch(reply["video_url"])
    assert fetched.headers["content-type"] == "video/mp4"
    pictures, samples, width, height = decode(fetched.content)
    assert (pictures, width, height) == (24, 640, 360)
    assert samples >= 48_000


def test_the_index_stands_in_front_so_that_players_start_at_once() -> None:
    data = render(Clip("a", 320, 180))
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_same_prompt_has_the_same_bytes_and_another_prompt_others(desk) -> None:
    urls = [desk.finished(prompt=prompt)[1]["video_url"] for prompt in ("a cat", "a cat", "a dog")]
    one, again, other = (desk.fetch(url) for url in urls)
    assert one.content == again.content == render(Clip("a cat", 640, 360))
    assert one.content != other.content
    assert one.headers["etag"] == again.headers["etag"] != other.headers["etag"]


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({}, (640, 360)),
        ({"aspect_ratio": "9:16"}, (360, 640)),
        ({"orientation": "portrait"}, (360, 640)),
        ({"orientation": "portrait", "size": "large"}, (540, 960)),
        ({"aspect_ratio": "1:1"}, (640, 640)),
        ({"aspect_ratio": "2:3"}, (426, 640)),
        ({"aspect_ratio": "3:2", "size": "1080P"}, (960, 640)),
        ({"size": "720x1280"}, (360, 640)),
        ({"size": "99999x1"}, (640, 360)),
        ({"size": "0x0"}, (640, 360)),
    ],
    ids=str,
)
def test_the_picture_has_the_asked_shape(body, size) -> None:
    assert frame_size(body) == size
    assert decode(render(Clip("shape", *size)))[2:] == size


def test_the_upsampled_file_is_larger_than_the_original(desk) -> None:
    _, reply = desk.finished(enable_upsample=True)
    upsampled, original = (desk.fetch(reply[k]["video_url"] if k else reply["video_url"]).content
                           for k in ("", "detail"))  # fmt: skip
    assert decode(upsampled)[2:] == (1280, 720)
    assert decode(original)[2:] == (640, 360)
    assert len(upsampled) > len(original)


def test_a_data_url_holds_the_whole_video(desk) -> None:
    _, reply = desk.finished(prompt="a cat [data-url]")
    kind, _, data = reply["video_url"].partition(",")
    assert kind == "data:video/mp4;base64"
    assert decode(base64.b64decode(data))[0] == 24


def test_padding_keeps_the_file_whole() -> None:
    data = render(Clip("big", 320, 180))
    blob = padded(data, 200_000)
    whole = b"".join(blob.chunks(0, len(blob)))
    assert len(whole) == len(blob) == len(data) + 200_000
    assert decode(whole)[0] == 24
    assert b"".join(blob.chunks(len(data) - 3, len(data) + 9)) == whole[len(data) - 3 : len(data) + 9]


# --- the CDN ------------------------------------------------------------------------------------------


@pytest.fixture
def url(desk) -> str:
    return desk.finished()[1]["video_url"]


def test_nothing_is_served_before_the_end(desk) -> None:
    desk.submit()
    name = next(iter(desk.app.state.sandbox.store.files))
    assert desk.fetch(f"/cdn/{name}").status_code == 404
    assert desk.fetch("/cdn/none.mp4").status_code == 404


def test_the_whole_file_has_a_length_a_tag_and_takes_ranges(desk, url) -> None:
    fetched = desk.fetch(url)
    assert fetched.status_code == 200
    assert int(fetched.headers["content-length"]) == len(fetched.content)
    assert fetched.headers["accept-ranges"] == "bytes"
    assert fetched.headers["etag"].startswith('"')


def test_head_tells_what_get_would(desk, url) -> None:
    head, get = desk.stranger.head(url), desk.fetch(url)
    for name in ("content-length", "etag", "content-type", "accept-ranges", "last-modified"):
        assert head.headers[name] == get.headers[name]
    assert head.content == b""


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=100-", 100, None), ("bytes=-10", -10, None), ("bytes=5-5", 5, 6),
     ("bytes=10-99999999", 10, None)],
)  # fmt: skip
def test_a_range_is_answered_with_just_that(desk, url, asked, start, stop) -> None:
    whole, part = desk.fetch(url).content, desk.fetch(url, range=asked)
    assert part.status_code == 206
    assert part.content == whole[start:stop]
    first = start % len(whole)
    last = first + len(part.content) - 1
    assert part.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"
    assert int(part.headers["content-length"]) == len(part.content)


def test_ranges_put_together_are_the_file(desk, url) -> None:
    whole = desk.fetch(url).content
    marks = [*range(0, len(whole), 30_000), len(whole)]
    parts = [desk.fetch(url, range=f"bytes={a}-{b - 1}").content for a, b in pairwise(marks)]
    assert b"".join(parts) == whole


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=-0"])
def test_a_range_outside_the_file_is_a_416(desk, url, asked) -> None:
    size = len(desk.fetch(url).content)
    reply = desk.fetch(url, range=asked)
    assert reply.status_code == 416
    assert reply.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("asked", ["bytes=-", "bytes=9-3", "bytes=0-1,4-5", "lines=0-1", "bytes=x-y"])
def test_a_range_that_makes_no_sense_is_ignored(desk, url, asked) -> None:
    assert desk.fetch(url, range=asked).status_code == 200


def test_if_range_gives_the_whole_file_when_it_is_another_one(desk, url) -> None:
    tag, date = (desk.fetch(url).headers[name] for name in ("etag", "last-modified"))
    for value, status in ((tag, 206), ('"other"', 200), (date, 206), ("nonsense", 200),
                          ("Thu, 01 Jan 1970 00:00:00 GMT", 200)):  # fmt: skip
        assert desk.fetch(url, **{"range": "bytes=0-9", "if-range": value}).status_code == status, value


def test_byte_range_never_leaves_the_file() -> None:
    assert byte_range("bytes=0-0", 1) == (0, 1)
    assert byte_range("bytes=-5", 3) == (0, 3)
    with pytest.raises(ValueError, match="bytes=3-"):
        byte_range("bytes=3-", 3)


def test_a_signed_url_works_byte_for_byte_only(desk) -> None:
    _, reply = desk.finished(model="kling-v2")
    url = reply["video_url"]
    assert "%2F" in url
    assert desk.fetch(url).status_code == 200
    for broken in (
        url.replace("%2F", "/"),
        url.replace("%2F", "%2f"),
        url.partition("?")[0],
        url + "&x=1",
        url[:-1],
    ):
        assert desk.fetch(broken).status_code == 403, broken


def test_a_signed_url_expires_and_the_gateway_gives_a_fresh_one(make_desk) -> None:
    desk = make_desk(expire=60)
    video_id, reply = desk.finished(model="kling-v2")
    desk.clock.now += 61
    expired = desk.fetch(reply["video_url"])
    assert (expired.status_code, "expired" in expired.text) == (403, True)
    assert desk.fetch(desk.told(video_id)["video_url"]).status_code == 200


def test_the_content_route_has_the_bytes_needs_the_key_and_ignores_ranges(desk) -> None:
    video_id, reply = desk.finished()
    route = f"/v1/videos/{video_id}/content"
    content = desk.client.get(route, headers={"Range": "bytes=0-9"})
    assert content.status_code == 200
    assert content.content == desk.fetch(reply["video_url"]).content
    assert desk.stranger.get(route).status_code == 401


def test_the_content_route_is_a_400_before_the_end(desk) -> None:
    video_id = desk.submit("openai")
    assert desk.content(video_id).json() == {
        "error": {
            "message": "Task is not completed yet, current status: NOT_START",
            "type": "invalid_request_error",
        }
    }
    assert desk.content(video_id).status_code == 400
    assert desk.content("none").status_code == 404


def test_a_key_at_the_cdn_is_a_leak_that_is_noted_without_the_key(desk, url) -> None:
    desk.fetch(url)
    assert desk.stranger.get("/sandbox/leaks").json()["count"] == 0
    assert desk.client.get(url).status_code == 200
    desk.fetch(f"{url}?key=sandbox-key")
    leaks = desk.stranger.get("/sandbox/leaks").json()
    assert [leak["where"] for leak in leaks["leaks"]] == ["Authorization header", "query"]
    assert (leaks["count"], leaks["cross_origin"]) == (2, 0)
    assert "sandbox-key" not in json.dumps(leaks)
    assert desk.stranger.delete("/sandbox/leaks").json()["count"] == 0
