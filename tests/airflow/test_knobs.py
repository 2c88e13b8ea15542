"""One table of knobs: the request, the operator's signature, docstring and templates, and the documents."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.gateway.dialects import DIALECTS
from airflow_video_provider.gateway.openrouter import OPENROUTER
from airflow_video_provider.gateway.request import VideoRequest
from airflow_video_provider.operators.knobs import KNOBS
from airflow_video_provider.operators.video import VideoGenerateOperator
from tests.airflow.support import Clock, Gateway, context_of, deferred, film, finish, refused

DOCUMENT = Path(__file__).parents[2] / "docs" / "dialects.md"
SHOWN = (*DIALECTS.values(), OPENROUTER)


def test_the_operator_has_what_a_request_has() -> None:
    assert tuple(VideoRequest.model_fields) == KNOBS


def test_each_is_an_argument_and_a_template_and_documented() -> None:
    taken = inspect.signature(VideoGenerateOperator.__init__).parameters
    documented = re.findall(r":param (\w+):", VideoGenerateOperator.__doc__ or "")
    assert [name for name in taken if name in KNOBS] == list(KNOBS)
    assert [name for name in documented if name in KNOBS] == list(KNOBS)
    assert set(KNOBS) < set(VideoGenerateOperator.template_fields)
    assert set(documented) == set(taken) - {"self", "kwargs"}
    optional = set(KNOBS) - {"prompt", "model"}
    assert {taken[name].default for name in optional} == {None}


def _row(knob: str) -> str:
    cells = [f"`{d.spelling[knob].field}`" if knob in d.spelling else "" for d in SHOWN]
    return " | ".join([f"| `{knob}`", *cells]) + " |"


def test_the_document_says_how_each_is_spelt() -> None:
    spelt = [knob for knob in KNOBS if any(knob in dialect.spelling for dialect in SHOWN)]
    table = [
        line.replace("  ", " ")
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| `\w+` \|", line) and line.strip("| `").split("`")[0] in spelt
    ]
    assert table == [_row(knob).replace("  ", " ") for knob in spelt]


class TestACallback:
    URL = "https://hooks.example/done"

    def test_goes_where_the_dialect_has_it(self, connect: Any, gateway: Gateway) -> None:
        connect(extra={"dialect": "newapi"})
        deferred(film(callback_url=self.URL, metadata={"fps": 24}).execute, context_of())
        assert gateway.newest["body"]["metadata"] == {"fps": 24, "callback_url": self.URL}

    def test_is_neither_needed_nor_believed(self, connect: Any, gateway: Gateway, clock: Clock) -> None:
        """Nobody listens at the URL, and nothing in this package does: the gateway is queried as ever."""
        connect(extra={"dialect": "newapi"})
        assert finish(callback_url="http://127.0.0.1:9/done")["state"] == "succeeded"
        assert gateway.requests("GET")

    @pytest.mark.parametrize("url", ["hooks.example/done", "ftp://hooks.example"])
    def test_must_be_a_url(self, connection: str, gateway: Gateway, url: str) -> None:
        assert "callback_url: must look like https://" in str(refused(callback_url=url))
        assert gateway.paid == 0

    def test_is_refused_where_the_dialect_has_none(self, connection: str, gateway: Gateway) -> None:
        said = str(refused(callback_url=self.URL))
        assert "callback_url: the unified dialect has no such field" in said
        assert "extra_body" in said
