"""Any sequence of misbehaviours ends in identical bytes or an error, never in a different file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_video_provider.media import MediaError, download
from tests.system.landing import CLIP, EAGER, OTHER, QUICK
from tests.system.misbehaving import FINE, Fault, Misbehaving, answer, cut, digest, reset, stall

POSITIONS = st.integers(0, len(CLIP)) | st.sampled_from([0, 1, 511, 512, 513, len(CLIP) - 1, len(CLIP)])
FAULTS = st.one_of(
    st.just(FINE),
    st.builds(reset, POSITIONS),
    st.builds(cut, POSITIONS),
    st.builds(stall, POSITIONS),
    st.builds(Fault, st.sampled_from(["chunked_cut", "rotating"]), POSITIONS),
    st.sampled_from(
        [
            Fault(kind)
            for kind in ("ignore_range", "wrong_range", "other_etag", "longer", "no_length", "chunked")
        ]
        + [Fault("new_version"), Fault("gzip")]
        + [answer(status) for status in (200, 403, 404, 416, 429, 500, 503)]
        + [answer(200, b"<html>busy</html>"), answer(200, b'{"status": "pending"}')]
        + [answer(302, Location="/elsewhere.mp4")]
    ),
)


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
)
@given(
    script=st.lists(FAULTS, max_size=8),
    forever=st.sampled_from(
        [FINE, FINE, Fault("ignore_range"), Fault("chunked"), Fault("rotating", 100_000)]
    ),
    etag=st.sampled_from(['"v1"', 'W/"v1"', None]),
    connections=st.sampled_from([1, 4]),
    fresh=st.sampled_from(["no link", "the same link", "another link"]),
    elsewhere=st.lists(FAULTS, max_size=4),
)
def test_any_sequence_of_misbehaviours(
    script: list[Fault],
    forever: Fault,
    etag: str | None,
    connections: int,
    fresh: str,
    elsewhere: list[Fault],
) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        Misbehaving(CLIP, script=script, forever=forever, etag=etag, next_version=OTHER) as server,
        Misbehaving(CLIP, script=elsewhere, etag='"another"', next_version=OTHER) as other,
    ):
        links = {"no link": None, "the same link": lambda: server.url, "another link": lambda: other.url}
        path = Path(directory, "v.mp4")
        try:
            landed = download(
                server.url,
                path,
                connections=connections,
                refresh_url=links[fresh],
                options=EAGER,
                **{**QUICK, "stall_timeout": 0.1},
            )
        except MediaError:
            assert list(Path(directory).iterdir()) == []
        else:
            assert landed.sha256 in (digest(CLIP), digest(OTHER))
            assert digest(path.read_bytes()) == landed.sha256
            assert list(Path(directory).iterdir()) == [path]
