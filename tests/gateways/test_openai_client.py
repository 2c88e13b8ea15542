"""OpenAI's own client against the sandbox: what it reads, LiteLLM and others read, too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.services import Sandbox

SCRIPT = """
import json, sys, openai
url, key, prompt = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
told = {}
video = client.videos.create(model="sora-2", prompt=prompt, seconds="8", size="1280x720")
told["created"] = video.to_dict()
told["listed"] = [each.id for each in client.videos.list()]
video = client.videos.poll(video.id, poll_interval_ms=200)
told["ended"] = video.to_dict()
told["retrieved"] = client.videos.retrieve(video.id).to_dict()
if video.status == "completed":
    told["head"] = client.videos.download_content(video.id).read()[4:8].decode()
told["deleted"] = client.videos.delete(video.id).to_dict()
try:
    client.videos.retrieve(video.id)
except openai.NotFoundError as error:
    told["gone"] = error.status_code
print(json.dumps(told))
"""


@pytest.fixture
def told(others: Path, strict: Sandbox) -> Any:
    def run(prompt: str, key: str = "") -> dict[str, Any]:
        command = [str(others), "-W", "ignore", "-c", SCRIPT, strict.url, key or strict.key, prompt]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_create_list_retrieve_download_and_delete(told: Any) -> None:
    said = told("a fox")
    video_id = said["created"]["id"]
    assert said["created"]["status"] in {"queued", "in_progress"}
    assert said["created"]["object"] == "video"
    assert (said["created"]["seconds"], said["created"]["size"]) == ("8", "1280x720")
    assert video_id in said["listed"]
    assert said["ended"]["status"] == said["retrieved"]["status"] == "completed"
    assert said["ended"]["error"] is None
    assert said["head"] == "ftyp"
    assert said["deleted"] == {"id": video_id, "deleted": True, "object": "video.deleted"}
    assert said["gone"] == 404


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("fail", "generation_failed"),
        ("fail-output", "OutputVideoSensitiveContentDetected"),
        ("cancelled", None),
    ],
)
def test_a_failure_is_one_that_the_client_knows(told: Any, fault: str, code: str | None) -> None:
    ended = told(f"a fox [{fault}]")["ended"]
    assert ended["status"] == "failed"
    if code:
        assert ended["error"]["code"] == code
    assert ended["error"]["message"]


def test_a_bad_key_is_one_that_the_client_knows(told: Any) -> None:
    with pytest.raises(AssertionError, match="AuthenticationError"):
        told("a fox", key="sk-bad")
