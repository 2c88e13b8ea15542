from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from typing import Any, get_type_hints

import pytest

from airflow_video_provider.media import BadDestination, DownloadOptions
from airflow_video_provider.media.options import MAY_BE_ZERO, Policies


def test_a_check_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="check: 'nothing' is none; allowed: structure, packets, frames"):
        DownloadOptions(check="nothing")  # type: ignore[arg-type]


def test_an_if_exists_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(BadDestination, match="if_exists: 'perhaps' is none; allowed: skip, overwrite, fail"):
        DownloadOptions(if_exists="perhaps")  # type: ignore[arg-type]


def test_options_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        DownloadOptions().attempts = 3  # type: ignore[misc]


def test_every_field_is_documented() -> None:
    doc = DownloadOptions.__doc__ or ""
    assert [field.name for field in fields(DownloadOptions) if f":param {field.name}:" not in doc] == []


def test_every_policy_is_an_option() -> None:
    assert set(get_type_hints(Policies)) <= {field.name for field in fields(DownloadOptions)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": timedelta(seconds=-1)},
        {"timeout": "60"},
        {"timeout": float("nan")},
        {"stall_timeout": 0.0},
        {"stall_timeout": None},
        {"backoff": -1.0},
        {"connections": 0},
        {"connections": "4"},
        {"connections": True},
        {"attempts": 1.5},
        {"max_bytes": "20G"},
        {"read_size": 0},
        {"verify": None},
    ],
)
def test_a_value_that_is_none_is_refused_by_the_name_of_its_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        DownloadOptions(**wrong)


def test_numbers_that_may_be_zero_are_taken_and_so_is_a_timedelta() -> None:
    DownloadOptions(timeout=timedelta(minutes=1), **dict.fromkeys(MAY_BE_ZERO, 0))


def test_what_may_be_zero_is_an_option() -> None:
    assert {field.name for field in fields(DownloadOptions)} >= MAY_BE_ZERO
